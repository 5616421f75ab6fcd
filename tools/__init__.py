"""Programs for developers: mutation testing, fuzzing, the table of faults."""
