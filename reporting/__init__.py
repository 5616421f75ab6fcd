"""What a run leaves behind. Start at `results_file`."""
