"""Job types, jobs and their executions; the only writer of states."""
