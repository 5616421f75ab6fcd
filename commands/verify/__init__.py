"""`--verify`: compare users in Iterable with what was delivered. Start at `run`."""
