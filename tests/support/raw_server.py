"""A server on loopback that sends the bytes of a test to every request, then closes the connection.

One thread; of HTTP it reads only where a request ends.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
from functools import cache


class RawServer:
    """`response` and `resets` may be changed between requests."""

    def __init__(self) -> None:
        self.response = b""
        self.resets = False  # end the connection with a reset
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _address = self._listening.accept()
            with contextlib.suppress(OSError), connection:
                connection.settimeout(10)
                self._read_request(connection)
                connection.sendall(self.response)
                if self.resets:
                    at_once = struct.pack("ii", 1, 0)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)

    @staticmethod
    def _read_request(connection: socket.socket) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            received = connection.recv(65_536)
            if not received:
                return
            request += received
        head, _, body = request.partition(b"\r\n\r\n")
        found = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
        left = int(found[1]) - len(body) if found else 0
        while left > 0 and (received := connection.recv(left)):
            left -= len(received)


@cache
def raw_server() -> RawServer:
    """Return the server of this process, which runs until the process ends."""
    return RawServer()
