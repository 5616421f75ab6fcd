"""A response of the usual form is read without `http.client`, which must make no difference.

Each sequence of bytes is read both ways, in one piece, and split at many places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from http.client import HTTPException

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from urllib3.connectionpool import connection_from_url
from urllib3.exceptions import HTTPError

from iterable_api.connections import Connection, Received, _Incoming

BODY = b'{"code":"Success","msg":"1"}'
LENGTH = b"Content-Length: 28\r\n"
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKS = b"1c\r\n" + BODY + b"\r\n0\r\n\r\n"
SERVER = connection_from_url("http://127.0.0.1:1")


class Arriving:
    """A socket on which these pieces arrive; then it is closed or reset, or nothing more comes."""

    def __init__(self, pieces: Sequence[bytes], end: str) -> None:
        self._pieces = [piece for piece in pieces if piece]
        self._end = end
        self.is_shut_down = False

    def gettimeout(self) -> float:
        return 30.0

    def settimeout(self, seconds: float) -> None:
        """Time does not pass."""

    def sendall(self, data: bytes) -> None:
        """Ignore the request."""

    def recv(self, size: int) -> bytes:
        if self._pieces:
            piece = self._pieces.pop(0)
            if len(piece) > size:
                self._pieces.insert(0, piece[size:])
            return piece[:size]
        if self._end == "reset":
            raise ConnectionResetError
        if self._end == "silence":
            raise TimeoutError
        return b""

    def shutdown(self, _how: int) -> None:
        self.is_shut_down = True


def read(
    pieces: Sequence[bytes], end: str, receive: Callable[[Connection, Arriving], Received]
) -> tuple[Received | None, bool]:
    """Return the response, None for an error, and whether the connection is used again."""
    connection, arriving = Connection(SERVER, (1.0, 30.0)), Arriving(pieces, end)
    connection._socket = arriving
    try:
        received = receive(connection, arriving)
    except (HTTPError, HTTPException, OSError, ValueError):
        return None, False
    return received, connection.is_open and not arriving.is_shut_down


def check(pieces: Sequence[bytes], end: str) -> None:
    usual = read(pieces, end, lambda connection, _arriving: connection.exchange("POST", b"", b""))
    any_form = read(
        pieces,
        end,
        lambda connection, arriving: connection._receive_any(_Incoming(arriving), "POST"),
    )
    assert usual == any_form


def response(head: bytes, start: bytes = OK, body: bytes = BODY) -> bytes:
    return start + head + b"\r\n" + body


HEADS = {
    "usual": LENGTH,
    "the headers that are used": b"Retry-After: 3\r\nIterable-Request-Id: 9\r\n" + LENGTH,
    "each of them twice": b"Retry-After: 3\r\nRetry-After: 4\r\n" + LENGTH,
    "two cookies": b"Set-Cookie: a\r\nSet-Cookie: b\r\n" + LENGTH,
    "close, then keep-alive": b"Connection: close\r\nConnection: keep-alive\r\n" + LENGTH,
    "keep-alive, then close": b"Connection: keep-alive\r\nConnection: close\r\n" + LENGTH,
    "a list of connection options": b"Connection: keep-alive, close\r\n" + LENGTH,
    "an empty connection header": b"Connection:\r\n" + LENGTH,
    "two lengths": LENGTH + b"Content-Length: 5\r\n",
    "the same length twice": LENGTH + LENGTH,
    "a length in another header's line": b"X: a\nContent-Length: 5\n" + LENGTH,
    "a length behind a lone return": b"X: a\rContent-Length: 5\r\n" + LENGTH,
    "a length behind a vertical tab": b"X: a\x0bContent-Length: 5\r\n" + LENGTH,
    "a length with a sign": b"Content-Length: +28\r\n",
    "a negative length": b"Content-Length: -1\r\n",
    "a list of lengths": b"Content-Length: 28, 28\r\n",
    "a length with an underscore": b"Content-Length: 2_8\r\n",
    "a length with zeros": b"Content-Length: 00028\r\n",
    "a length with blanks": b"Content-Length: \t28 \t\r\n",
    "a length with a blank before the colon": b"Content-Length : 28\r\n",
    "no length": b"X: y\r\n",
    "an empty length": b"Content-Length:\r\n",
    "too short a length": b"Content-Length: 27\r\n",
    "too great a length": b"Content-Length: 29\r\n",
    "length 0": b"Content-Length: 0\r\n",
    "a length and chunks": LENGTH + b"Transfer-Encoding: chunked\r\n",
    "chunks with a blank before the colon": LENGTH + b"Transfer-Encoding : chunked\r\n",
    "an unknown encoding of the transfer": LENGTH + b"Transfer-Encoding: identity\r\n",
    "gzip that is none": LENGTH + b"Content-Encoding: gzip\r\n",
    "a folded header": b"X: a\r\n b\r\n" + LENGTH,
    "a folded first header": b" X: a\r\n" + LENGTH,
    "NUL bytes": b"X: a\0b\r\n" + LENGTH,
    "NUL bytes in a name": b"X\0: a\r\n" + LENGTH,
    "a line that is no header": b"nonsense\r\n" + LENGTH,
    "letters that are not ASCII": b"X: \xe9\x85\r\n" + LENGTH,
    "headers that end too early": b"\r\n" + LENGTH,
    "no header": b"",
}
RESPONSES = {
    **{name: response(head) for name, head in HEADS.items()},
    "no reason": response(LENGTH, b"HTTP/1.1 200 \r\n"),
    "no reason and no blank": response(LENGTH, b"HTTP/1.1 200\r\n"),
    "bare line feeds": response(LENGTH).replace(b"\r\n", b"\n"),
    "two blanks before the status": response(LENGTH, b"HTTP/1.1  200 OK\r\n"),
    "a status of four digits": response(LENGTH, b"HTTP/1.1 2000 OK\r\n"),
    "a status that does not exist": response(LENGTH, b"HTTP/1.1 099 OK\r\n"),
    "a status above 599": response(LENGTH, b"HTTP/1.1 999 OK\r\n"),
    "204": response(LENGTH, b"HTTP/1.1 204 No Content\r\n"),
    "304": response(LENGTH, b"HTTP/1.1 304 Not Modified\r\n"),
    "NUL bytes in the reason": response(LENGTH, b"HTTP/1.1 200 O\0K\r\n"),
    "HTTP/1.0": response(LENGTH, b"HTTP/1.0 200 OK\r\n"),
    "HTTP/1.10": response(LENGTH, b"HTTP/1.10 200 OK\r\n"),
    "HTTP/0.9": BODY,
    "an empty line first": b"\r\n" + response(LENGTH),
    "an interim response first": b"HTTP/1.1 103 Early Hints\r\n\r\n" + response(LENGTH),
    "another protocol first": b"HTTP/1.1 101 Switching\r\n\r\n" + response(LENGTH),
    "chunks": response(b"Transfer-Encoding: chunked\r\n", body=CHUNKS),
    "chunks and a wrong length": response(b"Transfer-Encoding: chunked\r\n" + LENGTH, body=CHUNKS),
    "a second response": 2 * response(LENGTH),
    "a byte too many": response(LENGTH) + b" ",
    "a line end too many": response(LENGTH) + b"\r\n",
    "a long header": response(b"X: " + b"x" * 5_000 + b"\r\n" + LENGTH),
    "nothing": b"",
}


@pytest.mark.parametrize("end", ["close", "reset", "silence"])
@pytest.mark.parametrize("name", RESPONSES)
def test_both_ways_of_reading_find_the_same_response(name: str, end: str) -> None:
    sent = RESPONSES[name]
    step = max(1, len(sent) // 20)
    for place in range(0, len(sent) + 1, step):
        check([sent[:place], sent[place:]], end)
        check([sent[:place]], end)
    check([bytes([byte]) for byte in sent], end)


LINES = [*(head for head in HEADS.values() if head), LENGTH, LENGTH, b"\r\n", b"\n", b"\t\r\n"]
STARTS = [OK, OK, OK, b"HTTP/1.1 429 Slow\r\n", b"HTTP/1.1 204\r\n", b"HTTP/1.0 200 OK\r\n"]
BODIES = [BODY, BODY, BODY[:9], BODY + BODY, CHUNKS, b"", BODY + OK]


@st.composite
def arrivals(draw: st.DrawFn) -> list[bytes]:
    """Pieces of a response whose parts do not fit together, perhaps with a wrong byte."""
    lines = b"".join(draw(st.lists(st.sampled_from(LINES), max_size=3)))
    sent = response(lines, draw(st.sampled_from(STARTS)), draw(st.sampled_from(BODIES)))
    if draw(st.booleans()):
        place = draw(st.integers(0, len(sent) - 1))
        sent = sent[:place] + draw(st.sampled_from(RESPONSE_BYTES)) + sent[place + 1 :]
    return list(_split(sent, sorted(draw(st.lists(st.integers(0, len(sent)), max_size=4)))))


RESPONSE_BYTES = [b"", b"\r", b"\n", b" ", b":", b"\0", b"\xe9", b"5"]


def _split(sent: bytes, places: Sequence[int]) -> Iterator[bytes]:
    begin = 0
    for place in [*places, len(sent)]:
        yield sent[begin:place]
        begin = place


@settings(deadline=None, max_examples=300)
@given(pieces=arrivals(), end=st.sampled_from(["close", "reset", "silence"]))
def test_both_ways_of_reading_agree_on_parts_that_do_not_fit(pieces: list[bytes], end: str) -> None:
    check(pieces, end)
