"""SQL engine of the sandbox's MySQL server: MySQL statements translated for SQLite, in memory.

sqlglot translates; this module adds column types, relative times and MySQL's error numbers.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

import sqlglot
from sqlglot import expressions as exp

# Declared column types whose stored text is converted; SQLite finds the converter by this name.
_DATETIME = "MYSQL_DATETIME"
_JSON = "MYSQL_JSON"
_SECONDS = {"SECOND": 1, "MINUTE": 60, "HOUR": 3_600, "DAY": 86_400, "WEEK": 604_800}
_UNKNOWN_ERROR = 1105
_ERRNOS = (
    (re.compile(r"no such table: (.*)"), 1146, "Table '{}' doesn't exist"),
    (re.compile(r"no such column: (.*)"), 1054, "Unknown column '{}' in the query"),
    (re.compile(r"ambiguous column name: (.*)"), 1052, "Column '{}' is ambiguous"),
    (re.compile(r"no such function: (.*)"), 1305, "FUNCTION {} does not exist"),
)


class SqlError(Exception):
    """A failed statement; `mysql_errno` is MySQL's number for the error."""

    def __init__(self, message: str, mysql_errno: int) -> None:
        super().__init__(message)
        self.mysql_errno = mysql_errno


class JsonText(str):
    """Text of a value in a JSON column."""

    __slots__ = ()


class SqlEngine:
    """In-memory database for one thread. Times are UTC, as in the program's sessions."""

    def __init__(self) -> None:
        sqlite3.register_converter(_DATETIME, _to_datetime)
        sqlite3.register_converter(_JSON, lambda stored: JsonText(stored, "utf-8"))
        self._connection = sqlite3.connect(
            ":memory:", isolation_level=None, detect_types=sqlite3.PARSE_DECLTYPES
        )
        self._connection.execute("PRAGMA foreign_keys = ON")

    def close(self) -> None:
        """Close the database; its content is lost."""
        self._connection.close()

    def run_script(self, script: str) -> None:
        """Run statements in MySQL's dialect; SET is ignored."""
        for statement in sqlglot.parse(script, dialect="mysql"):
            if statement is not None and not isinstance(statement, exp.Set):
                self.run(statement)

    def execute(self, query: str) -> list[tuple[Any, ...]]:
        """Run one query in MySQL's dialect and return its rows."""
        return self.run(sqlglot.parse_one(query, dialect="mysql"))[0]

    def insert(self, table: str, rows: Sequence[Sequence[Any]]) -> None:
        """Add rows; their values are in the order of the table's columns."""
        name = exp.to_identifier(table, quoted=True).sql(dialect="sqlite")
        for row in rows:
            marks = ", ".join("?" * len(row))
            stored = [_to_text(value) for value in row]
            self._connection.execute(f"INSERT INTO {name} VALUES ({marks})", stored)  # noqa: S608

    def run(self, statement: Any) -> tuple[list[tuple[Any, ...]], list[str]]:
        """Run one parsed statement; return its rows and column names. Raises `SqlError`."""
        try:
            cursor = self._connection.execute(_to_sqlite(statement))
            names = [column[0] for column in cursor.description or ()]
            return cursor.fetchall(), names
        except sqlite3.Error as error:
            raise _to_sql_error(error) from error


def _to_sqlite(statement: Any) -> str:
    if isinstance(statement, exp.Create) and statement.kind == "TABLE":
        return _create_table(statement)
    prefix = ""
    if isinstance(statement, exp.Describe):
        prefix, statement = "EXPLAIN QUERY PLAN ", statement.this
    text: str = statement.transform(_without_intervals).sql(dialect="sqlite")
    return prefix + text


def _create_table(statement: Any) -> str:
    """Return the statement with columns, keys and references, without engine and indexes."""
    parts: list[str] = []
    for part in statement.this.expressions:
        if isinstance(part, exp.ColumnDef):
            parts.append(_column(part))
        elif isinstance(part, exp.PrimaryKey):
            parts.append(part.sql(dialect="sqlite"))
        elif isinstance(part, exp.Constraint | exp.ForeignKey):
            keys = part.find_all(exp.ForeignKey)
            parts.extend(key.sql(dialect="sqlite") for key in keys)
    return f'CREATE TABLE "{statement.this.this.name}" ({", ".join(parts)})'


def _column(column: Any) -> str:
    kinds = {type(constraint.kind): constraint.kind for constraint in column.constraints}
    collate = kinds.get(exp.CollateColumnConstraint)
    not_null = kinds.get(exp.NotNullColumnConstraint)
    default = kinds.get(exp.DefaultColumnConstraint)
    # MySQL's default collations ignore case.
    is_case_sensitive = collate is not None and collate.this.name.endswith(("_bin", "_cs"))
    words = [f'"{column.name}"', _column_type(column)]
    words += ["COLLATE", "BINARY" if is_case_sensitive else "NOCASE"]
    if exp.PrimaryKeyColumnConstraint in kinds:
        words.append("PRIMARY KEY")
    if not_null is not None and not not_null.args.get("allow_null"):
        words.append("NOT NULL")
    if default is not None:
        words.append(f"DEFAULT {default.this.sql(dialect='sqlite')}")
    return " ".join(words)


def _column_type(column: Any) -> str:
    kind = column.kind
    if kind.is_type(*exp.DataType.INTEGER_TYPES, *exp.DataType.REAL_TYPES):
        # SQLite increments a primary key by itself only if its type is spelled INTEGER.
        return "INTEGER" if kind.is_type(*exp.DataType.INTEGER_TYPES) else "REAL"
    if kind.is_type(exp.DataType.Type.JSON):
        return _JSON
    return _DATETIME if kind.is_type(*exp.DataType.TEMPORAL_TYPES) else "TEXT"


def _without_intervals(node: Any) -> Any:
    at = _to_fixed_time(node) if isinstance(node, exp.Sub | exp.Add) else None
    return node if at is None else exp.Literal.string(_to_text(at))


def _to_fixed_time(node: Any) -> datetime | None:
    """Evaluate e.g. `CURRENT_TIMESTAMP - INTERVAL 3 HOUR`; None for any other expression."""
    if isinstance(node, exp.CurrentTimestamp):
        return datetime.now(timezone.utc).replace(tzinfo=None)
    if isinstance(node, exp.Literal) and node.is_string:
        try:
            return datetime.fromisoformat(node.name)
        except ValueError:
            return None
    if not isinstance(node, exp.Sub | exp.Add) or not isinstance(node.expression, exp.Interval):
        return None
    start, unit = _to_fixed_time(node.this), node.expression.text("unit").upper()
    if start is None or unit not in _SECONDS:
        return None
    step = timedelta(seconds=int(node.expression.name) * _SECONDS[unit])
    return start - step if isinstance(node, exp.Sub) else start + step


def _to_text(value: Any) -> Any:
    return f"{value:%Y-%m-%d %H:%M:%S}" if isinstance(value, datetime) else value


def _to_datetime(stored: bytes) -> datetime:
    return datetime.fromisoformat(stored.decode("ascii"))


def _to_sql_error(error: sqlite3.Error) -> SqlError:
    for pattern, errno, text in _ERRNOS:
        found = pattern.match(str(error))
        if found:
            return SqlError(text.format(found.group(1)), errno)
    return SqlError(str(error), 1064 if "syntax error" in str(error) else _UNKNOWN_ERROR)
