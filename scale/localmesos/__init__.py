"""A Mesos master and its agents for one machine: the v1 HTTP API, real processes, no other part of Scale."""
