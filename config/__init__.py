"""Settings: what the operator decided. Start at `settings`."""
