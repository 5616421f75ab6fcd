"""The client's connection pool: its size, and that closing the client empties it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from iterable_api.responses import USERS_UPDATE
from iterable_client import IterableClient
from tests.support.recording_servers import website
from tests.support.rows import API_KEY, wait_until

USER = b'{"email":"user1@example.com"}'


def test_as_many_connections_are_kept_open_as_requested() -> None:
    calls_at_once = 20
    with website() as site, ThreadPoolExecutor(calls_at_once) as threads:
        client = IterableClient(
            API_KEY,
            site.url,
            connections=calls_at_once,
            requests_per_second={USERS_UPDATE: 100_000},
        )
        site.before_response = threading.Barrier(calls_at_once, timeout=30).wait
        for _ in range(3):
            results = threads.map(
                client.call, [USERS_UPDATE] * calls_at_once, [USER] * calls_at_once
            )
            assert all(result.delivered for result in results)
        assert site.connection_count == calls_at_once
        client.close()


def test_a_closed_client_has_no_open_connection() -> None:
    with website() as site:
        client = IterableClient(API_KEY, site.url)
        assert client.call(USERS_UPDATE, USER).delivered
        assert site.open_count == 1
        client.close()
        assert wait_until(lambda: site.open_count == 0)
