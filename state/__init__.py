"""The SQLite state file: the outbox of a run, deliveries and past runs. Start with `outbox`."""
