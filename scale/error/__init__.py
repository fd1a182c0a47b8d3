"""Named failures: who is at fault and whether to try again."""
