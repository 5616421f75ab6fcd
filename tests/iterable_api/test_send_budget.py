"""Sending over a slow line: a time-out without progress, and a budget of bytes under way."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from iterable_api.http import IterableHTTP
from iterable_api.responses import USERS_BULK_UPDATE, ApiResponse
from iterable_api.send_budget import PIECE_BYTES, SendBudget, Share
from iterable_client import IterableClient
from tests.support.rows import API_KEY, wait_until

STOP = threading.Event()
ANSWER = b'HTTP/1.1 200 OK\r\nContent-Length: 32\r\n\r\n{"successCount":1,"failCount":0}'


# The budget


def take(budget: SendBudget, body_bytes: int) -> Share:
    share = budget.take(body_bytes, STOP)
    assert share is not None
    return share


def take_in_thread(budget: SendBudget, body_bytes: int, taken: list[int]) -> threading.Thread:
    def run() -> None:
        take(budget, body_bytes)
        taken.append(body_bytes)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def test_bodies_share_the_budget_first_come_first_served() -> None:
    budget = SendBudget(100_000)
    first, second = take(budget, 60_000), take(budget, 40_000)
    taken: list[int] = []
    take_in_thread(budget, 50_000, taken)
    assert wait_until(lambda: budget._waiting)
    take_in_thread(budget, 20_000, taken)  # has room before the other one, and must not overtake
    second.release()
    assert not wait_until(lambda: taken, 0.3)
    first.release()
    assert wait_until(lambda: sorted(taken) == [20_000, 50_000])


def test_a_body_larger_than_the_budget_is_sent_alone() -> None:
    budget = SendBudget(100_000)
    large = take(budget, 5_000_000)
    taken: list[int] = []
    take_in_thread(budget, 20_000, taken)
    assert not wait_until(lambda: taken, 0.2)
    large.release()
    large.release()  # a second time changes nothing
    assert wait_until(lambda: taken == [20_000])


def test_a_small_body_needs_no_budget() -> None:
    budget = SendBudget(100_000)
    take(budget, 100_000)
    take(budget, PIECE_BYTES)


def test_a_stop_ends_the_wait() -> None:
    budget = SendBudget(100_000)
    held = take(budget, 100_000)
    stop = threading.Event()
    stop.set()
    assert budget.take(50_000, stop) is None
    held.release()
    take(budget, 100_000)  # nobody waits any more


def test_a_share_is_returned_after_the_last_piece_or_an_error() -> None:
    budget = SendBudget(100_000)
    share = take(budget, 100_000)
    assert b"".join(share.pieces(b"x" * 100_000)) == b"x" * 100_000
    with pytest.raises(ValueError, match="broken"), take(budget, 100_000):
        raise ValueError("broken")
    take(budget, 100_000)


class InterruptedStop(threading.Event):
    """Ctrl-C at a Python prompt while a call waits."""

    def is_set(self) -> bool:
        raise KeyboardInterrupt

    def wait(self, _timeout: float | None = None) -> bool:
        raise KeyboardInterrupt


def test_an_interrupted_wait_for_a_share_kept_its_place_in_the_queue() -> None:
    budget = SendBudget(100_000)
    held = take(budget, 100_000)
    with pytest.raises(KeyboardInterrupt):
        budget.take(50_000, InterruptedStop())
    held.release()
    taken: list[int] = []
    take_in_thread(budget, 100_000, taken)
    assert wait_until(lambda: taken)


def test_an_interrupted_wait_for_a_permit_kept_its_share() -> None:
    client = IterableClient(API_KEY, "http://127.0.0.1:9", stop=InterruptedStop())
    while client.rate_limiters[USERS_BULK_UPDATE].acquire(lambda _seconds: True):
        pass
    with pytest.raises(KeyboardInterrupt):
        client.bulk_update_users([b"x" * (PIECE_BYTES + 1)])
    assert client._send_budget._used_bytes == 0


# The time-out


class SlowReader:
    """A server that reads a request slowly, after a stall; with a pause of None never."""

    def __init__(self, pause_seconds: float | None, stall_seconds: float = 0.0) -> None:
        self._pause_seconds = pause_seconds
        self._stall_seconds = stall_seconds
        self._listening = socket.socket()
        self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 200_000)
        self._listening.bind(("127.0.0.1", 0))
        self._listening.listen()
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self.left = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self.left.set()
        self._listening.close()

    def _serve(self) -> None:
        with suppress(OSError):
            connection, _address = self._listening.accept()
            with connection:
                time.sleep(self._stall_seconds)
                last = b""
                while not last.endswith(b"end"):
                    if self._pause_seconds is None:
                        self.left.wait(30)
                        return
                    time.sleep(self._pause_seconds)
                    last = connection.recv(60_000)
                connection.sendall(ANSWER)
                self.left.wait(30)


@contextmanager
def slow_reader(pause_seconds: float | None, stall_seconds: float = 0.0) -> Iterator[SlowReader]:
    server = SlowReader(pause_seconds, stall_seconds)
    try:
        yield server
    finally:
        server.close()


def post(url: str, body: bytes, *, connect_seconds: float, read_seconds: float) -> ApiResponse:
    http = IterableHTTP(API_KEY, url, timeout_seconds=(connect_seconds, read_seconds))
    budget = SendBudget()
    try:
        share = budget.take(len(body), STOP)
        assert share is not None
        with share:
            return http.post(USERS_BULK_UPDATE, body, share)
    finally:
        http.close()


# The system takes up to 4 MB at once, however slowly the server reads.
BODY = b"x" * 16_000_000 + b"end"


@pytest.mark.slow
def test_a_body_that_took_longer_than_connecting_may_was_cut_off() -> None:
    with slow_reader(0.001, stall_seconds=0.8) as server:
        found = post(server.url, BODY, connect_seconds=0.3, read_seconds=5.0)
    assert (found.status, found.problem) == (200, "")


def test_a_server_that_takes_no_more_ends_the_call() -> None:
    with slow_reader(None) as server:
        found = post(server.url, BODY, connect_seconds=5.0, read_seconds=0.3)
    assert (found.status, found.problem) == (None, "SendTimeout")


@pytest.mark.slow
def test_the_time_for_the_response_begins_when_the_request_is_sent() -> None:
    with slow_reader(0.005) as server:
        began_at = time.monotonic()
        # The whole response may take twice the read time-out.
        found = post(server.url, 2 * BODY[:-3] + b"end", connect_seconds=5.0, read_seconds=0.8)
        assert found.status == 200
        assert time.monotonic() - began_at > 1.6
