"""Benchmarks of the program on this machine; start with `python -m benchmarks --help`."""
