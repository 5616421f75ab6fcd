"""Programs for developers: fuzzing and the table of faults."""
