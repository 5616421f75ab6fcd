"""The login: a password goes to no server as it is, unless TLS or the machine itself hides it.

The server here asks for it as MySQL does for an account with `caching_sha2_password` that it has
not seen lately, and offers no TLS; whoever poses as the database could do the same.
"""

from __future__ import annotations

import os
import socket
import struct
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from db_connection import DatabaseConnection, SourceError

PASSWORD = "not-for-everybody"

_PLUGIN = b"caching_sha2_password\0"
_CAPABILITIES = 0x00_88_A2_08  # 4.1, CONNECT_WITH_DB, secure connection, plugin auth; no TLS
_GREETING = (
    b"\x0a8.4.0\0"
    + struct.pack("<I", 1)
    + b"saltsalt\0"
    + struct.pack("<HBHH", _CAPABILITIES & 0xFFFF, 45, 2, _CAPABILITIES >> 16)
    + bytes([21])
    + bytes(10)
    + b"saltsaltsalt\0"
    + _PLUGIN
)
_SEND_THE_PASSWORD = b"\x01\x04"


def _receive(connected: socket.socket) -> bytes:
    return connected.recv(65_536)


@contextmanager
def curious_server(listening: socket.socket) -> Iterator[list[bytes]]:
    """Greet one client and ask for its password; give what it sends."""
    heard: list[bytes] = []

    def serve() -> None:
        connected, _ = listening.accept()
        with connected:
            connected.settimeout(5)
            for number, packet in ((0, _GREETING), (2, _SEND_THE_PASSWORD)):
                connected.sendall(struct.pack("<I", len(packet))[:3] + bytes([number]) + packet)
                heard.append(_receive(connected))

    with listening:
        listening.listen(1)
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield heard
        thread.join(10)


def test_a_server_without_tls_that_asks_for_the_password_does_not_get_it(use_pure: bool) -> None:
    """The pure Python driver sent it."""
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    with curious_server(listening) as heard:
        connection = DatabaseConnection(
            "127.0.0.1", "sync", PASSWORD, "shop", port=port, use_pure=use_pure
        )
        with pytest.raises(SourceError, match="needs TLS on the server, or DB_UNIX_SOCKET") as said:
            connection.open()
    assert not said.value.transient
    assert len(heard) == 2
    assert b"sync\0" in heard[0]
    assert PASSWORD.encode() not in b"".join(heard)


def test_a_server_on_this_machine_gets_it_through_its_socket() -> None:
    """What never leaves the machine needs no TLS; the C extension does the same."""
    with tempfile.TemporaryDirectory(prefix="s-", dir="/tmp") as folder:
        path = Path(folder) / "s"
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(os.fspath(path))
        with curious_server(listening) as heard:
            connection = DatabaseConnection(
                "", "sync", PASSWORD, "shop", unix_socket=str(path), use_pure=True
            )
            with pytest.raises(SourceError):  # our server ends the talk there
                connection.open()
    assert PASSWORD.encode() + b"\0" in heard[1]
