"""Connecting and disconnecting, on the real servers and the embedded one."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from db_connection import DatabaseConnection, SourceError
from tests.conftest import SourceDatabase
from tests.support.private_server import PrivateServer, free_port


class TestConnecting:
    def test_connect_logs_the_database_and_the_server(
        self, source: SourceDatabase, caplog: pytest.LogCaptureFixture
    ) -> None:
        connection = source.connection()
        with caplog.at_level(logging.INFO):
            assert connection.connect() is True
        place = f"{source.host}:{source.port}"
        assert f"Connected to MySQL database {source.database} on {place}" in caplog.messages
        connection.disconnect()

    def test_connect_logs_a_failure_as_an_error_and_returns_false(
        self, source: SourceDatabase, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert source.connection(password="wrong-pass-word").connect() is False
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        assert "check DB_USER and DB_PASSWORD" in caplog.text
        assert "wrong-pass-word" not in caplog.text

    def test_disconnecting_twice_or_never_connected_is_harmless(
        self, source: SourceDatabase
    ) -> None:
        connection = source.connection()
        connection.disconnect()
        connection.open()
        connection.open()
        connection.disconnect()
        connection.disconnect()

    def test_works_through_a_unix_socket(self, real: SourceDatabase, use_pure: bool) -> None:
        by_socket = real.connection(
            host="", port=1, unix_socket=real.unix_socket, use_pure=use_pure
        )
        with by_socket:
            assert by_socket.execute_query("SELECT 1 AS one") == [{"one": 1}]

    def test_names_the_driver_in_use(self, real: SourceDatabase) -> None:
        assert real.connection(use_pure=True).driver == "pure Python"
        assert real.connection().driver == "C extension"

    def test_repr_and_str_do_not_contain_the_password(self, real: SourceDatabase) -> None:
        connection = real.connection()
        assert real.password not in repr(connection) + str(connection) + repr(connection.source)


class TestErrorsWhenConnecting:
    def open_error(self, connection: DatabaseConnection) -> SourceError:
        with pytest.raises(SourceError) as caught:
            connection.open()
        assert "\n" not in str(caught.value)
        assert connection.source.password not in str(caught.value)
        return caught.value

    def test_no_server_at_the_port(self, use_pure: bool) -> None:
        port = free_port()
        connection = DatabaseConnection(
            "127.0.0.1", "ann", "pass-word", "shop", port=port, use_pure=use_pure
        )
        error = self.open_error(connection)
        assert f"Cannot reach MySQL at 127.0.0.1:{port}" in str(error)
        assert "DB_HOST and DB_PORT" in str(error)
        assert error.transient

    def test_no_server_at_the_socket(self, tmp_path: Path, use_pure: bool) -> None:
        path = str(tmp_path / "no.sock")
        connection = DatabaseConnection(
            "", "ann", "pass-word", "shop", unix_socket=path, use_pure=use_pure
        )
        error = self.open_error(connection)
        assert f"Cannot reach MySQL at {path}" in str(error)
        assert "DB_UNIX_SOCKET" in str(error)

    def test_the_host_does_not_exist(self, use_pure: bool) -> None:
        connection = DatabaseConnection(
            "no-such-host.invalid", "ann", "pass-word", "shop", use_pure=use_pure
        )
        assert "no-such-host.invalid: check DB_HOST" in str(self.open_error(connection))

    @pytest.mark.parametrize("wrong", [{"password": "wrong-pass-word"}, {"user": "nobody"}])
    def test_user_or_password_is_wrong(
        self, source: SourceDatabase, use_pure: bool, wrong: dict[str, str]
    ) -> None:
        connection = source.connection(use_pure=use_pure, **wrong)
        error = self.open_error(connection)
        assert f"refused the user {connection.source.user}" in str(error)
        assert not error.transient

    def test_the_database_does_not_exist(self, source: SourceDatabase, use_pure: bool) -> None:
        error = self.open_error(source.connection(database="nowhere", use_pure=use_pure))
        assert "There is no database nowhere" in str(error)
        assert not error.transient

    def test_the_user_has_no_access_to_the_database(
        self, real: SourceDatabase, real_server: PrivateServer
    ) -> None:
        real_server.run_sql(
            "DROP USER IF EXISTS outsider@'%'; CREATE USER outsider@'%' IDENTIFIED BY 'pass-word'"
        )
        error = self.open_error(real.connection(user="outsider", password="pass-word"))
        assert f"The user outsider has no access to the database {real.database}" in str(error)

    def test_the_password_has_expired(
        self, real: SourceDatabase, real_server: PrivateServer, use_pure: bool
    ) -> None:
        real_server.run_sql(
            "DROP USER IF EXISTS late@'%';"
            "CREATE USER late@'%' IDENTIFIED BY 'pass-word' PASSWORD EXPIRE;"
            f"GRANT SELECT ON {real.database}.* TO late@'%'"
        )
        late = real.connection(user="late", password="pass-word", use_pure=use_pure)

        def ask() -> None:
            late.open()
            late.execute_query("SELECT id FROM customers")  # what MariaDB refuses

        with pytest.raises(SourceError, match="password of the user late has expired") as caught:
            ask()
        assert not caught.value.transient


class TestTheSession:
    def test_refuses_to_write(self, database: DatabaseConnection) -> None:
        for statement in (
            "INSERT INTO customers (email, plan_type) VALUES ('x@example.com', 'pro')",
            "UPDATE customers SET plan_type = 'free'",
            "DELETE FROM page_views",
            "DROP TABLE page_views",
        ):
            with pytest.raises(SourceError, match="the session is read only"):
                database.execute_query(statement)
        assert len(database.execute_query("SELECT id FROM customers")) == 3

    def test_refuses_a_second_statement(self, database: DatabaseConnection) -> None:
        with pytest.raises(SourceError, match="SQL syntax"):
            database.execute_query("SELECT 1 AS one FROM customers; SELECT 2 AS two FROM customers")

    def test_uses_utc_and_utf8_and_a_long_net_write_timeout(
        self, on_real: DatabaseConnection
    ) -> None:
        (row,) = on_real.execute_query(
            "SELECT @@time_zone, @@autocommit, @@collation_connection, @@net_write_timeout"
        )
        assert list(row.values()) == ["+00:00", 1, "utf8mb4_general_ci", 600]
