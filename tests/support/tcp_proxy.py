"""TCP proxy on loopback that cuts, corrupts, slows down or stalls what a server sends.

It works for any protocol.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any

_LINGER_ZERO = struct.pack("ii", 1, 0)  # closing then sends RST
_PIECE_BYTES = 65_536


class Proxy:
    """Passes connections on to a port of 127.0.0.1; a context manager.

    Only the first `cut_at` bytes that the server sends on a connection are passed on (None: all).
    Then the connection is closed, with a reset if `resets`, or left open and silent if `stalls`.
    This applies to the first `cut_connections` connections (None: all). At most `piece_bytes` are
    passed on at a time; the byte at `garble_at` becomes 0x80. Changes apply to new connections.
    It listens on `listens_on`, or on a free port.
    """

    host = "127.0.0.1"

    def __init__(self, port: int, listens_on: int = 0) -> None:
        self._server_port = port
        self.cut_at: int | None = None
        self.cut_connections: int | None = None
        self.piece_bytes = _PIECE_BYTES
        self.garble_at: int | None = None
        self.resets = False
        self.stalls = False
        self.connection_count = 0
        self.passed_bytes = 0  # from the server, on the last connection
        self._closed = threading.Event()
        self._listener = socket.create_server((self.host, listens_on))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Proxy:
        self._accepting.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closed.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join()
        for each in self._open:
            _end(each)

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection((self.host, self._server_port))
            except OSError:
                client.close()
                continue
            self.connection_count += 1
            self.passed_bytes = 0
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open.append(each)
            is_cut = self.cut_connections is None or self.connection_count <= self.cut_connections
            left = self.cut_at if is_cut else None
            self._start(self._pass_on, client, server)
            self._start(self._pass_back, server, client, left)

    def _start(self, work: Callable[..., None], *arguments: Any) -> None:
        threading.Thread(target=work, args=arguments, daemon=True).start()

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while content := client.recv(_PIECE_BYTES):
                server.sendall(content)
            server.shutdown(socket.SHUT_RDWR)

    def _pass_back(self, server: socket.socket, client: socket.socket, left: int | None) -> None:
        with suppress(OSError):
            while left is None or left > 0:
                most = self.piece_bytes if left is None else min(left, self.piece_bytes)
                content = server.recv(most)
                if not content:
                    break
                sent = self._garbled(content)
                self.passed_bytes += len(
                    content
                )  # before sending: the client may read it as soon as it has them
                client.sendall(sent)
                left = None if left is None else left - len(content)
            if left == 0 and self.stalls:
                self._closed.wait()
            if left == 0 and self.resets:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
        _end(server)
        _end(client)

    def _garbled(self, content: bytes) -> bytes:
        at = -1 if self.garble_at is None else self.garble_at - self.passed_bytes
        return content[:at] + b"\x80" + content[at + 1 :] if 0 <= at < len(content) else content


def _end(connected: socket.socket) -> None:
    """Close a socket that another thread may be reading: closing alone would wait for that."""
    # Only one direction: shutting down both would send FIN before the reset.
    with suppress(OSError):
        connected.shutdown(socket.SHUT_RD)
    connected.close()
