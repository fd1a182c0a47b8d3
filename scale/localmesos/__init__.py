"""A Mesos master and its agents for one machine: the v1 HTTP API and real processes."""
