"""Limits of an HTTP exchange that urllib3 does not have.

- A deadline and a size limit for a whole response, which begin when the request is sent. urllib3's
  read time-out limits only the time between two bytes: a response that arrives byte by byte,
  headers that never end, or repeated `100 Continue` responses would block a call forever. And
  `http.client` reads a chunk of length -1 without any limit.
- A time-out for sending: urllib3 lets a whole request body take no longer than connecting may.
- Interim responses (1xx) are skipped; `http.client` skips only `100 Continue`.
- A connection on which more than the response arrived is not used again: the rest would be taken
  for the response to the next request.
"""

from __future__ import annotations

import io
import socket
import ssl
import time
from contextlib import suppress
from http.client import BadStatusLine, HTTPResponse, parse_headers
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError
from urllib3.util.ssltransport import SSLTransport

# A whole response may take this many read time-outs: with 30 s each, 60 s.
WHOLE_RESPONSE_TIMEOUTS = 2
MAX_RESPONSE_BYTES = 16_000_000  # twice `http.MAX_BODY_BYTES`: room for headers


class DeadlineAdapter(HTTPAdapter):
    """An `HTTPAdapter` with the limits of this module.

    Raises `ReadTimeout` for a response that is not complete in time, `SendTimeout` for a request.
    """

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: Any, **options: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **options)
        manager.pool_classes_by_scheme = _POOLS
        return manager

    def close(self) -> None:
        """Close the connections now; urllib3 would wait for the garbage collector."""
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            for key in manager.pools.keys():  # noqa: SIM118 - not a dict
                manager.pools[key].close()
        super().close()


class SendTimeout(HTTPError):
    """The server accepted no more of the request within the time-out between two bytes."""


class _Reader(io.RawIOBase):
    """The bytes of a socket, up to the deadline and the size limit."""

    def __init__(self, connected: socket.socket) -> None:
        super().__init__()
        self._socket = connected
        self._bytes = connected.makefile("rb", buffering=0)
        self._read_timeout_seconds = connected.gettimeout()
        self._bytes_left = MAX_RESPONSE_BYTES
        self._deadline = time.monotonic() + WHOLE_RESPONSE_TIMEOUTS * (
            self._read_timeout_seconds or 0.0
        )
        self.is_response_complete = False  # then nothing more is read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self.is_response_complete:
            return 0
        if self._read_timeout_seconds is not None:
            left_seconds = self._deadline - time.monotonic()
            if left_seconds <= 0:
                raise TimeoutError("the response is not complete in time")
            if left_seconds < self._read_timeout_seconds:
                self._socket.settimeout(left_seconds)
        received: int | None = self._bytes.readinto(buffer)
        self._bytes_left -= received or 0
        if self._bytes_left < 0:
            raise OSError("the response is too large")
        return received

    def has_decrypted(self) -> bool:
        """Return whether TLS holds bytes that were not read; urllib3 asks only the socket."""
        if isinstance(self._socket, SSLTransport):  # TLS inside the TLS of a proxy
            return bool(self._socket.incoming.pending or self._socket.sslobj.pending())
        return isinstance(self._socket, ssl.SSLSocket) and self._socket.pending() > 0

    def end_connection(self) -> None:
        """Shut the socket down: urllib3 then replaces the connection before the next request."""
        with suppress(OSError):
            getattr(self._socket, "socket", self._socket).shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._bytes.close()
        super().close()


class _Buffer(io.BufferedReader):
    """A buffer that `http.client` closes after the last byte of the response."""

    def __init__(self, reader: _Reader) -> None:
        super().__init__(reader)
        self._reader = reader

    def close(self) -> None:
        if not self.closed:
            self._reader.is_response_complete = True
            if self.peek(1) or self._reader.has_decrypted():
                self._reader.end_connection()
        super().close()


class _Readable:
    """The part of a socket that `http.client` uses."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected

    def makefile(self, _mode: str) -> io.BufferedReader:
        return _Buffer(_Reader(self._socket))


class _Response(HTTPResponse):
    def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
        super().__init__(_Readable(sock), *arguments, **options)  # type: ignore[arg-type]

    def _read_status(self) -> tuple[str, int, str]:
        """Return the first status line that is not of an interim response."""
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if status == 101:  # another protocol follows, which was not asked for
                raise BadStatusLine("101 Switching Protocols")
            if status >= 200:
                return version, status, reason
            parse_headers(self.fp)


class _Connection(HTTPConnection):
    """Gives sending the time-out between two bytes instead of the one for connecting."""

    response_class = _Response
    send_timeout_seconds: float | None = None

    def request(self, *arguments: Any, **options: Any) -> None:
        if self.sock is None:
            self.connect()
        self.timeout = self.send_timeout_seconds  # urllib3 applies it to the socket
        try:
            super().request(*arguments, **options)
        except TimeoutError as error:
            raise SendTimeout from error


class _SecureConnection(_Connection, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection

    def _make_request(self, conn: Any, *arguments: Any, **options: Any) -> Any:
        conn.send_timeout_seconds = options["timeout"].read_timeout
        return super()._make_request(conn, *arguments, **options)


class _SecurePool(_Pool, HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


_POOLS = {"http": _Pool, "https": _SecurePool}
