"""Iterable's HTTP API, used by `iterable_client`."""
