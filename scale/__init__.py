"""Scale: a cluster job scheduler, a Django project and an Apache Mesos framework."""

__version__ = "0.1.0"
