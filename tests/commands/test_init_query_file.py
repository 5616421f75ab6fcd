"""The query file that `--init` writes: it runs, whatever the names, and sends nothing secret."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from commands.init.query_file import query_text, quoted
from commands.init.schema import (
    Column,
    Events,
    Reference,
    Table,
    Users,
    read_databases,
    read_tables,
    to_tables,
)
from commands.init.selection import MAX_EVENT_FIELDS, MAX_USER_FIELDS, Selection
from config.fields import RESERVED_EVENT_FIELDS, RESERVED_USER_FIELDS, columns_of, parse_fields
from db_connection import DatabaseConnection
from tests.support.private_server import PrivateServer

DATABASE = "odd `names` %"
# Names that MySQL accepts: no NUL, only characters of the basic plane.
NAMES = st.text(
    st.characters(min_codepoint=32, max_codepoint=0xFFFD, exclude_categories=["Cs", "Cc", "Zl"]),
    min_size=1,
    max_size=20,
) | st.text(st.sampled_from("`'\"%()s;#-/*\\ .,=:ü"), min_size=1, max_size=12)


@pytest.fixture
def server(real_server: PrivateServer) -> Iterator[PrivateServer]:
    """A server with an empty database of an odd name."""
    name = quoted(DATABASE)
    real_server.run_sql(f"DROP DATABASE IF EXISTS {name}; CREATE DATABASE {name}")
    yield real_server
    real_server.run_sql(f"DROP DATABASE IF EXISTS {name}")


def connection(server: PrivateServer, query_file: Path, database: str) -> DatabaseConnection:
    return DatabaseConnection(
        server.host, server.user, server.password, database, port=server.port, query_file=query_file
    )


def tables_of(server: PrivateServer) -> list[Table]:
    with connection(server, Path("none"), "information_schema") as opened:
        assert DATABASE in read_databases(opened)
        return read_tables(opened, DATABASE)


def rows_of(server: PrivateServer, folder: Path, selection: Selection) -> list[dict[str, object]]:
    """Run the query file of a selection."""
    path = folder / "query.sql"
    path.write_text(query_text(selection, "UTC"), encoding="utf-8")
    with connection(server, path, DATABASE) as opened:
        return opened.get_pro_users_recent_engagement()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(names=st.lists(NAMES.filter(str.isprintable), min_size=5, max_size=5))
@example(names=["`", "%(window_start)s", "a'b\"", "--", "/*"])
@example(names=["x`%(window_start_utc)s`", "#", "select", ";", "Straße und Nr."])
def test_any_names_of_tables_and_columns_work(
    server: PrivateServer, tmp_path: Path, names: list[str]
) -> None:
    # Different for the server, too, to which some letters are the same.
    names = [f"{name.lstrip()}{number}" for number, name in enumerate(names)]
    users, events, column, other, reference = map(quoted, names)
    server.run_sql(
        f"DROP TABLE IF EXISTS {users}, {events};"
        f"CREATE TABLE {users} ({column} INT PRIMARY KEY, {other} VARCHAR(99));"
        f"CREATE TABLE {events} ({column} INT PRIMARY KEY, {reference} INT, {other} TIMESTAMP);"
        f"INSERT INTO {users} VALUES (7, 'ann@example.com');"
        f"INSERT INTO {events} VALUES (1, 7, NOW()), (2, 7, NOW() - INTERVAL 1 HOUR)",
        DATABASE,
    )
    tables = {table.name: table for table in tables_of(server)}
    selection = Selection(
        Users(tables[names[0]], names[2], names[3]),
        Events(tables[names[1]], Reference(names[0], ((names[4], names[2]),)), names[3]),
    )
    (row,) = rows_of(server, tmp_path, selection)
    assert (row["id"], row["email"], row["event_id"]) == (7, "ann@example.com", 1)
    server.run_sql(f"DROP TABLE {users}, {events}", DATABASE)


def test_composite_binary_and_missing_keys_return_the_latest_event(
    server: PrivateServer, tmp_path: Path
) -> None:
    server.run_sql(
        "CREATE TABLE users (tenant INT, no BINARY(2), email VARBINARY(99), PRIMARY KEY (tenant,"
        " no));"
        "CREATE TABLE visits (tenant INT, no BINARY(2), at DATETIME, page VARCHAR(9), FOREIGN KEY"
        " (tenant, no) REFERENCES users (tenant, no));"
        "CREATE TABLE orders (tenant INT, no BINARY(2), at DATE, PRIMARY KEY (tenant, no, at));"
        "CREATE VIEW seen AS SELECT * FROM visits;"
        "INSERT INTO users VALUES (1, 0xab01, 'ann@example.com'), (2, 0xab01, 'bob@example.com');"
        "INSERT INTO visits VALUES (1, 0xab01, NOW(), 'new'), (1, 0xab01, NOW() - INTERVAL 1 DAY,"
        " 'old');"
        "INSERT INTO orders VALUES (2, 0xab01, DATE(NOW())), (2, 0xab01, DATE(NOW()) - INTERVAL 1"
        " DAY)",
        DATABASE,
    )
    tables = {table.name: table for table in tables_of(server)}
    users = Users(tables["users"], "no", "email")
    pairs = (("tenant", "tenant"), ("no", "no"))
    assert tables["visits"].foreign_keys == (Reference("users", pairs),)
    assert [table.name for table in tables.values() if table.is_view] == ["seen"]
    for name in ("visits", "seen"):
        events = Events(tables[name], Reference("users", pairs), "at")
        (row,) = rows_of(server, tmp_path, Selection(users, events))
        assert (row["id"], row["email"], row["page"]) == ("AB01", "ann@example.com", "new")
        assert "event_id" not in row
    events = Events(tables["orders"], Reference("users", pairs), "at")
    (row,) = rows_of(server, tmp_path, Selection(users, events))
    assert row["email"] == "bob@example.com"
    assert str(row["event_id"]).startswith("2-AB01-2")
    both = rows_of(server, tmp_path, Selection(users, None))
    assert [row["email"] for row in both] == ["ann@example.com", "bob@example.com"]


def of_types(*columns: tuple[str, str]) -> Table:
    return Table("t", tuple(Column(name, kind.split("(")[0], kind) for name, kind in columns))


def test_secrets_large_values_and_reserved_fields_are_not_sent() -> None:
    users = of_types(
        *(("id", "int"), ("email", "varchar"), ("name", "varchar"), ("pass", "varchar")),
        *(("photo", "blob"), ("bio", "longtext"), ("signupDate", "datetime"), ("active", "bit(1)")),
        *(("vip", "tinyint(1)"), ("level", "tinyint(4)"), ("userId", "int"), ("extra", "json")),
    )
    selection = Selection(Users(users, "id", "email"), None)
    entries = [each.entry for each in selection.user_columns]
    assert entries == ["name", "active:bool", "vip:bool", "level"]
    text = query_text(selection, "UTC")
    assert "-- Not selected, because of name, type or number: pass, photo, bio, " in text
    assert "`pass`" not in text
    assert not selection.has_local_times


def test_columns_of_one_name_get_names_of_their_own() -> None:
    users = of_types(
        *(("no", "int"), ("mail", "varchar"), ("id", "int"), ("page", "int"), ("status", "int")),
        *(("Vor,name", "varchar"), ("Vor.name", "varchar")),
    )
    events = of_types(
        *(("user", "int"), ("at", "datetime"), ("status", "int"), ("page", "varchar")),
        *(("email", "varchar"), ("event_id", "int")),
    )
    selection = Selection(
        Users(users, "no", "mail"), Events(events, Reference("t", (("user", "no"),)), "at")
    )
    assert [each.entry for each in selection.user_columns] == [
        *("id=user_id", "page=user_page", "status", "Vor_name")
    ]
    assert [each.entry for each in selection.event_columns] == [
        *("status=event_status", "page", "event_id=event_event_id")
    ]
    assert selection.has_local_times


@given(names=st.lists(NAMES, max_size=80, unique=True))
def test_any_columns_make_valid_fields(names: list[str]) -> None:
    columns = tuple(Column(name, "int", "int(11)") for name in names)
    table = Table("t", (*columns, Column("\0id", "int"), Column("\0at", "timestamp")))
    events = Events(table, Reference("t", (("\0id", "\0id"),)), "\0at")
    selection = Selection(Users(table, "\0id", "\0id"), events)
    user, event = (
        ",".join(each.entry for each in sent)
        for sent in (selection.user_columns, selection.event_columns)
    )
    user_fields = parse_fields(user, RESERVED_USER_FIELDS)
    event_fields = parse_fields(event, RESERVED_EVENT_FIELDS)
    assert len(user_fields) == len(selection.user_columns) <= MAX_USER_FIELDS
    assert len(event_fields) == len(selection.event_columns) <= MAX_EVENT_FIELDS
    aliases = [field.column.lower() for field in columns_of((*user_fields, *event_fields))]
    assert len({*aliases}) == len(aliases) == len(user_fields) + len(event_fields)


def test_a_server_that_sends_bytes_and_upper_case_is_understood() -> None:
    (table,) = to_tables(
        [
            {"name": b"t", "kind": "BASE TABLE", "row_count": None},
            {"name": "empty", "kind": "VIEW", "row_count": None},
            {"name": "line\nbreak", "kind": "BASE TABLE", "row_count": 1},
        ],
        [
            {
                "table_name": "t",
                "name": bytearray(b"c"),
                "type": b"VARCHAR",
                "full_type": "VARCHAR(9)",
                "key_kind": b"PRI",
            }
        ],
        [],
    )
    assert table == Table("t", (Column("c", "varchar", "varchar(9)", is_primary=True),))


def test_texts_of_two_collations_are_compared_in_that_of_the_users(
    server: PrivateServer, tmp_path: Path
) -> None:
    server.run_sql(
        "CREATE TABLE users (id INT PRIMARY KEY, email VARCHAR(99) CHARACTER SET utf8mb4"
        " COLLATE utf8mb4_unicode_ci);"
        "CREATE TABLE orders (id INT PRIMARY KEY, email VARCHAR(99) CHARACTER SET utf8mb4"
        " COLLATE utf8mb4_general_ci, made_at DATETIME);"
        "CREATE TABLE visits (id INT PRIMARY KEY, email VARCHAR(99) CHARACTER SET latin1,"
        " made_at DATETIME);"
        "INSERT INTO users VALUES (1, 'a@example.com');"
        "INSERT INTO orders VALUES (1, 'a@example.com', UTC_TIMESTAMP());"
        "INSERT INTO visits VALUES (1, 'a@example.com', UTC_TIMESTAMP())",
        DATABASE,
    )
    tables = {table.name: table for table in tables_of(server)}
    users = Users(tables["users"], "id", "email")
    for name in ("orders", "visits"):
        reference = Reference("users", (("email", "email"),))
        selection = Selection(users, Events(tables[name], reference, "made_at"))
        assert len(rows_of(server, tmp_path, selection)) == 1


def test_a_table_may_have_the_name_of_the_first_part_of_the_query(
    server: PrivateServer, tmp_path: Path
) -> None:
    server.run_sql(
        "CREATE TABLE users (id INT PRIMARY KEY, email VARCHAR(99));"
        "CREATE TABLE ranked_events (id INT PRIMARY KEY, user_id INT, made_at DATETIME);"
        "INSERT INTO users VALUES (1, 'a@example.com');"
        "INSERT INTO ranked_events VALUES (1, 1, UTC_TIMESTAMP()), (2, 1, UTC_TIMESTAMP())",
        DATABASE,
    )
    tables = {table.name: table for table in tables_of(server)}
    reference = Reference("users", (("user_id", "id"),))
    events = Events(tables["ranked_events"], reference, "made_at")
    (row,) = rows_of(server, tmp_path, Selection(Users(tables["users"], "id", "email"), events))
    assert row["event_id"] == 2


def test_the_file_says_that_a_flag_must_be_0_or_1() -> None:
    users = of_types(("id", "int"), ("email", "varchar"), ("rating", "tinyint(1)"))
    text = query_text(Selection(Users(users, "id", "email"), None), "UTC")
    assert "Remove it from one that has other numbers, or its rows are" in text
    assert "invalid: rating\n" in text
