"""The login: no password is sent as plain text over TCP without TLS.

The server of these tests offers no TLS and asks for the password, as MySQL does for an account
with `caching_sha2_password` that is not in its cache; an attacker's server could do the same.
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
def server_that_asks_for_the_password(listening: socket.socket) -> Iterator[list[bytes]]:
    """Greet one client and ask for its password; yield the packets that it sends."""
    packets: list[bytes] = []

    def serve() -> None:
        connected, _ = listening.accept()
        with connected:
            connected.settimeout(5)
            for number, packet in ((0, _GREETING), (2, _SEND_THE_PASSWORD)):
                connected.sendall(struct.pack("<I", len(packet))[:3] + bytes([number]) + packet)
                packets.append(_receive(connected))

    with listening:
        listening.listen(1)
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield packets
        thread.join(10)


def test_the_password_is_not_sent_to_a_server_without_tls(use_pure: bool) -> None:
    """The pure Python driver sent it."""
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    with server_that_asks_for_the_password(listening) as packets:
        connection = DatabaseConnection(
            "127.0.0.1", "sync", PASSWORD, "shop", port=port, use_pure=use_pure
        )
        with pytest.raises(SourceError, match="needs TLS on the server, or") as caught:
            connection.open()
    assert not caught.value.transient
    assert len(packets) == 2
    assert b"sync\0" in packets[0]
    assert PASSWORD.encode() not in b"".join(packets)


def test_the_password_is_sent_through_a_unix_socket() -> None:
    """The data does not leave the machine. The C extension does the same."""
    with tempfile.TemporaryDirectory(prefix="s-", dir="/tmp") as folder:
        path = Path(folder) / "s"
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(os.fspath(path))
        with server_that_asks_for_the_password(listening) as packets:
            connection = DatabaseConnection(
                "", "sync", PASSWORD, "shop", unix_socket=str(path), use_pure=True
            )
            with pytest.raises(SourceError):  # the server of this test hangs up then
                connection.open()
    assert PASSWORD.encode() + b"\0" in packets[1]
