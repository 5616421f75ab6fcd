"""Streams that are killed, time out or are closed early, and their memory use."""

from __future__ import annotations

import tracemalloc
from contextlib import suppress
from pathlib import Path

import pytest

from db_connection import DatabaseConnection, RowStream, SourceError
from tests.conftest import SourceDatabase, numbers
from tests.support.private_server import PrivateServer

# 20,000 rows of 4,000 bytes, so 80 MB: more than any buffer holds.
MANY = f"SELECT seq, REPEAT('x', 4000) AS filler FROM {numbers(20_000)}"


def sessions_of(server: PrivateServer, user: str) -> list[int]:
    with_id = server.root_connection()
    try:
        cursor = with_id.cursor()
        cursor.execute("SELECT id FROM information_schema.processlist WHERE user = %s", [user])
        return [int(row[0]) for row in cursor.fetchall()]
    finally:
        with_id.close()


def bytes_sent(server: PrivateServer) -> int:
    connection = server.root_connection()
    try:
        cursor = connection.cursor()
        cursor.execute("SHOW GLOBAL STATUS LIKE 'Bytes_sent'")
        return int(cursor.fetchone()[1])
    finally:
        connection.close()


def kill_sessions(server: PrivateServer, kind: str = "CONNECTION") -> None:
    for number in sessions_of(server, server.user):
        server.run_sql(f"KILL {kind} {number}")


def no_session_is_left(server: PrivateServer) -> bool:
    # The server takes a moment to notice; each look takes about a millisecond.
    return any(not sessions_of(server, server.user) for _ in range(2_000))


def read_to_the_end(rows: RowStream) -> int:
    return sum(len(chunk) for chunk in rows)


def opened(database: DatabaseConnection) -> bool:
    with suppress(SourceError):
        database.open()
        return True
    return False


class TestLosingTheConnection:
    def test_a_connection_killed_in_mid_stream_is_an_error_and_not_an_end(
        self, on_real: DatabaseConnection, real_server: PrivateServer
    ) -> None:
        rows = on_real.stream(MANY, chunk_rows=10)
        assert len(next(rows)) == 10
        kill_sessions(real_server)
        with pytest.raises(SourceError, match="was lost") as caught:
            read_to_the_end(rows)
        assert caught.value.transient
        assert list(rows) == []

    def test_a_query_killed_in_mid_stream_is_an_error_and_not_an_end(
        self, on_real: DatabaseConnection, real_server: PrivateServer
    ) -> None:
        rows = on_real.stream(MANY, chunk_rows=10)
        next(rows)
        kill_sessions(real_server, "QUERY")
        with pytest.raises(SourceError, match="stopped the query") as caught:
            read_to_the_end(rows)
        assert caught.value.transient

    def test_after_a_lost_connection_it_can_be_opened_again(
        self, on_real: DatabaseConnection, real_server: PrivateServer
    ) -> None:
        kill_sessions(real_server)
        with pytest.raises(SourceError) as caught:
            on_real.execute_query("SELECT 1 AS one")
        assert caught.value.transient
        with pytest.raises(SourceError, match="Not connected"):
            on_real.execute_query("SELECT 1 AS one")
        on_real.open()
        assert on_real.execute_query("SELECT 1 AS one") == [{"one": 1}]

    def test_a_query_ends_after_the_read_time_out_on_client_and_server(
        self, real: SourceDatabase, real_server: PrivateServer, use_pure: bool
    ) -> None:
        with (
            real.connection(use_pure=use_pure, read_timeout_seconds=1) as database,
            pytest.raises(SourceError) as caught,
        ):
            database.execute_query("SELECT SLEEP(30) AS pause")
        assert "The query is too slow" in str(caught.value)
        assert "Run again" not in str(caught.value)
        assert not caught.value.transient  # or a run would try it three times
        # The server stopped running the query too.
        assert no_session_is_left(real_server)

    def test_a_query_that_waits_for_a_lock_says_so(
        self, real: SourceDatabase, real_server: PrivateServer, use_pure: bool
    ) -> None:
        locking = real_server.root_connection(real.database)
        locking.cursor().execute("LOCK TABLES customers WRITE")
        try:
            with (
                real.connection(use_pure=use_pure, read_timeout_seconds=3) as database,
                pytest.raises(SourceError, match="for a lock that another session") as caught,
            ):
                database.execute_query("SELECT id FROM customers")
        finally:
            locking.close()
        assert caught.value.transient

    def test_a_server_that_stops_is_an_error_and_can_be_reached_when_it_is_back(
        self, on_real: DatabaseConnection, real_server: PrivateServer
    ) -> None:
        rows = on_real.stream(MANY, chunk_rows=10)
        next(rows)
        real_server.stop()
        with pytest.raises(SourceError) as caught:
            read_to_the_end(rows)
        assert caught.value.transient
        with pytest.raises(SourceError, match="Cannot reach MySQL"):
            on_real.open()
        real_server.start()
        on_real.open()
        assert on_real.execute_query("SELECT 1 AS one") == [{"one": 1}]


class TestClosingEarly:
    @pytest.fixture(autouse=True)
    def _few_bytes_are_sent(self, real_server: PrivateServer) -> None:
        self.server = real_server
        self.sent_before = bytes_sent(real_server)

    def assert_the_server_stopped_sending(self) -> None:
        assert bytes_sent(self.server) - self.sent_before < 20_000_000

    def test_a_closed_stream_is_not_read_to_its_end(self, on_real: DatabaseConnection) -> None:
        with on_real.stream(MANY, chunk_rows=10) as rows:
            next(rows)
        self.assert_the_server_stopped_sending()
        assert list(rows) == []

    def test_the_connection_can_be_used_again_at_once(self, on_real: DatabaseConnection) -> None:
        with on_real.stream(MANY, chunk_rows=10) as rows:
            next(rows)
        assert on_real.execute_query("SELECT @@time_zone AS zone") == [{"zone": "+00:00"}]

    def test_disconnecting_with_unread_rows_is_quick_and_leaves_no_session(
        self, on_real: DatabaseConnection, real_server: PrivateServer
    ) -> None:
        next(on_real.stream(MANY, chunk_rows=10))
        on_real.disconnect()
        self.assert_the_server_stopped_sending()
        assert no_session_is_left(real_server)

    def test_only_its_own_session_is_ended(self, real: SourceDatabase, use_pure: bool) -> None:
        with real.connection(use_pure=use_pure) as one, real.connection() as other:
            others_rows = other.stream(MANY, chunk_rows=10)
            next(others_rows)
            with one.stream(MANY, chunk_rows=10) as rows:
                next(rows)
            assert next(others_rows)[0][0] == 11

    def test_closing_works_when_the_server_takes_no_second_connection(
        self, real: SourceDatabase, real_server: PrivateServer, use_pure: bool
    ) -> None:
        real_server.run_sql(
            "DROP USER IF EXISTS single@'%'; CREATE USER single@'%' IDENTIFIED BY 'pass-word'"
            " WITH MAX_USER_CONNECTIONS 1;"
            f"GRANT SELECT ON {real.database}.* TO single@'%'"
        )
        database = real.connection(user="single", password="pass-word", use_pure=use_pure)
        database.open()
        with database.stream(f"SELECT seq FROM {numbers(1_000)}", chunk_rows=10) as rows:
            next(rows)
        with pytest.raises(SourceError, match="Not connected"):
            database.execute_query("SELECT 1 AS one")
        database.open()
        assert database.execute_query("SELECT 1 AS one") == [{"one": 1}]
        database.disconnect()

    def test_an_account_for_one_connection_had_sometimes_no_free_connection(
        self, mariadb: SourceDatabase, tmp_path: Path
    ) -> None:
        """The server still counted the session whose window was in the wrong time zone."""
        mariadb.run_sql(
            "DROP USER IF EXISTS single@'%'; CREATE USER single@'%' IDENTIFIED BY 'pass-word'"
            f" WITH MAX_USER_CONNECTIONS 1; GRANT SELECT ON {mariadb.database}.* TO single@'%';"
            "CREATE TABLE views (event_time TIMESTAMP);"
            f"INSERT INTO views SELECT UTC_TIMESTAMP() FROM {numbers(5_000)}"
        )
        query_file = tmp_path / "query.sql"
        query_file.write_text("SELECT event_time FROM views WHERE event_time >= %(window_start)s")
        for _ in range(20):
            database = mariadb.connection(
                user="single",
                password="pass-word",
                time_zone="Europe/Berlin",
                query_file=query_file,
            )
            assert any(opened(database) for _ in range(1_000))
            with database.stream_pro_users_recent_engagement(chunk_rows=100) as rows:
                assert read_to_the_end(rows) == 5_000
            database.disconnect()


@pytest.mark.slow
def test_a_stream_holds_one_chunk_in_memory(real: SourceDatabase) -> None:
    with real.connection() as database:
        query = f"SELECT seq, REPEAT('x', 100) AS filler FROM {numbers(200_000)}"
        with database.stream(query, chunk_rows=1_000) as rows:
            tracemalloc.start()
            assert read_to_the_end(rows) == 200_000
            peak_bytes = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    # 1,000 rows of about 400 bytes, and the next chunk before the last one is freed.
    assert peak_bytes < 2_000_000
