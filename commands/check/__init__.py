"""`--check`: one line for each thing that a run needs. Start at `run`."""
