"""TLS to the database: with `ssl_ca` only a server with a matching certificate is accepted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from db_connection import DatabaseConnection, SourceError
from tests.conftest import SourceDatabase
from tests.support.certificates import make_ca, make_certificate
from tests.support.private_server import PrivateServer


@dataclass(frozen=True)
class TlsServer:
    """A server whose certificate names `localhost` only, and the CA that issued it."""

    server: PrivateServer
    ca: Path

    def connection(self, host: str, ssl_ca: Path | None, use_pure: bool) -> DatabaseConnection:
        server = self.server
        return DatabaseConnection(
            host,
            server.user,
            server.password,
            "mysql",
            port=server.port,
            ssl_ca=ssl_ca,
            use_pure=use_pure,
        )


@pytest.fixture(scope="module")
def tls_server(
    real_server: PrivateServer,  # it skips or fails if there is no server
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[TlsServer]:
    folder = tmp_path_factory.mktemp("tls")
    ca = make_ca(folder / "right")
    certificate, key = make_certificate(ca, "DNS:localhost")
    options = [f"--ssl-cert={certificate}", f"--ssl-key={key}"]
    with type(real_server)(folder, options) as server:
        assert server.port != real_server.port
        yield TlsServer(server, ca)


def cipher_of(database: DatabaseConnection) -> str:
    (row,) = database.execute_query("SHOW STATUS LIKE 'Ssl_cipher'")
    return str(row["Value"])


def test_the_right_ca_and_name_are_accepted(tls_server: TlsServer, use_pure: bool) -> None:
    with tls_server.connection("localhost", tls_server.ca, use_pure) as database:
        assert cipher_of(database) != ""


def test_another_ca_is_refused(tls_server: TlsServer, use_pure: bool, tmp_path: Path) -> None:
    wrong_ca = make_ca(tmp_path / "wrong")
    with pytest.raises(SourceError) as caught:
        tls_server.connection("localhost", wrong_ca, use_pure).open()
    assert "No trusted TLS connection" in str(caught.value)
    assert str(wrong_ca) in str(caught.value)
    assert not caught.value.transient


def test_another_name_is_refused(tls_server: TlsServer, use_pure: bool) -> None:
    with pytest.raises(SourceError, match=r"not for the name 127\.0\.0\.1"):
        tls_server.connection("127.0.0.1", tls_server.ca, use_pure).open()


@pytest.mark.slow
def test_a_certificate_that_has_expired_is_refused(
    real_server: PrivateServer, use_pure: bool, tmp_path: Path
) -> None:
    ca = make_ca(tmp_path / "ca")
    certificate, key = make_certificate(ca, "DNS:localhost", days=-1)
    options = [f"--ssl-cert={certificate}", f"--ssl-key={key}"]
    (tmp_path / "server").mkdir()
    with type(real_server)(tmp_path / "server", options) as server:
        # Everything but its date is valid: without verification the connection works.
        with TlsServer(server, ca).connection("localhost", None, use_pure) as database:
            assert cipher_of(database) != ""
        with pytest.raises(SourceError, match="No trusted TLS connection") as caught:
            TlsServer(server, ca).connection("localhost", ca, use_pure).open()
    assert not caught.value.transient


def test_a_server_without_tls_is_refused_where_a_ca_is_set(
    mariadb: SourceDatabase, tls_server: TlsServer, use_pure: bool
) -> None:
    with pytest.raises(SourceError, match="No trusted TLS connection"):
        mariadb.connection(host="localhost", ssl_ca=tls_server.ca, use_pure=use_pure).open()


def test_a_ca_file_that_is_missing_or_no_certificate_is_named(
    tls_server: TlsServer, use_pure: bool, tmp_path: Path
) -> None:
    ca = tmp_path / "ca.pem"
    connection = tls_server.connection("localhost", ca, use_pure)
    with pytest.raises(SourceError, match=r"ca\.pem \(No such file .*check DB_SSL_CA"):
        connection.open()
    ca.write_text("no certificate", encoding="ascii")
    with pytest.raises(SourceError, match=r"ca\.pem \(it contains no certificate\)"):
        connection.open()


def test_without_a_ca_tls_is_used_where_the_server_offers_it(
    tls_server: TlsServer, mariadb: SourceDatabase, use_pure: bool
) -> None:
    with tls_server.connection("127.0.0.1", None, use_pure) as database:
        assert cipher_of(database) != ""
    with mariadb.connection(use_pure=use_pure) as database:
        assert cipher_of(database) == ""
