"""What each server command does; imported only when it is run."""
