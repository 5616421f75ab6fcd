"""Connections that are cut, stall or arrive byte by byte, and ports of other kinds of servers.

The one thing that must never happen: a result that is not whole, and passes for the whole.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest

from db_connection import DatabaseConnection, SourceError
from tests.conftest import INSERT_THREE_USERS, SourceDatabase
from tests.support.tcp_proxy import Proxy

ALL_CUSTOMERS = "SELECT c.*, '2026-01-13 14:30:45' AS seen FROM customers AS c ORDER BY id"
# A prime, so that over a few rows the cuts fall into headers, lengths, values and ends of packets.
STRIDE = 7

Rows = list[tuple[Any, ...]]


@pytest.fixture
def proxy(mariadb: SourceDatabase) -> Iterator[Proxy]:
    """A proxy in front of the private MariaDB, with three customers in the tables.

    MariaDB before 11.4 uses no TLS by default, so the proxy sees the plain protocol.
    """
    mariadb.run_sql(INSERT_THREE_USERS)
    with Proxy(mariadb.port) as passing:
        yield passing


@pytest.fixture
def database(mariadb: SourceDatabase, proxy: Proxy, use_pure: bool) -> DatabaseConnection:
    """A connection through the proxy, not open yet, with each of the drivers."""
    return replace(mariadb, port=proxy.port).connection(
        use_pure=use_pure, connect_timeout_seconds=30, read_timeout_seconds=30
    )


def read_into(rows: Rows, database: DatabaseConnection) -> None:
    """Append all customers to `rows`, one at a time: after an error it has those that arrived."""
    with database:
        for chunk in database.stream(ALL_CUSTOMERS, chunk_rows=1):
            rows += chunk


def whole_result(database: DatabaseConnection, proxy: Proxy) -> tuple[Rows, int]:
    """Return all customers, and the number of bytes of the server's response."""
    all_rows: Rows = []
    with database:
        for chunk in database.stream(ALL_CUSTOMERS, chunk_rows=1):
            all_rows += chunk
        response_bytes = proxy.passed_bytes
    return all_rows, response_bytes


@pytest.mark.parametrize("resets", [False, True], ids=["closed", "reset"])
def test_a_connection_cut_at_any_byte_is_an_error_and_not_a_short_result(
    database: DatabaseConnection, proxy: Proxy, resets: bool
) -> None:
    proxy.resets = resets
    all_rows, response_bytes = whole_result(database, proxy)
    assert len(all_rows) == 3
    offsets = sorted(
        {*range(0, response_bytes, STRIDE), *range(response_bytes - 30, response_bytes)}
    )
    for proxy.cut_at in offsets:
        received: Rows = []
        with pytest.raises(SourceError) as caught:
            read_into(received, database)
        assert caught.value.transient, (proxy.cut_at, str(caught.value))
        assert "\n" not in str(caught.value)
        assert received == all_rows[: len(received)], proxy.cut_at
    # Without a cut the same check passes.
    proxy.cut_at, received = response_bytes, []
    read_into(received, database)
    assert received == all_rows


@pytest.mark.slow
def test_a_silent_connection_times_out_at_any_point_of_the_session(
    mariadb: SourceDatabase, proxy: Proxy, use_pure: bool
) -> None:
    hasty = replace(mariadb, port=proxy.port).connection(
        use_pure=use_pure, connect_timeout_seconds=1, read_timeout_seconds=1
    )
    all_rows, response_bytes = whole_result(hasty, proxy)
    proxy.stalls = True
    for proxy.cut_at in (40, response_bytes - 60):  # in the greeting, and in a row
        received: Rows = []
        with pytest.raises(SourceError) as caught:
            read_into(received, hasty)
        assert caught.value.transient, (proxy.cut_at, str(caught.value))
        assert received == all_rows[: len(received)]


def test_rows_that_arrive_byte_by_byte_are_complete(
    database: DatabaseConnection, proxy: Proxy
) -> None:
    all_rows, _response_bytes = whole_result(database, proxy)
    proxy.piece_bytes = 1
    received: Rows = []
    read_into(received, database)
    assert received == all_rows


@pytest.mark.slow
def test_a_response_that_is_not_the_mysql_protocol_is_a_source_error(
    mariadb: SourceDatabase, proxy: Proxy
) -> None:
    # The C extension's own checks are MySQL's; the pure driver raises exceptions of any type.
    hasty = replace(mariadb, port=proxy.port).connection(
        use_pure=True, connect_timeout_seconds=1, read_timeout_seconds=1
    )
    _all_rows, response_bytes = whole_result(hasty, proxy)
    described = []
    for proxy.garble_at in range(0, response_bytes, 31):
        try:
            read_into([], hasty)
        except SourceError as error:
            described.append(str(error))
    assert any("The connector cannot read the response" in line for line in described)
    assert not any("\n" in line for line in described)


# Other kinds of servers


def packet(number: int, content: bytes) -> bytes:
    """Frame a packet of MySQL's protocol."""
    return len(content).to_bytes(3, "little") + bytes([number]) + content


@contextmanager
def speaking(greeting: bytes) -> Iterator[int]:
    """Yield the port of a server that sends these bytes to each client, then reads on."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                with suppress(OSError), client:
                    client.settimeout(0.2)
                    client.sendall(greeting)
                    while client.recv(1_000):
                        pass

    serving = threading.Thread(target=serve, daemon=True)
    serving.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        serving.join()


@pytest.mark.parametrize(
    "greeting",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n400 Bad Request",
        b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n",
        b"220 mail.example.com ESMTP\r\n",
        b"\x00" * 200,
        b"\xff" * 200,
        b"\xff\xff\xff\x00abc",
        packet(0, b""),
        packet(0, b"\xff"),
        packet(0, b"\xff\x15\x04#28000Host 'x' is blocked"),
        packet(0, b"\x09" + b"3.21.0\0" + b"\0" * 20),
        packet(0, b"\x0a"),
        packet(0, b"\x0a8.0.1\0"),
        packet(0, b"\x0a\xff\xfe8.0\0" + b"\0" * 50),
        packet(0, b"\x0a8.0.1\0" + b"\0" * 50),
    ],
    ids=lambda greeting: repr(greeting[:16]),
)
def test_a_port_of_another_kind_of_server_is_reported_in_one_line(
    greeting: bytes, use_pure: bool
) -> None:
    with speaking(greeting) as port:
        database = DatabaseConnection(
            *("127.0.0.1", "ann", "pass-word", "shop"),
            port=port,
            use_pure=use_pure,
            connect_timeout_seconds=2,
            read_timeout_seconds=2,
        )
        with pytest.raises(SourceError) as caught:
            database.open()
    message = str(caught.value)
    assert message.count(f"127.0.0.1:{port}") >= 1
    assert "\n" not in message
    assert "pass-word" not in message
