"""The SQLite state file: outbox, deliveries, failures and past runs. Start with `outbox`."""
