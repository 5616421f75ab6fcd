"""Connections to Iterable, with limits that urllib3 does not have.

`requests` and urllib3 open them: proxies, TLS and the trusted CAs are theirs.

- A deadline and a size limit for a whole response, which begin when the request is sent. urllib3's
  read time-out limits only the time between two bytes: a response that arrives byte by byte,
  headers that never end, or repeated `100 Continue` responses would block a call forever. And
  `http.client` reads a chunk of length -1 without any limit.
- A time-out for sending: urllib3 lets a whole request body take no longer than connecting may.
- Interim responses (1xx) are skipped; `http.client` skips only `100 Continue`.
- A connection on which more than the response arrived is not used again: the rest would be taken
  for the response to the next request.

Nearly every response is a status line, headers, and as many bytes as `Content-Length` says. It is
read here, in a fraction of the time that `http.client` and urllib3 take. Those two read any other
response (chunked, compressed, interim, cut off, malformed), from its first byte.
"""

from __future__ import annotations

import io
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from http.client import BadStatusLine, HTTPConnection, HTTPException, HTTPResponse, parse_headers
from types import SimpleNamespace
from typing import Any, NamedTuple

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3 import HTTPHeaderDict
from urllib3.exceptions import DecodeError, HTTPError, ProxyError
from urllib3.util.ssltransport import SSLTransport
from urllib3.util.wait import wait_for_read

from iterable_api.tls import SharedContext

# A whole response may take this many read time-outs: with 30 s each, 60 s.
WHOLE_RESPONSE_TIMEOUTS = 2
MAX_BODY_BYTES = 8_000_000  # twice Iterable's limit for a request; API responses are smaller
MAX_RESPONSE_BYTES = 2 * MAX_BODY_BYTES  # room for headers, and for a compressed body
_RECEIVE_BYTES = 4_096  # each waiting thread holds a buffer of this size; responses are smaller
_CHECK_AFTER_SECONDS = 0.001  # a call may wait for its permit after it has taken a connection
# So many calls connect at a time; others wait for a connection that becomes free, for as long as
# connecting may take. If the server or this machine were slower at handshakes than the pace of new
# calls, every call would open another connection, up to the largest number in flight.
MAX_OPENING = 50
# And no more than would open so many connections a second if each took as long as the fastest one.
# A nearby server and this machine would be busy with handshakes alone, and requests would be late.
_OPENING_RPS = 400
MIN_OPENING = 8
_OPENING_THREADS = 32  # open connections ahead; with a round trip of 100 ms, 100 a second

_PROTOCOL = b"HTTP/1.1 "
_HEAD_END = re.compile(rb"\n\r?\n")
_PLAIN_HEAD = re.compile(rb"HTTP/1\.1 ([2-5]\d\d) [^\r\n]*\r\n((?:[\w-]+:[^\r\n]*\r\n)+)\r\n")
_HEADERS = re.compile(rb"([\w-]+):[ \t]*([^\r\n]*?)[ \t]*\r\n")
_NOT_PLAIN_HEADERS = frozenset((b"transfer-encoding", b"content-encoding"))


class SendTimeout(HTTPError):
    """The server accepted no more of the request within the time-out between two bytes."""


class Received(NamedTuple):
    """A response. `content` is decoded, up to `MAX_BODY_BYTES`; empty if it cannot be decoded."""

    status: int
    retry_after: str | None
    request_id: str | None
    content: bytes


class Adapter(HTTPAdapter):
    """Makes pools whose connections share one TLS context; use it for nothing else."""

    _tls: SharedContext | None = None

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: Any, cert: Any = None
    ) -> Any:
        """Put a context in the place of the CA bundle, which each connection would load."""
        host, _tls = super().build_connection_pool_key_attributes(request, verify, cert)
        if host["scheme"] != "https":
            return host, {}
        self._tls = _to_context(self, verify)
        return host, {"ssl_context": self._tls}

    def proxy_manager_for(self, proxy: Any, **options: Any) -> Any:
        if proxy.lower().startswith("https:"):
            options["proxy_ssl_context"] = self._tls
        return super().proxy_manager_for(proxy, **options)


def _to_context(adapter: Any, verify: bool | str) -> SharedContext:
    trusted = SimpleNamespace(ca_certs=None, ca_cert_dir=None)
    adapter.cert_verify(trusted, "https:", verify, None)  # raises OSError if it does not exist
    return SharedContext(trusted.ca_certs, trusted.ca_cert_dir)


class Pool:
    """Connections to one server. Thread-safe.

    `size` is the number kept open; more may be in use. `timeout_seconds` are those to connect, and
    between two bytes of a request or response.
    """

    def __init__(self, factory: Any, size: int, timeout_seconds: tuple[float, float]) -> None:
        self._factory = factory
        self._size = size
        self._timeout_seconds = timeout_seconds
        self._idle: list[Connection] = []  # `append` and `pop` are atomic
        self._is_closed = False
        self._changed = threading.Condition()
        self._max_opening = MAX_OPENING
        self._fastest_seconds = timeout_seconds[0]
        self._opening_count = self._waiting_count = 0  # calls that connect, and that wait in `take`

    def close(self) -> None:
        """Close the connections; those in use when they are given back."""
        self._is_closed = True
        while (connection := self._pop()) is not None:
            connection.close()

    def take(self) -> Connection:
        """Return an open connection, or one that has to be opened."""
        give_up_at = time.monotonic() + self._timeout_seconds[0]
        while True:
            while (connection := self._pop()) is not None:
                if connection.is_usable():
                    return connection
                connection.close()
            with self._changed:
                left_seconds = give_up_at - time.monotonic()
                if self._opening_count < self._max_opening or left_seconds <= 0 or self._is_closed:
                    self._opening_count += 1
                    break
                self._waiting_count += 1
                if not self._idle:
                    self._changed.wait(left_seconds)
                self._waiting_count -= 1
        connection = Connection(self._factory, self._timeout_seconds)
        connection.is_opening = True
        return connection

    def end_opening(self, connection: Connection) -> None:
        """Let another call connect; the connection of this one is open, or could not be opened."""
        if connection.is_opening:
            connection.is_opening = False
            with self._changed:
                self._opening_count -= 1
                if connection.is_open:
                    self._note_speed(connection)
                self._changed.notify()

    def _note_speed(self, connection: Connection) -> None:
        self._fastest_seconds = min(self._fastest_seconds, connection.opening_seconds)
        at_this_speed = round(self._fastest_seconds * _OPENING_RPS)
        self._max_opening = max(MIN_OPENING, min(at_this_speed, MAX_OPENING))

    def give_back(self, connection: Connection) -> None:
        """Keep a connection for the next request, if it is open."""
        self.end_opening(connection)
        if connection.is_open and len(self._idle) < self._size:
            self._idle.append(connection)
            if self._waiting_count:
                with self._changed:
                    self._changed.notify()
            if self._is_closed:
                self.close()
        else:
            connection.close()

    def open_ahead(self, count: int) -> None:
        """Open connections in the background until `count` are idle; errors are ignored."""
        missing_count = min(count, self._size) - len(self._idle)
        numbers = iter(range(missing_count))
        for _ in range(min(missing_count, _OPENING_THREADS)):
            threading.Thread(
                target=self._open_each, args=(numbers,), name="opening", daemon=True
            ).start()

    def _open_each(self, numbers: Iterator[int]) -> None:
        for _ in numbers:
            connection = Connection(self._factory, self._timeout_seconds)
            try:
                if not self._is_closed:
                    connection.open()
                    self._note_speed(connection)
            except (HTTPError, HTTPException, OSError):
                return  # a later call meets it, too
            self.give_back(connection)

    def request_head(self, method: str, path: str, headers: dict[str, str]) -> bytes:
        """Return a request line and headers, without the blank line at the end."""
        writer = _HeadWriter(self._factory.host, self._factory.port)
        if self._factory.scheme == "https":
            writer.default_port = 443
        writer.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers.items():
            writer.putheader(name, value)
        writer.endheaders()
        return writer.head.removesuffix(b"\r\n")

    def _pop(self) -> Connection | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None


class _HeadWriter(HTTPConnection):
    head = b""

    def send(self, data: Any) -> None:
        self.head = data


class Connection:
    """A connection for one request at a time."""

    def __init__(self, factory: Any, timeout_seconds: tuple[float, float]) -> None:
        self._factory = factory
        self._connect_seconds, self._read_seconds = timeout_seconds
        self._connection: Any = factory._new_conn()
        self._connection.response_class = _Response  # of a proxy
        self._socket: Any = None
        self._checked_at = 0.0
        self.is_opening = False  # counted by the pool
        self.opening_seconds = 0.0

    @property
    def is_open(self) -> bool:
        return self._socket is not None

    def is_usable(self) -> bool:
        """Return whether the server has neither closed the connection nor sent anything."""
        self._checked_at = time.monotonic()
        if not wait_for_read(self._socket, timeout=0.0):
            return True
        if not isinstance(self._socket, (ssl.SSLSocket, SSLTransport)):
            return False
        # After a handshake, servers with TLS 1.3 send session tickets.
        self._socket.settimeout(0.0)
        try:
            self._socket.recv(1)
        except ssl.SSLWantReadError:
            return True
        except OSError:
            return False
        finally:
            self._socket.settimeout(self._read_seconds)
        return False

    def open_if_closed(self) -> None:
        """Do what `open` does unless the connection is usable."""
        if self.is_open and time.monotonic() - self._checked_at > _CHECK_AFTER_SECONDS:
            if self.is_usable():
                return
            self.close()
        if not self.is_open:
            self.open()

    def open(self) -> None:
        """Connect: TCP, the proxy's tunnel, TLS. Raises `ProxyError` if a proxy is to blame."""
        connection = self._connection
        connection.timeout = self._connect_seconds
        proxy = self._factory.proxy
        began_at = time.monotonic()
        try:
            if proxy is None:
                connection.connect()
            else:
                self._factory._prepare_proxy(connection)
            connection.sock.settimeout(self._read_seconds)
        except BaseException as error:
            failed_at_proxy = proxy is not None and not connection.has_connected_to_proxy
            connection.close()
            if failed_at_proxy and isinstance(error, (HTTPError, HTTPException, OSError)):
                raise ProxyError(str(error), error) from error
            raise
        self._socket = connection.sock
        self._checked_at = time.monotonic()
        self.opening_seconds = self._checked_at - began_at

    def close(self) -> None:
        self._socket = None
        self._connection.close()

    def exchange(self, method: str, head: bytes, body: bytes | Iterable[memoryview]) -> Received:
        """Send a request and read the response; `head` includes the blank line.

        Raises `SendTimeout`, TimeoutError for a response that is not complete in time, or another
        error of the network, of `http.client` or of urllib3; the connection is closed then.
        """
        try:
            try:
                if isinstance(body, bytes):
                    self._socket.sendall(head + body)
                else:
                    self._socket.sendall(head)
                    for piece in body:
                        self._socket.sendall(piece)
            except TimeoutError as error:
                raise SendTimeout from error
            except (BrokenPipeError, ConnectionResetError):
                pass  # the response may have arrived before
            incoming = _Incoming(self._socket)
            received = self._receive_plain(incoming) or self._receive_any(incoming, method)
            if incoming.has_changed_timeout and self._socket is not None:
                self._socket.settimeout(self._read_seconds)
            return received
        except BaseException:
            self.close()
            raise

    def _receive_plain(self, incoming: _Incoming) -> Received | None:
        """Return a response of the usual form; None for any other."""
        start = incoming.receive()
        while _PROTOCOL.startswith(start[: len(_PROTOCOL)]) and not _HEAD_END.search(start):
            more = incoming.receive()
            if not more or len(start) > _RECEIVE_BYTES:
                return None
            start += more
        found = _PLAIN_HEAD.match(start)
        if found is None or found[1] in (b"204", b"304"):
            return None
        fields = [
            (name.lower(), value)
            for name, value in _HEADERS.findall(found[2])
            if name.lower() != b"set-cookie"
        ]
        headers = dict(fields)
        length = headers.get(b"content-length", b"")
        if (
            not (length.isdigit() and int(length) < MAX_BODY_BYTES)
            or len(headers) < len(fields)
            or headers.get(b"connection", b"keep-alive").lower() != b"keep-alive"
            or not _NOT_PLAIN_HEADERS.isdisjoint(headers)
        ):
            return None
        end = found.end() + int(length)
        while incoming.received_bytes < end:
            if not incoming.receive():
                return None
        if incoming.received_bytes > end or _has_decrypted(self._socket):
            self.close()
        return Received(
            int(found[1]),
            _to_text(headers.get(b"retry-after")),
            _to_text(headers.get(b"iterable-request-id")),
            incoming.take_all()[found.end() : end],
        )

    def _receive_any(self, incoming: _Incoming, method: str) -> Received:
        """Return a response of any form, read by `http.client` and urllib3."""
        raw = _Response(incoming, method=method)
        raw.begin()
        response = urllib3.HTTPResponse(
            raw,
            HTTPHeaderDict(raw.headers.items()),
            raw.status,
            preload_content=False,
            original_response=raw,
            request_method=method,
        )
        headers = response.headers
        try:
            content = response.read(MAX_BODY_BYTES, decode_content="Content-Encoding" in headers)
        except DecodeError:
            content = b""
        if raw.will_close or not raw.isclosed():
            self.close()
        request_id = headers.get("Iterable-Request-Id")
        return Received(raw.status, headers.get("Retry-After"), request_id, content)


def _to_text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("iso-8859-1")


def _has_decrypted(connected: Any) -> bool:
    """Return whether TLS holds bytes that were not read; `wait_for_read` asks only the socket."""
    if isinstance(connected, SSLTransport):  # TLS inside the TLS of a proxy
        return bool(connected.incoming.pending or connected.sslobj.pending())
    return isinstance(connected, ssl.SSLSocket) and connected.pending() > 0


class _Incoming:
    """The bytes of a response as they arrive, up to the deadline and the size limit."""

    def __init__(self, connected: Any) -> None:
        self.socket = connected
        self.received_bytes = 0
        self.pieces: list[bytes] = []  # that nobody has taken
        self.read_seconds: float = connected.gettimeout()
        self.has_changed_timeout = False
        self._deadline = time.monotonic() + WHOLE_RESPONSE_TIMEOUTS * self.read_seconds

    def receive(self) -> bytes:
        """Return what arrives next, and add it to `pieces`; b"" at the end of the connection."""
        if self.received_bytes:
            left_seconds = self._deadline - time.monotonic()
            if left_seconds <= 0:
                raise TimeoutError("the response is not complete in time")
            if left_seconds < self.read_seconds:
                self.has_changed_timeout = True
                self.socket.settimeout(left_seconds)
        piece: bytes = self.socket.recv(_RECEIVE_BYTES)
        self.received_bytes += len(piece)
        if self.received_bytes > MAX_RESPONSE_BYTES:
            raise OSError("the response is too large")
        self.pieces.append(piece)
        return piece

    def take_all(self) -> bytes:
        """Return all bytes in `pieces`."""
        return self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces)

    def end_connection(self) -> None:
        """Shut the socket down, so that it is not used again."""
        with suppress(OSError):
            getattr(self.socket, "socket", self.socket).shutdown(socket.SHUT_RDWR)


class _Reader(io.RawIOBase):
    """Incoming bytes as a file."""

    def __init__(self, incoming: _Incoming) -> None:
        super().__init__()
        self.incoming = incoming
        self.is_response_complete = False  # then nothing more is read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        pieces = self.incoming.pieces
        if not pieces:
            if self.is_response_complete:
                return 0
            self.incoming.receive()
        piece = pieces.pop(0)
        size = min(len(piece), len(buffer))
        buffer[:size] = piece[:size]
        if size < len(piece):
            pieces.insert(0, piece[size:])
        return size


class _Buffer(io.BufferedReader):
    """A buffer that `http.client` closes after the last byte of the response."""

    def __init__(self, reader: _Reader) -> None:
        super().__init__(reader)
        self._reader = reader

    def close(self) -> None:
        if not self.closed:
            self._reader.is_response_complete = True
            if self.peek(1) or _has_decrypted(self._reader.incoming.socket):
                self._reader.incoming.end_connection()
        super().close()


class _Response(HTTPResponse):
    """A response of the server or, while a tunnel is set up, of a proxy."""

    def __init__(self, source: Any, *arguments: Any, **options: Any) -> None:
        self._incoming = source if isinstance(source, _Incoming) else _Incoming(source)
        super().__init__(self, *arguments, **options)  # type: ignore[arg-type] # see `makefile`

    def makefile(self, _mode: str) -> io.BufferedReader:
        """Play the one part of a socket that `http.client` uses."""
        return _Buffer(_Reader(self._incoming))

    def _read_status(self) -> tuple[str, int, str]:
        """Return the first status line that is not of an interim response."""
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if status == 101:  # another protocol follows, which was not asked for
                raise BadStatusLine("101 Switching Protocols")
            if status >= 200:
                return version, status, reason
            parse_headers(self.fp)
