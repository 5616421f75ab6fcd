"""Errors for the operator, and exit statuses."""
