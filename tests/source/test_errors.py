"""Messages for MySQL's error numbers, and which errors are transient."""

from __future__ import annotations

import pytest
from mysql.connector import DatabaseError, Error, InterfaceError, OperationalError

from source.errors import to_source_error
from source.session import Source

SOURCE = Source(
    host="db.example.com",
    port=3306,
    user="ann",
    password="pass-word",
    database="shop",
    unix_socket=None,
    ssl_ca=None,
    connect_timeout_seconds=10,
    read_timeout_seconds=300,
    use_pure=False,
)
FACTS = SOURCE.facts


@pytest.mark.parametrize(
    "errno",
    [1021, 1040, 1053, 1158, 1205, 1213, 1317, 1927, 1969, 2003, 2006, 2013, 2055, 3024, 4031],
)
def test_errors_that_may_pass_are_transient(errno: int) -> None:
    assert to_source_error(Error("whatever", errno), FACTS).transient


@pytest.mark.parametrize(
    "errno", [1044, 1045, 1049, 1054, 1064, 1130, 1142, 1146, 1698, 1792, 2026, 2059, 3159]
)
def test_errors_that_need_a_change_are_not_transient(errno: int) -> None:
    assert not to_source_error(Error("whatever", errno), FACTS).transient


@pytest.mark.parametrize(
    ("errno", "words"),
    [
        (2003, "Cannot reach MySQL at db.example.com:3306"),
        (1045, "refused the user ann"),
        (1049, "There is no database shop"),
        (1213, "Run again"),
        (3159, "set DB_SSL_CA"),
        (1205, "stopped the query"),
        (1040, "has no free connections"),
    ],
)
def test_the_message_names_server_user_database_or_setting(errno: int, words: str) -> None:
    assert words in str(to_source_error(Error("raw message", errno), FACTS))


def test_a_long_message_of_many_lines_becomes_a_short_line() -> None:
    message = "You have an error\n   in your SQL\tsyntax " + 1_000 * "x"
    text = str(to_source_error(DatabaseError(message, 1064), FACTS))
    assert "You have an error in your SQL syntax xxx" in text
    assert "\n" not in text
    assert len(text) < 450


def test_a_message_that_may_hold_data_is_not_quoted() -> None:
    error = DatabaseError("Truncated incorrect DOUBLE value: 'ann@example.com'", 1292)
    text = str(to_source_error(error, FACTS))
    assert "ann@example.com" not in text
    assert "error 1292 (ER_TRUNCATED_WRONG_VALUE)" in text


def test_a_session_that_has_ended_without_a_number_is_a_lost_connection() -> None:
    error = to_source_error(OperationalError("MySQL Connection not available."), FACTS)
    assert "was lost" in str(error)
    assert error.transient


def test_an_error_without_a_number_names_its_kind() -> None:
    assert "InterfaceError" in str(to_source_error(InterfaceError("secret"), FACTS))
    assert "secret" not in str(to_source_error(InterfaceError("secret"), FACTS))


def test_repr_does_not_contain_the_password() -> None:
    assert "pass-word" not in repr(SOURCE)
