"""The rules of scheduling as pure functions: no clock, no dice, no environment, no I/O."""
