"""Tables and columns of the database, from information_schema. No row of a table is read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from db_connection import DatabaseConnection

SYSTEM_DATABASES = ("information_schema", "mysql", "performance_schema", "sys")

INTEGER_TYPES = frozenset(
    ("tinyint", "smallint", "mediumint", "int", "integer", "bigint", "year", "bit")
)
NUMBER_TYPES = INTEGER_TYPES | {"decimal", "numeric", "float", "double"}
SHORT_TEXT_TYPES = frozenset(("char", "varchar", "enum", "set", "uuid"))
TEXT_TYPES = SHORT_TEXT_TYPES | {"tinytext", "text", "mediumtext", "longtext"}
BINARY_TYPES = frozenset(("binary", "varbinary"))
LOCAL_TIME_TYPES = frozenset(("datetime", "date"))  # stored without a time zone
TIME_TYPES = LOCAL_TIME_TYPES | {"timestamp"}

_DATABASES = "SELECT SCHEMA_NAME AS name FROM information_schema.SCHEMATA ORDER BY SCHEMA_NAME"
_TABLES = (
    "SELECT TABLE_NAME AS name, TABLE_TYPE AS kind, TABLE_ROWS AS row_count"
    " FROM information_schema.TABLES WHERE TABLE_SCHEMA = %(database)s"
)
_COLUMNS = (
    "SELECT TABLE_NAME AS table_name, COLUMN_NAME AS name, DATA_TYPE AS type,"
    " COLUMN_TYPE AS full_type, COLUMN_KEY AS key_kind, COLLATION_NAME AS collation"
    " FROM information_schema.COLUMNS"
    " WHERE TABLE_SCHEMA = %(database)s ORDER BY TABLE_NAME, ORDINAL_POSITION"
)
_FOREIGN_KEYS = (
    "SELECT TABLE_NAME AS table_name, CONSTRAINT_NAME AS name, COLUMN_NAME AS from_column,"
    " REFERENCED_TABLE_NAME AS to_table, REFERENCED_COLUMN_NAME AS to_column"
    " FROM information_schema.KEY_COLUMN_USAGE WHERE TABLE_SCHEMA = %(database)s"
    " AND REFERENCED_TABLE_SCHEMA = %(database)s"
    " ORDER BY TABLE_NAME, CONSTRAINT_NAME, ORDINAL_POSITION"
)


class Column(NamedTuple):
    """A column; types are in lower case."""

    name: str
    type: str  # varchar
    full_type: str = ""  # varchar(254)
    is_primary: bool = False  # the primary key, or a part of it
    is_unique: bool = False
    collation: str = ""  # of a text: utf8mb4_general_ci


class Reference(NamedTuple):
    """Columns that lead to a row of another table: a foreign key, or what looks like one."""

    table: str
    pairs: tuple[tuple[str, str], ...]  # (column, column of the other table)

    @property
    def label(self) -> str:
        return ", ".join(column for column, _other in self.pairs)


class Table(NamedTuple):
    """A table or a view."""

    name: str
    columns: tuple[Column, ...]
    foreign_keys: tuple[Reference, ...] = ()
    is_view: bool = False
    row_count: int = 0  # an estimate of the server

    @property
    def primary_key(self) -> tuple[Column, ...]:
        return tuple(column for column in self.columns if column.is_primary)

    def column(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)


class Users(NamedTuple):
    """The table of users, and its columns that were chosen."""

    table: Table
    id: str
    email: str


class Events(NamedTuple):
    """The table of events, and what of it was chosen."""

    table: Table
    reference: Reference  # to the users
    time: str


def read_databases(connection: DatabaseConnection) -> list[str]:
    """Return the databases that the user can see, without those of the server."""
    names = (_text(row["name"]) for row in connection.execute_query(_DATABASES))
    return [name for name in names if name.lower() not in SYSTEM_DATABASES and name.isprintable()]


def read_tables(connection: DatabaseConnection, database: str) -> list[Table]:
    """Return the tables and views that the user can read, by name."""
    about = {"database": database}
    return to_tables(
        connection.execute_query(_TABLES, about),
        connection.execute_query(_COLUMNS, about),
        connection.execute_query(_FOREIGN_KEYS, about),
    )


def to_tables(
    tables: Iterable[Mapping[str, Any]],
    columns: Iterable[Mapping[str, Any]],
    foreign_keys: Iterable[Mapping[str, Any]],
) -> list[Table]:
    """Build the tables from rows of information_schema.

    A name with a control character is left out: it could not be shown, nor stand in a comment.
    Some servers show foreign keys only to users who may do more than SELECT.
    """
    columns_of: dict[str, list[Column]] = defaultdict(list)
    for row in columns:
        column = Column(
            _text(row["name"]),
            _text(row["type"]).lower(),
            _text(row["full_type"]).lower(),
            _text(row["key_kind"]) == "PRI",
            _text(row["key_kind"]) == "UNI",
            _text(row.get("collation") or ""),
        )
        if column.name.isprintable() or column.is_primary:
            columns_of[_text(row["table_name"])].append(column)
    pairs_of: dict[tuple[str, str, str], list[tuple[str, str]]] = defaultdict(list)
    for row in foreign_keys:
        key = (_text(row["table_name"]), _text(row["name"]), _text(row["to_table"]))
        pairs_of[key].append((_text(row["from_column"]), _text(row["to_column"])))
    keys_of: dict[str, list[Reference]] = defaultdict(list)
    for (table, _name, other), pairs in pairs_of.items():
        if {name for name, _other in pairs} <= {*names_of(columns_of[table])}:
            keys_of[table].append(Reference(other, tuple(pairs)))
    return sorted(
        Table(
            name,
            tuple(columns_of[name]),
            tuple(keys_of[name]),
            is_view="VIEW" in _text(row["kind"]),
            row_count=int(row["row_count"] or 0),
        )
        for row in tables
        if (name := _text(row["name"])).isprintable()
        and columns_of[name]
        and "SEQUENCE" not in _text(row["kind"])
    )


def names_of(columns: Sequence[Column]) -> list[str]:
    return [column.name for column in columns]


def _text(value: Any) -> str:
    """Return a text of information_schema, which some servers send as bytes."""
    return bytes(value).decode() if isinstance(value, bytes | bytearray) else str(value)
