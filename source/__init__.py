"""What is MySQL's own, used by `db_connection`."""
