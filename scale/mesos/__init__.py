"""The only part of Scale that speaks Mesos, and the only importer of pymesos."""
