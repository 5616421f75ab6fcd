"""Connections: the time-out of a response that never ends, and how many open at a time."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from urllib3.connectionpool import connection_from_url

from iterable_api.connections import MAX_OPENING, MIN_OPENING, Connection, Pool
from iterable_api.http import IterableHTTP
from iterable_api.responses import USERS_UPDATE
from records.outcomes import Verdict
from tests.support.recording_servers import SUCCESS, make_self_signed, website
from tests.support.rows import API_KEY, unwaiting_client, wait_until

USER = b'{"email":"user1@example.com"}'
TIMEOUT_SECONDS = (1.0, 0.2)
TIME_OUTS = ("ReadTimeout", "ReadTimeoutError")  # before and after the headers
BETWEEN_BYTES_SECONDS = 0.02
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
ENDLESS_RESPONSES = {
    "a status line": itertools.repeat(b"H"),
    "headers": itertools.chain([HEAD, b"X: "], itertools.repeat(b"x")),
    "a body": itertools.chain([HEAD, b"Content-Length: 9999\r\n\r\n"], itertools.repeat(b" ")),
    "a body of no length": itertools.chain([HEAD, b"\r\n"], itertools.repeat(b" ")),
    "chunks": itertools.chain(
        [HEAD, b"Transfer-Encoding: chunked\r\n\r\n"], itertools.repeat(b"1\r\n \r\n")
    ),
    "100 Continue": itertools.repeat(b"HTTP/1.1 100 Continue\r\n\r\n"),
}


@dataclass
class Server:
    url: str
    client_closed: threading.Event = field(default_factory=threading.Event)


@contextlib.contextmanager
def slow_server(pieces: Iterator[bytes]) -> Iterator[Server]:
    """Serve one response piece by piece, until the client closes the connection."""
    left = threading.Event()

    def response() -> None:
        connection, _address = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.recv(65_536)
            for piece in pieces:
                connection.sendall(piece)
                if left.wait(BETWEEN_BYTES_SECONDS):
                    return
            while connection.recv(65_536):
                pass
            server.client_closed.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(f"http://127.0.0.1:{listener.getsockname()[1]}")
        thread = threading.Thread(target=response)
        thread.start()
        try:
            yield server
        finally:
            left.set()
            thread.join()


@pytest.mark.parametrize("name", ENDLESS_RESPONSES)
def test_a_response_that_never_ends_times_out(name: str) -> None:
    with slow_server(ENDLESS_RESPONSES[name]) as server:
        http = IterableHTTP(API_KEY, server.url, timeout_seconds=TIMEOUT_SECONDS)
        response = http.post(USERS_UPDATE, USER)
        http.close()
    assert response.status is None
    assert response.problem in TIME_OUTS


def test_a_response_that_times_out_before_its_last_byte_is_unavailable() -> None:
    head = [HEAD, b"Content-Length: 41\r\n\r\n", SUCCESS[:-1]]  # all but the last byte
    with slow_server(itertools.chain(head, itertools.repeat(b""))) as server:
        client, _stop = unwaiting_client(
            server.url, max_attempts=1, timeout_seconds=TIMEOUT_SECONDS
        )
        result = client.call(USERS_UPDATE, USER)
    assert result.verdict is Verdict.UNAVAILABLE
    assert result.code in TIME_OUTS


def test_close_closes_connections_that_are_still_referenced() -> None:
    with slow_server(iter([HEAD + b"Content-Length: 2\r\n\r\n{}"])) as server:
        http = IterableHTTP(API_KEY, server.url, timeout_seconds=TIMEOUT_SECONDS)
        http.post(USERS_UPDATE, USER)
        # A call in flight or a traceback may still hold a reference.
        held = list(http.pool()._idle)
        http.close()
        assert server.client_closed.wait(10), "the connection stays open"
        assert [each.is_open for each in held] == [False]


def pool_for(url: str, connect_seconds: float) -> Pool:
    return Pool(connection_from_url(url), 100, (connect_seconds, 5.0))


def take_in_thread(pool: Pool) -> list[Connection]:
    taken: list[Connection] = []
    threading.Thread(target=lambda: taken.append(pool.take()), daemon=True).start()
    return taken


def test_slow_handshakes_made_every_call_open_another_connection() -> None:
    with website() as site:
        pool = pool_for(site.url, 60.0)
        connecting = [pool.take() for _ in range(MAX_OPENING)]
        taken = take_in_thread(pool)
        assert not wait_until(lambda: taken, 0.1)
        connecting[0].open()
        pool.give_back(connecting[0])
        assert wait_until(lambda: taken)
        assert taken[0] is connecting[0]
        for failed in connecting[1:]:
            pool.end_opening(failed)
        assert not pool.take().is_open
        pool.give_back(taken[0])
        pool.close()


def test_where_handshakes_are_fast_few_calls_connect_at_a_time() -> None:
    """Fifty handshakes at once made requests late, and the next second too full."""
    with website() as site:
        pool = pool_for(site.url, 60.0)
        first = pool.take()
        first.open()
        pool.give_back(first)
        connecting = [pool.take() for _ in range(1 + MIN_OPENING)]
        assert [each.is_open for each in connecting] == [True] + MIN_OPENING * [False]
        taken = take_in_thread(pool)
        assert not wait_until(lambda: taken, 0.1)
        pool.end_opening(connecting[1])
        assert wait_until(lambda: taken)
        pool.give_back(first)
        pool.close()


def test_a_call_waits_for_a_connection_no_longer_than_for_connecting() -> None:
    pool = pool_for("http://127.0.0.1:9", 0.05)
    for _ in range(MAX_OPENING + 1):
        assert not pool.take().is_open


def test_each_response_on_a_connection_has_its_own_deadline(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = make_self_signed(tmp_path_factory.mktemp("tls"), "IP:127.0.0.1")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with website(certificate) as site:
        http = IterableHTTP(API_KEY, site.url, timeout_seconds=(5.0, 0.4))
        waiting = threading.Event()
        for _ in range(4):  # together longer than the time-out of one response
            assert http.post(USERS_UPDATE, USER).status == 200
            waiting.wait(0.3)
        assert site.connection_count == 1
        http.close()
