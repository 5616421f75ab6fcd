"""The commands of `main.py`, one file or folder each. Start at `sync`: it needs no flag."""
