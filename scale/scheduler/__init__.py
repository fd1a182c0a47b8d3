"""The daemon that matches what waits to what the cluster offers."""
