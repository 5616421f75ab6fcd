"""Programs for developers: fuzzing, the table of faults, and the tables of `docs/`."""
