"""`scale up`: everything Scale needs on one machine, started and kept by one process."""
