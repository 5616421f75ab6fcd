"""The types of result columns: the numbers of MySQL's protocol (MYSQL_TYPE_...) and their values.

Source: "Column Types" in the MySQL Internals documentation. MariaDB sends the same numbers, but
has no JSON type: its JSON columns are text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mysql.connector import FieldType

JSON = FieldType.JSON
TIMESTAMP = FieldType.TIMESTAMP

_INTEGERS = (
    *(FieldType.TINY, FieldType.SHORT, FieldType.INT24, FieldType.LONG, FieldType.LONGLONG),
    *(FieldType.YEAR, FieldType.BIT),
)
_DATES = (FieldType.DATE, FieldType.NEWDATE, FieldType.DATETIME, FieldType.TIMESTAMP)
_TEXTS = (
    *(FieldType.STRING, FieldType.VARCHAR, FieldType.VAR_STRING, FieldType.ENUM, FieldType.SET),
    # The TEXT types. BLOB types have the same numbers.
    *(FieldType.TINY_BLOB, FieldType.BLOB, FieldType.MEDIUM_BLOB, FieldType.LONG_BLOB),
    FieldType.TIME,  # is sent as text
)

# "decimal" values may or may not be whole numbers. JSON columns, and columns whose values cannot be
# sent as JSON, are left out.
VALUE_TYPES: Mapping[int, str] = {
    **dict.fromkeys(_INTEGERS, "integer"),
    **dict.fromkeys((FieldType.FLOAT, FieldType.DOUBLE), "double"),
    **dict.fromkeys((FieldType.DECIMAL, FieldType.NEWDECIMAL), "decimal"),
    **dict.fromkeys(_DATES, "date"),
    **dict.fromkeys(_TEXTS, "text"),
}

# How SQL names the types. The protocol has the same numbers for CHAR, ENUM and SET, and for TEXT
# and BLOB.
SQL_NAMES: Mapping[int, str] = {
    FieldType.TINY: "TINYINT",
    FieldType.SHORT: "SMALLINT",
    FieldType.INT24: "MEDIUMINT",
    FieldType.LONG: "INT",
    FieldType.LONGLONG: "BIGINT",
    FieldType.YEAR: "YEAR",
    FieldType.BIT: "BIT",
    FieldType.FLOAT: "FLOAT",
    FieldType.DOUBLE: "DOUBLE",
    **dict.fromkeys((FieldType.DECIMAL, FieldType.NEWDECIMAL), "DECIMAL"),
    **dict.fromkeys((FieldType.DATE, FieldType.NEWDATE), "DATE"),
    FieldType.DATETIME: "DATETIME",
    FieldType.TIMESTAMP: "TIMESTAMP",
    FieldType.TIME: "TIME",
    FieldType.STRING: "CHAR",
    **dict.fromkeys((FieldType.VARCHAR, FieldType.VAR_STRING), "VARCHAR"),
    FieldType.ENUM: "ENUM",
    FieldType.SET: "SET",
    **dict.fromkeys(
        (FieldType.TINY_BLOB, FieldType.BLOB, FieldType.MEDIUM_BLOB, FieldType.LONG_BLOB), "TEXT"
    ),
    FieldType.JSON: "JSON",
}


def event_time_is_utc(columns: Sequence[str], type_codes: Sequence[int]) -> bool | None:
    """Return whether a result's event time is in UTC rather than in `DB_TIMEZONE`.

    True for a TIMESTAMP (sessions use UTC) and for `event_time_utc`, False for other dates, None
    for a text and if there is no event time.
    """
    types = {name.lower(): code for name, code in zip(columns, type_codes, strict=True)}
    if "event_time" not in types:
        return True if "event_time_utc" in types else None
    type_code = types["event_time"]
    return type_code == TIMESTAMP if type_code in _DATES else None
