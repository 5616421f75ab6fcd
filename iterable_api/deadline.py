"""HTTP connections on which an answer has a deadline, and a length, as a whole.

urllib3's read time-out is between two bytes: an answer that trickles, headers that never end or
`100 Continue` again and again would hold a call for ever. `http.client` takes a chunk of -1 bytes
for all that comes, however much it was to read. Owns the reading of the socket, and its
end; knows not what is read.
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

# A whole answer may take this many times the read time-out: 60 s of 30 s.
WHOLE_RESPONSE_TIMEOUTS = 2
MAX_RESPONSE_BYTES = 16_000_000  # what `iterable_http` reads of a body, and headers to spare


class DeadlineAdapter(HTTPAdapter):
    """As `HTTPAdapter`; an answer that is not whole in time is a `ReadTimeout`."""

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: Any, **options: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **options)
        manager.pool_classes_by_scheme = _POOLS
        return manager

    def close(self) -> None:
        """Close the connections now; urllib3 leaves it to the garbage collector."""
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            for key in manager.pools.keys():  # noqa: SIM118 - it is no dict
                manager.pools[key].close()
        super().close()


class _Reader(io.RawIOBase):
    """The socket's bytes, until the deadline."""

    def __init__(self, connected: socket.socket) -> None:
        super().__init__()
        self._socket = connected
        self._bytes = connected.makefile("rb", buffering=0)
        self._silence_seconds = connected.gettimeout()
        self._bytes_left = MAX_RESPONSE_BYTES
        self._deadline = time.monotonic() + WHOLE_RESPONSE_TIMEOUTS * (self._silence_seconds or 0.0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._silence_seconds is not None:
            left_seconds = self._deadline - time.monotonic()
            if left_seconds <= 0:
                raise TimeoutError("the answer is not whole in time")
            if left_seconds < self._silence_seconds:
                self._socket.settimeout(left_seconds)
        received: int | None = self._bytes.readinto(buffer)
        self._bytes_left -= received or 0
        if self._bytes_left < 0:
            raise OSError("the answer is longer than any of the API's")
        return received

    def close(self) -> None:
        self._bytes.close()
        super().close()


class _Response(HTTPResponse):
    def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
        super().__init__(_Readable(sock), *arguments, **options)  # type: ignore[arg-type]


class _Readable:
    """What `http.client` asks of a socket."""

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
