"""Deadline and size limit for a whole HTTP response.

urllib3's read time-out limits only the time between two bytes. A response that arrives byte by
byte, headers that never end, or repeated `100 Continue` responses would block a call forever. And
`http.client` reads a chunk of length -1 without any limit.
"""

from __future__ import annotations

import io
import socket
import time
from http.client import HTTPResponse
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

# A whole response may take this many read time-outs: with 30 s each, 60 s.
WHOLE_RESPONSE_TIMEOUTS = 2
MAX_RESPONSE_BYTES = 16_000_000  # twice `http.MAX_BODY_BYTES`: room for headers


class DeadlineAdapter(HTTPAdapter):
    """An `HTTPAdapter` that raises `ReadTimeout` for a response that is not complete in time."""

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

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
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

    def close(self) -> None:
        self._bytes.close()
        super().close()


class _Response(HTTPResponse):
    def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
        super().__init__(_Readable(sock), *arguments, **options)  # type: ignore[arg-type]


class _Readable:
    """The part of a socket that `http.client` uses."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._socket))


class _Connection(HTTPConnection):
    response_class = _Response


class _SecureConnection(HTTPSConnection):
    response_class = _Response


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


_POOLS = {"http": _Pool, "https": _SecurePool}
