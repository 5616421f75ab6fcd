"""The SQLite state file. Start at `outbox`."""
