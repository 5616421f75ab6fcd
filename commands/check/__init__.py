"""`--check`. Start at `run`."""
