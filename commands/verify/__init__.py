"""`--verify`. Start at `run`."""
