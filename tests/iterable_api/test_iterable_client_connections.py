"""The client's connections: how many, when they are opened, and when a call takes its permit."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from iterable_api.responses import USERS_UPDATE
from iterable_client import IterableClient
from records.outcomes import Verdict
from tests.support.recording_servers import make_self_signed, website
from tests.support.rows import API_KEY, unwaiting_client, wait_until

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


# Connections that are opened ahead


@pytest.mark.parametrize("is_secure", [False, True])
def test_connections_opened_ahead_are_used_by_the_first_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_secure: bool
) -> None:
    certificate = make_self_signed(tmp_path, "IP:127.0.0.1") if is_secure else None
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate or ""))
    with website(certificate) as site, ThreadPoolExecutor(8) as threads:
        client = IterableClient(API_KEY, site.url, requests_per_second={USERS_UPDATE: 100_000})
        client.open_connections(8)
        assert wait_until(lambda: site.open_count == 8)
        # With TLS 1.3 session tickets arrive after the handshake.
        assert wait_until(lambda: len(client._http.pool()._idle) == 8)
        assert (site.requests, client.call_count) == ([], 0)
        site.before_response = threading.Barrier(8, timeout=30).wait
        results = threads.map(client.call, [USERS_UPDATE] * 8, [USER] * 8)
        assert all(result.delivered for result in results)
        client.open_connections(8)  # which are open
        client.open_connections(6)
        assert site.connection_count == 8
        client.close()
        assert wait_until(lambda: site.open_count == 0)


def test_no_more_connections_are_opened_ahead_than_are_kept() -> None:
    with website() as site:
        client = IterableClient(API_KEY, site.url, connections=3)
        client.open_connections(100)
        assert wait_until(lambda: len(client._http.pool()._idle) == 3)
        assert not wait_until(lambda: site.connection_count > 3, 0.1)
        client.close()


def test_a_server_that_cannot_be_reached_does_not_disturb_opening_ahead() -> None:
    client, _stop = unwaiting_client(_url_without_a_server(), max_attempts=1)
    client.open_connections(10)
    assert client.call(USERS_UPDATE, USER).code == "ConnectionError"
    assert client.call_count == 1


@pytest.mark.parametrize("waits", [True, False])
def test_a_connection_that_opens_while_the_client_closes_is_closed(waits: bool) -> None:
    with website() as site:
        client = IterableClient(API_KEY, site.url, connections=50)
        client.open_connections(50)
        if waits:
            wait_until(lambda: site.connection_count)
        client.close()
        assert wait_until(lambda: not any(t.name == "opening" for t in threading.enumerate()))
        assert wait_until(lambda: site.open_count == 0)


# The permit


def _url_without_a_server() -> str:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        return f"http://127.0.0.1:{gone.getsockname()[1]}"


def test_a_call_took_its_turn_before_its_handshake() -> None:
    """Calls that had to connect arrived late, together with those after them: a 429."""

    class Stop(threading.Event):
        def wait(self, _timeout: float | None = None) -> bool:
            counts_at_wait.append(site.open_count)
            return True

    counts_at_wait: list[int] = []
    with website() as site:
        client = IterableClient(
            API_KEY, site.url, stop=Stop(), requests_per_second={USERS_UPDATE: 0.01}
        )
        assert client.rate_limiters[USERS_UPDATE].acquire(lambda _seconds: False)
        client.open_connections(1)
        assert wait_until(lambda: site.open_count == 1)
        assert client.call(USERS_UPDATE, USER).attempts == 0
        assert counts_at_wait == [1]
        client.close()


def test_a_call_that_may_not_start_leaves_its_connection_for_the_next_one() -> None:
    with website() as site:
        client, _stop = unwaiting_client(site.url)
        refused = client.call(USERS_UPDATE, USER, before_attempt=lambda _number: False)
        assert (refused.attempts, client.call_count, site.requests) == (0, 0, [])
        assert refused.message == "stopped before it was sent"
        assert client.call(USERS_UPDATE, USER).delivered
        assert site.connection_count == 1
        client.close()


def test_connecting_in_vain_is_an_attempt_that_needs_no_permit() -> None:
    asked: list[int] = []

    def before_attempt(number: int) -> bool:
        asked.append(number)
        return number < 3

    client, stop = unwaiting_client(
        _url_without_a_server(), max_attempts=5, requests_per_second={USERS_UPDATE: 0.001}
    )
    result = client.call(USERS_UPDATE, USER, before_attempt=before_attempt)
    assert (result.verdict, result.code) == (Verdict.UNAVAILABLE, "ConnectionError")
    assert (result.attempts, client.call_count, asked) == (2, 2, [1, 2, 3])
    assert max(stop.waits_seconds) <= 1.0  # after each attempt; for a permit it would be 1,000
