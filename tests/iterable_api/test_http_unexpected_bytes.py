"""What arrives beside the response: interim responses, bytes too many, a second response.

No request may ever be judged by the response to another one.
"""

from __future__ import annotations

import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from iterable_api.http import IterableHTTP
from iterable_api.responses import USERS_UPDATE, ApiResponse
from iterable_client import IterableClient
from tests.support.recording_servers import make_self_signed
from tests.support.rows import API_KEY, NoWaiting, wait_until

NUMBERS = range(40)
EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
PROCESSING = b"HTTP/1.1 102 Processing\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

Answer = Callable[[int], Iterable[bytes]]  # request number -> the pieces that are sent


class KeepAliveServer:
    """Answers each request with the pieces of `answer`, a moment apart, and keeps connections."""

    def __init__(self, answer: Answer, certificate: Path | None) -> None:
        self.connection_count = 0
        self.answer_count = 0  # sent to the last byte
        self._answer = answer
        self._tls: ssl.SSLContext | None = None
        if certificate is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(certificate)
        self._listening = socket.create_server(("127.0.0.1", 0))
        scheme = "http" if certificate is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _address = self._listening.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.connection_count += 1
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            while (number := _read_request(connection)) is not None:
                for place, piece in enumerate(self._answer(number)):
                    if place:
                        time.sleep(0.002)
                    connection.sendall(piece)
                self.answer_count += 1


def _read_request(connection: socket.socket) -> int | None:
    """Return the number in the request's body, None at the end of the connection."""
    received = b""
    while True:
        head, blank, body = received.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: *(\d+)", head)
        if blank and length and len(body) >= int(length[1]):
            return int(body)
        more = connection.recv(65_536)
        if not more:
            return None
        received += more


def response(number: int, *, status: int = 200, head: str = "", length: int | None = None) -> bytes:
    """Return the response to a request: its body has the number of the request."""
    body = f'{{"code":"Success","msg":"{number}"}}'.encode()
    size = len(body) if length is None else length
    start = f"HTTP/1.1 {status} Fine\r\nContent-Length: {size}\r\n{head}\r\n"
    return start.encode() + body


def chunked(number: int, end: bytes) -> bytes:
    body = response(number).partition(b"\r\n\r\n")[2]
    start = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return start + f"{len(body):x}".encode() + b"\r\n" + body + b"\r\n" + end


@contextmanager
def server_with(answer: Answer, certificate: Path | None = None) -> Iterator[KeepAliveServer]:
    server = KeepAliveServer(answer, certificate)
    try:
        yield server
    finally:
        server.close()


def post_all(
    server: KeepAliveServer,
    *,
    read_timeout_seconds: float = 5.0,
    waits_for_the_rest: bool = False,
) -> list[ApiResponse]:
    """Send 40 requests, one after another; no response may be that of another request.

    With `waits_for_the_rest` everything that the server sends has arrived before the next request.
    """
    timeout_seconds = (5.0, read_timeout_seconds)
    http = IterableHTTP(API_KEY, server.url, connections=1, timeout_seconds=timeout_seconds)
    responses = []
    for number in NUMBERS:
        found = http.post(USERS_UPDATE, str(number).encode())
        responses.append(found)
        if found.status is not None and found.body is not None:
            assert found.message == str(number), f"request {number} got another one's response"
        if waits_for_the_rest:
            assert wait_until(lambda: server.answer_count > len(responses) - 1)
    http.close()
    return responses


def statuses(responses: Sequence[ApiResponse]) -> set[int | None]:
    return {each.status for each in responses}


@pytest.fixture(params=["http", "https"])
def certificate(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path | None:
    if request.param == "http":
        return None
    made = make_self_signed(tmp_path, "IP:127.0.0.1")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(made))
    return made


INTERIM: dict[str, Answer] = {
    "103": lambda n: [EARLY_HINTS + response(n)],
    "102": lambda n: [PROCESSING + response(n)],
    "two in a row": lambda n: [EARLY_HINTS + PROCESSING + response(n)],
    "100, 103 and 100": lambda n: [CONTINUE + EARLY_HINTS + CONTINUE + response(n)],
    "in packets of its own": lambda n: [EARLY_HINTS, PROCESSING, response(n)],
    "split": lambda n: [EARLY_HINTS[:9], EARLY_HINTS[9:40], EARLY_HINTS[40:], response(n)],
    "every second request": lambda n: [EARLY_HINTS * (n % 2) + response(n)],
}


@pytest.mark.parametrize("kind", INTERIM)
def test_an_interim_response_was_taken_for_the_answer(certificate: Path | None, kind: str) -> None:
    with server_with(INTERIM[kind], certificate) as server:
        assert statuses(post_all(server)) == {200}
        assert server.connection_count == 1


@pytest.mark.parametrize("status", [200, 400, 503])
def test_an_interim_response_hides_no_status(status: int) -> None:
    with server_with(lambda n: [EARLY_HINTS + response(n, status=status)]) as server:
        assert statuses(post_all(server)) == {status}


def test_a_switch_to_another_protocol_is_no_answer() -> None:
    switch = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n"
    with server_with(lambda n: [switch + response(n)]) as server:
        assert statuses(post_all(server)) == {None}
        assert server.connection_count == len(NUMBERS)


@pytest.mark.slow
def test_endless_interim_responses_end_at_the_deadline() -> None:
    with server_with(lambda _n: [EARLY_HINTS] * 5_000) as server:
        http = IterableHTTP(API_KEY, server.url, timeout_seconds=(1.0, 0.2))
        began_at = time.monotonic()
        assert http.post(USERS_UPDATE, b"1").status is None
        assert time.monotonic() - began_at < 5
        http.close()


TOO_MANY: dict[str, Answer] = {
    "an interim response after the answer": lambda n: [response(n) + EARLY_HINTS],
    "the same in a packet of its own": lambda n: [response(n), EARLY_HINTS],
    "a second answer": lambda n: [response(n) + response(1_000 + n)],
    "a second answer in a packet of its own": lambda n: [response(n), response(1_000 + n)],
    "rubbish": lambda n: [response(n) + b"\0\xffrubbish"],
    "a line end": lambda n: [response(n) + b"\r\n"],
    "more than Content-Length": lambda n: [response(n) + b" trailing"],
    "a body with 204": lambda n: [b"HTTP/1.1 204 No Content\r\n\r\n" + response(1_000 + n)],
    "a body with 304": lambda n: [response(1_000 + n, status=304)],
    "rubbish after the last chunk": lambda n: [chunked(n, b"0\r\n\r\nrubbish")],
    "a second answer after the last chunk": lambda n: [chunked(n, b"0\r\n\r\n") + response(999)],
    "Connection: close, ignored": lambda n: [
        response(n, head="Connection: close\r\n") + response(999)
    ],
}


@pytest.mark.parametrize("kind", TOO_MANY)
def test_bytes_too_many_became_the_answer_to_the_next_request(
    certificate: Path | None, kind: str
) -> None:
    with server_with(TOO_MANY[kind], certificate) as server:
        found = post_all(server, waits_for_the_rest=True)
        assert statuses(found) <= {200, 204, 304}
        assert server.connection_count == len(NUMBERS)


def test_an_answer_too_many_during_the_wait_for_a_permit_became_the_answer_to_the_next_request(
    certificate: Path | None,
) -> None:
    class Stop(NoWaiting):
        def wait(self, timeout: float | None = None) -> bool:
            is_waiting.set()
            assert wait_until(lambda: server.answer_count == 1)
            return super().wait(timeout)

    def answer(number: int) -> Iterator[bytes]:
        yield response(number)
        if number == 0:
            is_waiting.wait(10)
            yield response(1_000)

    is_waiting, stop = threading.Event(), Stop()
    with server_with(answer, certificate) as server:
        client = IterableClient(
            API_KEY,
            server.url,
            requests_per_second={USERS_UPDATE: 1},
            stop=stop,
            clock=stop.clock,
        )
        assert client.call(USERS_UPDATE, b"0").message == "0"
        assert client.call(USERS_UPDATE, b"1").message == "1"
        client.close()


def test_chunks_with_a_trailer_are_read_to_their_end() -> None:
    with server_with(lambda n: [chunked(n, b"0\r\nExpires: never\r\n\r\n")]) as server:
        assert statuses(post_all(server)) == {200}


def test_an_answer_after_the_time_out_is_nobodys() -> None:
    def late(number: int) -> Sequence[bytes]:
        if number == 3:
            time.sleep(0.3)
        return [response(number)]

    with server_with(late) as server:
        found = post_all(server, read_timeout_seconds=0.1, waits_for_the_rest=True)
    assert [number for number in NUMBERS if found[number].status is None] == [3]


def test_http_1_0_without_keep_alive_uses_a_new_connection_each_time() -> None:
    def old(number: int) -> Sequence[bytes]:
        return [response(number).replace(b"HTTP/1.1", b"HTTP/1.0") + response(999)]

    with server_with(old) as server:
        assert statuses(post_all(server)) == {200}
        assert server.connection_count == len(NUMBERS)


def test_an_orderly_server_keeps_its_connection(certificate: Path | None) -> None:
    with server_with(lambda n: [response(n)], certificate) as server:
        assert statuses(post_all(server)) == {200}
        assert server.connection_count == 1


USUAL_FORMS: dict[str, Answer] = {
    "two cookies": lambda n: [response(n, head="Set-Cookie: a=b\r\nSet-Cookie: c=d\r\n")],
    "other letter case": lambda n: [response(n).replace(b"Content-Length", b"content-LENGTH")],
    "no blank after the colon": lambda n: [response(n).replace(b": ", b":", 1)],
    "more blanks": lambda n: [response(n).replace(b": ", b": \t ", 1)],
    "no reason phrase": lambda n: [response(n).replace(b" Fine", b" ")],
    "Connection: Keep-Alive": lambda n: [response(n, head="Connection: Keep-Alive\r\n")],
    "a large body": lambda n: [_padded(n, 100_000)],
    "a body in pieces": lambda n: [_padded(n, 9_000)[:5_000], _padded(n, 9_000)[5_000:]],
    "headers in pieces": lambda n: [response(n)[:9], response(n)[9:30], response(n)[30:]],
}
UNUSUAL_FORMS: dict[str, Answer] = {
    "no reason phrase and no blank": lambda n: [response(n).replace(b" Fine", b"")],
    "bare line feeds": lambda n: [response(n).replace(b"\r\n", b"\n")],
    "a folded header": lambda n: [response(n, head="X-Long: a\r\n b\r\n")],
    "a header name with a dot": lambda n: [response(n, head="X.Y: a\r\n")],
    "a long header": lambda n: [response(n, head=f"X: {'x' * 30_000}\r\n")],
    "HTTP/1.2": lambda n: [response(n).replace(b"HTTP/1.1", b"HTTP/1.2")],
    "chunks": lambda n: [chunked(n, b"0\r\n\r\n")],
    "Content-Encoding: identity": lambda n: [response(n, head="Content-Encoding: identity\r\n")],
}


def _padded(number: int, size: int) -> bytes:
    body = f'{{"code":"Success","msg":"{number}","params":"{"-" * size}"}}'.encode()
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.mark.parametrize("form", [*USUAL_FORMS, *UNUSUAL_FORMS])
def test_every_form_of_a_response_is_read_and_keeps_its_connection(
    certificate: Path | None, form: str
) -> None:
    with server_with({**USUAL_FORMS, **UNUSUAL_FORMS}[form], certificate) as server:
        assert [each.message for each in post_all(server)] == [str(number) for number in NUMBERS]
        assert server.connection_count == 1


@pytest.mark.parametrize("length", ["+31", "31, 31", "-1", "3_1", "x", "", "99999999999999999999"])
def test_an_odd_length_makes_no_request_get_the_response_to_another_one(length: str) -> None:
    def odd(number: int) -> Sequence[bytes]:
        right = str(len(response(number).partition(b"\r\n\r\n")[2])).encode()
        return [response(number).replace(right, length.encode(), 1)]

    with server_with(odd) as server:
        post_all(server, read_timeout_seconds=0.02)


def test_two_different_lengths_make_no_request_get_the_response_to_another_one() -> None:
    with server_with(lambda n: [response(n, head="Content-Length: 5\r\n")]) as server:
        post_all(server, read_timeout_seconds=0.02)
