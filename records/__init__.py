"""Mapping of rows to requests, and the result types. Pure functions; start at `mapping`."""
