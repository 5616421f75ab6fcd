"""The text of the query file: one row for each user, with the latest event of the window."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from commands.init.schema import (
    BINARY_TYPES,
    LOCAL_TIME_TYPES,
    Column,
    Events,
    Table,
    Users,
    names_of,
)
from commands.init.selection import Selection, SentColumn
from logger_config import redact

_HEADING = "-- The users who are sent to Iterable: a query to begin with, from main.py --init."
_UNSENT_NAMES = 20  # named in a comment


def quoted(name: str) -> str:
    """Return a name as SQL, in backticks: it may be a reserved word or have any character."""
    return "`" + name.replace("`", "``") + "`"


def query_text(selection: Selection, time_zone: str) -> str:
    """Return the query file. `time_zone` is that of the stored times without one."""
    if selection.events is None:
        lines = [*_profile_comment(selection), "", *_profile_query(selection)]
    else:
        lines = [
            *_event_comment(selection, selection.events, time_zone),
            "",
            *_event_query(selection, selection.events),
        ]
    return "\n".join(lines) + "\n"


def _profile_comment(selection: Selection) -> Iterator[str]:
    yield _HEADING
    yield "--"
    yield f"-- Returns one row for each row of {_in_comment(selection.users.table.name)}."
    yield "--"
    yield "-- TO CHANGE"
    yield "--   * The users:   to send only some of them, write a WHERE before ORDER BY."
    yield "--   * The fields:  add a column to the SELECT, and its name to USER_FIELDS in .env. The"
    yield "--                  columns id and email are always needed."
    yield from _last_comments(selection)


def _event_comment(selection: Selection, events: Events, time_zone: str) -> Iterator[str]:
    users, table = _in_comment(selection.users.table.name), events.table
    time = table.column(events.time)
    yield _HEADING
    yield "--"
    yield "-- Returns one row for each user, with the latest event since the start of the window."
    yield f"-- Users are the rows of {users}, events those of {_in_comment(table.name)}."
    yield "--"
    yield "-- TO CHANGE"
    yield "--   * The users:   to send only some of them, write AND users.COLUMN = '...' before the"
    yield "--                  last line."
    yield "--   * The events:  to use only some of them, write AND events.COLUMN IN ('...') at the"
    yield "--                  end of the first part."
    yield "--   * The window:  ENGAGEMENT_WINDOW_DAYS in .env. %(window_start)s is the start of the"
    yield "--                  run minus that many days."
    if time.type in LOCAL_TIME_TYPES:
        yield f"--   * Time zone:   {_in_comment(time.name)} is a {time.type.upper()}, which has no"
        yield "--                  time zone. It is taken for a time in DB_TIMEZONE, which .env"
        yield f"--                  sets to {time_zone}."
    yield "--   * The fields:  add a column to the last SELECT, and its name to USER_FIELDS or"
    yield "--                  EVENT_FIELDS in .env. The columns id, email and event_time are"
    yield "--                  always needed."
    yield from _last_comments(selection)
    yield "--"
    yield "-- LARGE TABLES need an index of the events that begins with the time, or with the"
    yield "-- column of a condition and then the time. main.py --check says if none is used."


def _last_comments(selection: Selection) -> Iterator[str]:
    yield "--   * Every other percent sign is plain SQL: write it as in a MySQL client."
    yield "--   * Keep it one SELECT. The session is read only."
    flags = [each.alias for each in selection.user_columns if each.cast == "bool"]
    if flags:
        yield "--   * True/false:  in .env, :bool sends these columns of 0 and 1 as true and false."
        yield "--                  Remove it from one that has other numbers, or its rows are"
        yield f"--                  invalid: {', '.join(flags[:_UNSENT_NAMES])}"
    users = selection.users
    sent = {users.id, users.email, *(each.name for each in selection.user_columns)}
    unsent = [name for name in names_of(users.table.columns) if name not in sent]
    if unsent:
        more = ", ..." if len(unsent) > _UNSENT_NAMES else ""
        names = ", ".join(map(_in_comment, unsent[:_UNSENT_NAMES]))
        yield "--"
        yield f"-- Not selected, because of name, type or number: {names}{more}"


def _in_comment(name: str) -> str:
    """Return a name on one line: after a line break a comment would go on as SQL."""
    return redact(name, secrets=False)


def _profile_query(selection: Selection) -> Iterator[str]:
    yield "SELECT"
    yield from _separated(_user_columns(selection.users, selection.user_columns))
    yield f"FROM {quoted(selection.users.table.name)} AS users"
    yield f"ORDER BY users.{quoted(selection.users.id)}"


def _name_of_first_part(selection: Selection, events: Events) -> str:
    """Return a name for the first part of the query that neither table has."""
    name = "ranked_events"
    while name in (selection.users.table.name.lower(), events.table.name.lower()):
        name = f"latest_{name}"
    return name


def _event_query(selection: Selection, events: Events) -> Iterator[str]:
    ranked_events = _name_of_first_part(selection, events)
    keys = events.table.primary_key
    time = f"events.{quoted(events.time)}"
    references = [f"events.{quoted(name)}" for name, _other in events.reference.pairs]
    # Without a primary key the first part has to return all that is needed.
    needed = _needed_of_events(events, selection.event_columns)
    # Of events at one time always the same one is the latest.
    others = names_of(keys) if keys else [name for name in needed if name != events.time]
    order = ", ".join([f"{time} DESC", *(f"events.{quoted(name)} DESC" for name in others)])
    ranked = [
        f"events.{quoted(name)} AS key_{number}"
        for number, name in enumerate(names_of(keys) if keys else needed, 1)
    ]
    yield f"WITH {ranked_events} AS ("
    yield "    SELECT"
    yield from (f"        {column}," for column in ranked)
    yield "        ROW_NUMBER() OVER ("
    yield f"            PARTITION BY {', '.join(references)}"
    yield f"            ORDER BY {order}"
    yield "        ) AS recency"
    yield f"    FROM {quoted(events.table.name)} AS events"
    yield f"    WHERE {time} >= %(window_start)s"
    yield ")"
    yield "SELECT"
    if keys:
        source = {name: f"events.{quoted(name)}" for name in names_of(events.table.columns)}
    else:
        source = {name: f"{ranked_events}.key_{number}" for number, name in enumerate(needed, 1)}
    columns = [*_user_columns(selection.users, selection.user_columns)]
    if keys:
        columns.append(f"{_event_id(events.table)} AS event_id")
    columns += [f"{source[each.name]} AS {quoted(each.alias)}" for each in selection.event_columns]
    columns.append(f"{source[events.time]} AS event_time")
    yield from _separated(columns)
    yield f"FROM {ranked_events}"
    if keys:
        joins = [
            f"events.{quoted(key.name)} = {ranked_events}.key_{number}"
            for number, key in enumerate(keys, 1)
        ]
        yield f"JOIN {quoted(events.table.name)} AS events ON {' AND '.join(joins)}"
    matches = [
        f"users.{quoted(other)} = {_comparable(source[name], events.table.column(name), users)}"
        for name, other in events.reference.pairs
        for users in [selection.users.table.column(other)]
    ]
    yield f"JOIN {quoted(selection.users.table.name)} AS users ON {' AND '.join(matches)}"
    yield f"WHERE {ranked_events}.recency = 1"
    yield f"ORDER BY users.{quoted(selection.users.id)}"


def _comparable(expression: str, column: Column, other: Column) -> str:
    """Return the expression of a column in the collation of the other one.

    Texts of two collations cannot be compared; the other column keeps its index.
    """
    ours, theirs = column.collation, other.collation
    if not ours or not theirs or ours == theirs or not re.fullmatch(r"\w+", theirs, re.ASCII):
        return expression
    characters = theirs.partition("_")[0]
    if ours.partition("_")[0] != characters:
        expression = f"CONVERT({expression} USING {characters})"
    return f"{expression} COLLATE {theirs}"


def _needed_of_events(events: Events, sent: Sequence[SentColumn]) -> list[str]:
    names = [name for name, _other in events.reference.pairs]
    names += [events.time, *(each.name for each in sent)]
    return list(dict.fromkeys(names))


def _user_columns(users: Users, sent: Sequence[SentColumn]) -> Iterator[str]:
    table = users.table
    yield f"{_as_text('users', table.column(users.id), is_hex=True)} AS id"
    yield f"{_as_text('users', table.column(users.email), is_hex=False)} AS email"
    for each in sent:
        yield f"users.{quoted(each.name)} AS {quoted(each.alias)}"


def _event_id(table: Table) -> str:
    keys = [_as_text("events", key, is_hex=True) for key in table.primary_key]
    return keys[0] if len(keys) == 1 else f"CONCAT_WS('-', {', '.join(keys)})"


def _as_text(table: str, column: Column, *, is_hex: bool) -> str:
    """Return a column as SQL; bytes, which cannot be sent, become text."""
    name = f"{table}.{quoted(column.name)}"
    if column.type not in BINARY_TYPES:
        return name
    return f"HEX({name})" if is_hex else f"CONVERT({name} USING utf8mb4)"


def _separated(columns: Iterator[str] | Sequence[str]) -> Iterator[str]:
    listed = list(columns)
    yield from (f"    {column}," for column in listed[:-1])
    yield f"    {listed[-1]}"
