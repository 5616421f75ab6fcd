"""`--listen`: receive Iterable's webhooks. Start at `run`."""
