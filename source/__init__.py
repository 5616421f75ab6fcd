"""MySQL specifics used by `db_connection`. Start with `session`."""
