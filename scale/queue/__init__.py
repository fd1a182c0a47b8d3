"""The queue as people see it: a view of executions that wait."""
