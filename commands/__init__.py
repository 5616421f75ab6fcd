"""The commands of `main.py`, one file or folder each. Start at `sync`, what runs without a flag."""
