"""`--check`: the types of profile fields compared with those in Iterable."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from commands.check.line import CheckLine
from sandbox.iterable_api import IterableSandbox
from tests.conftest import SourceDatabase
from tests.support.set_up import KEY, Lines, SetUp, has_words

pytest_plugins = ["tests.support.set_up_fixtures"]


def check_column(
    folder: Path,
    mariadb: SourceDatabase,
    value: str,
    source: str,
    field: str,
    iterable_types: dict[str, str],
) -> Lines:
    """Return the lines of a check whose query has this value as the column x."""
    query = folder / "wide.sql"
    query.write_text(
        f"SELECT id, email, 'pricing' AS page, NOW() AS event_time, {value} AS x FROM {source}",
        encoding="utf-8",
    )
    with IterableSandbox(api_key=KEY, field_types=iterable_types) as api:
        set_up = SetUp(folder, mariadb, api)
        return set_up.lines(QUERY_FILE=str(query), USER_FIELDS=field, EVENT_FIELDS="page")


@pytest.fixture
def check_value(tmp_path: Path, mariadb: SourceDatabase) -> Callable[..., Lines]:
    """Return a function that checks one value against the field types of a project."""
    mariadb.run_sql(
        "INSERT INTO customers (id, email, plan_type, candidate)"
        " VALUES (1, 'a@example.com', 'pro', 'yes')"
    )

    def check(
        iterable_types: dict[str, str], value: str, field: str = "x", *, rows: bool = True
    ) -> Lines:
        source = f"customers {'' if rows else 'WHERE id = 0'}"
        lines = check_column(tmp_path, mariadb, value, source, field, iterable_types)
        return [line for line in lines if line.name == "field types"]

    return check


@pytest.mark.parametrize(
    ("iterable_type", "value", "words"),
    [
        ("string", "5", "x is string in Iterable but sent as long: "),
        ("long", "'five'", "x is long in Iterable but sent as string"),
        ("long", "5.25", "sent as double"),
        ("double", "'5'", "sent as string"),
        ("boolean", "1", "write x=COLUMN:bool in USER_FIELDS"),
        ("boolean", "'yes'", "sent as string"),
        ("date", "'soon'", "string (not in a date format)"),
        ("date", "CAST(20260113 AS SIGNED)", "sent as long"),
        ("object", "'{}'", "write x=COLUMN:json in USER_FIELDS"),
    ],
)
def test_a_clash_fails_and_names_the_field_and_both_types(
    check_value: Callable[..., Lines], iterable_type: str, value: str, words: str
) -> None:
    (line,) = check_value({"x": iterable_type}, value)
    assert not line.ok
    has_words(line, f"x is {iterable_type} in Iterable", words)


@pytest.mark.parametrize(
    ("iterable_type", "value", "field"),
    [
        ("string", "'five'", "x"),
        ("string", "DATE '2026-01-13'", "x"),
        ("long", "5", "x"),
        ("long", "CAST(5 AS DECIMAL(10,0))", "x"),
        ("double", "5", "x"),
        ("double", "5.25", "x"),
        ("boolean", "1", "x=x:bool"),
        ("date", "DATE '2026-01-13'", "x"),
        ("date", "TIMESTAMP '2026-01-13 14:30:45'", "x"),
        ("date", "'2026-01-13 14:30:45'", "x"),
        ("object", """'{"a": 1}'""", "x=x:json"),
        ("long", "NULL", "x"),
    ],
)
def test_a_value_that_matches_the_type_is_ok(
    check_value: Callable[..., Lines], iterable_type: str, value: str, field: str
) -> None:
    (line,) = check_value({"x": iterable_type}, value, field)
    assert line.ok
    assert not line.is_warning


@pytest.mark.parametrize(
    ("iterable_type", "value", "is_ok"),
    [
        ("string", "id", False),
        ("long", "id", True),
        ("long", "email", False),
        ("boolean", "NOW()", False),
        ("date", "NOW()", True),
        ("date", "email", True),  # a text may hold dates
        ("long", "CAST(5 AS DECIMAL(10,2))", True),  # a decimal may be whole
        ("string", "CAST(5 AS DECIMAL(10,2))", False),
    ],
)
def test_without_rows_the_column_types_are_compared(
    check_value: Callable[..., Lines], iterable_type: str, value: str, is_ok: bool
) -> None:
    (line,) = check_value({"x": iterable_type}, value, rows=False)
    assert line.ok is is_ok


def test_fields_inside_an_object_are_compared(check_value: Callable[..., Lines]) -> None:
    (line,) = check_value({"x": "object", "x.size": "long"}, """'{"size": "L"}'""", "x=x:json")
    assert not line.ok
    has_words(line, "x.size is long in Iterable", "change x.size in the JSON")


def test_the_advice_for_recent_page_view_does_not_name_user_fields(
    check_value: Callable[..., Lines],
) -> None:
    lines = check_value({"recent_page_view": "string"}, "'a'")
    assert [line.ok for line in lines] == [False]
    has_words(lines[0], "recent_page_view is string in Iterable but sent as boolean")
    assert "USER_FIELDS" not in lines[0].text  # this field cannot be listed there


def test_a_new_field_with_values_of_two_types_is_a_warning(
    check_value: Callable[..., Lines], mariadb: SourceDatabase
) -> None:
    mariadb.run_sql("INSERT INTO customers (id, email) VALUES (2, 'b@example.com')")
    lines = check_value({}, """IF(id = 1, '5', '"five"')""", "x=x:json")
    assert [line.is_warning for line in lines] == [True, False]
    has_words(lines[0], "sent as long and as string")


def test_no_value_is_printed(check_value: Callable[..., Lines]) -> None:
    (line,) = check_value({"x": "long"}, "'a secret of hers'")
    assert "secret" not in line.text


# Fields that are new


@pytest.fixture
def new_field(tmp_path: Path, mariadb: SourceDatabase) -> Callable[..., CheckLine]:
    """Return a function that returns the line of a field of two rows that Iterable lacks."""
    mariadb.run_sql(
        "INSERT INTO customers (id, email, plan_type, candidate)"
        " VALUES (1, 'a@example.com', 'pro', 'yes'), (2, 'b@example.com', 'pro', 'no')"
    )

    def check(value: str, field: str = "x", table: str = "customers") -> CheckLine:
        lines = check_column(tmp_path, mariadb, value, f"{table} ORDER BY id", field, {})
        (line,) = [line for line in lines if line.name == "new field" and "true" not in line.text]
        return line

    return check


@pytest.mark.parametrize(
    ("value", "field", "text"),
    [
        ("CAST(id AS SIGNED)", "x", "x  BIGINT 1 -> long"),
        ("IF(id = 1, NULL, 2.5e0)", "x", "x  DOUBLE 2.5 -> double"),
        ("CAST(NULL AS DECIMAL(5,2))", "x", "x  DECIMAL -> double"),
        ("plan_type", "x", "x  VARCHAR -> string"),  # a text may be personal data
        ("DATE '2026-01-13'", "born=x", "born  DATE -> string"),
        ("id > 1", "is_new=x:bool", "is_new"),
    ],
)
def test_a_new_field_has_a_line_with_the_type_that_its_first_value_fixes(
    new_field: Callable[..., CheckLine], value: str, field: str, text: str
) -> None:
    line = new_field(value, field)
    assert line.ok
    assert not line.is_warning
    has_words(line, text)


def test_a_new_field_of_0_and_1_asks_whether_it_is_a_boolean(
    new_field: Callable[..., CheckLine], mariadb: SourceDatabase
) -> None:
    mariadb.run_sql("ALTER TABLE customers ADD marketing_ok TINYINT NOT NULL DEFAULT 1")
    line = new_field("marketing_ok", "marketing_ok=x")
    assert line.is_warning
    assert line.text == ("marketing_ok  TINYINT 1 -> long; write marketing_ok=x:bool if it is one")
    mariadb.run_sql("UPDATE customers SET marketing_ok = 0 WHERE id = 1")
    assert new_field("marketing_ok").text == "x  TINYINT 0 -> long; write x:bool if it is one"
    mariadb.run_sql("UPDATE customers SET marketing_ok = 2 WHERE id = 2")
    assert new_field("marketing_ok").text == "x  TINYINT 0 -> long"


def test_a_field_of_which_some_values_fit_is_a_warning(
    check_value: Callable[..., Lines], mariadb: SourceDatabase
) -> None:
    mariadb.run_sql("INSERT INTO customers (id, email) VALUES (2, 'b@example.com')")
    (line,) = check_value({"x": "long"}, """IF(id = 1, '5', '"five"')""", "x=x:json")
    assert line.is_warning
    has_words(line, "x is long in Iterable but sent as string")
