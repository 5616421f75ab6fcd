"""What a row becomes, and what became of it. Pure functions; start at `mapping`."""
