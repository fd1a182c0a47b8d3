"""The machines of the cluster."""
