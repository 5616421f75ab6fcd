"""HTTP, rate limits and responses of Iterable's API, under `iterable_client`; start at `http`."""
