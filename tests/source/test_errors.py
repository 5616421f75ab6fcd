"""Messages for MySQL's error numbers, and which errors are transient."""

from __future__ import annotations

import pytest
from mysql.connector import DatabaseError, Error, InterfaceError, OperationalError

from source.errors import no_response_in_time, to_source_error
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
        (1045, "refused the user ann (raw message): check DB_USER and DB_PASSWORD"),
        (1049, "There is no database shop"),
        (1213, "Run again"),
        (3159, "set DB_SSL_CA"),
        (1205, "for a lock that another session holds"),
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


@pytest.mark.parametrize(
    ("errno", "message"),
    [
        (1235, "This version of MySQL doesn't yet support 'LIMIT & IN subquery'"),
        (1267, "Illegal mix of collations (a_general_ci,IMPLICIT) and (a_bin,IMPLICIT) for '='"),
        (1271, "Illegal mix of collations for operation 'UNION'"),
        (1356, "View 'shop.v' references invalid table(s) or column(s)"),
        (3579, "Window name 'w' is not defined"),
        (4015, "Window function is allowed only in SELECT list and ORDER BY clause"),
    ],
)
def test_messages_of_names_and_syntax_were_a_number_only(errno: int, message: str) -> None:
    error = to_source_error(DatabaseError(message, errno), FACTS, logged_in=True)
    assert message in str(error)
    assert not error.transient


def test_a_number_that_mariadb_uses_otherwise_is_not_named() -> None:
    assert "error 4016 (DatabaseError)" in str(to_source_error(DatabaseError("x", 4016), FACTS))


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        ("SELECT command denied to user 'ann'@'%' for table 't'", "GRANT SELECT on it"),
        ("execute command denied to user 'ann'@'%' for routine 'd.f'", "GRANT EXECUTE"),
        ("SHOW VIEW command denied to user 'ann'@'%' for table 'v'", "GRANT SHOW VIEW on it"),
        ("UPDATE command denied to user 'ann'@'%' for table 't'", "must only read"),
        ("SELECT with locking clause command denied to user 'ann'@'%'", "such as FOR UPDATE"),
    ],
)
def test_every_right_that_was_missing_was_said_to_be_select(message: str, advice: str) -> None:
    text = str(to_source_error(DatabaseError(message, 1142), FACTS))
    assert message in text
    assert advice in text
    assert ("GRANT SELECT" in text) == message.startswith("SELECT command")


@pytest.mark.parametrize(
    ("states", "words", "transient"),
    [
        (["Sending data"], "too slow: MySQL at db.example.com:3306 returned no row for 301", False),
        (["Waiting for table metadata lock"], "waited 301 seconds for a lock", True),
        (["System lock"], "too slow", False),
        ([], "was lost", True),
        (None, "too slow, or the network failed", True),
    ],
)
def test_a_query_that_takes_too_long_was_a_lost_connection(
    states: list[str] | None, words: str, transient: bool
) -> None:
    error = no_response_in_time(FACTS, 301.2, states)
    assert words in str(error)
    assert error.transient is transient
