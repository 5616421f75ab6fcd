"""Parameters of queries: the start of the window in a query file, and those of Python callers.

A query file is plain SQL. Only `%(window_start)s`, `%(window_start_utc)s` and
`%(window_start_local)s` have a meaning in it; no other percent sign has one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone, tzinfo
from decimal import Decimal
from typing import Any, NamedTuple

Parameters = Mapping[str, Any] | Sequence[Any]

# A comment, a text or a parameter, whichever comes first. `--` begins a comment only before a
# blank; the server runs what stands in /*! and /*M!.
_TOKEN = re.compile(
    r"""
    (?P<comment> --(?=\s|\Z)[^\n]* | \#[^\n]* | /\*(?!M?!).*?(?:\*/|\Z) )
    | (?P<text> '(?:[^'\\]|\\.|'')*' | "(?:[^"\\]|\\.|"")*" )
    | `[^`]*`
    | %\((?P<name>window_start(?:_utc|_local)?)\)s
    """,
    re.DOTALL | re.VERBOSE,
)
_WINDOW_START = re.compile(r"%\((window_start(?:_utc|_local)?)\)s")
_BY_NAME = re.compile(rb"%%|%\(([^)]+)\)s")
_BY_POSITION = re.compile(rb"%%|%s")


class WindowStart(NamedTuple):
    """The start of the window: in UTC, and as columns in the local time zone store it; naive."""

    utc: datetime
    local: datetime


def to_window_start(start: datetime, zone: tzinfo) -> WindowStart:
    """Return `start` (aware, or naive in `zone`) in UTC and in `zone`.

    When clocks are put back, a local time stands for two moments, and the local times that follow
    a moment can be smaller than its own. Of two possible times the earlier is returned, so that no
    row since `start` is left out; rows of up to one hour before it may then be included.
    """
    if start.tzinfo is None:
        readings = [start.replace(tzinfo=zone, fold=fold) for fold in (0, 1)]
        utc = min(reading.astimezone(timezone.utc) for reading in readings)
        return WindowStart(utc.replace(tzinfo=None), start)
    utc, moment = start.astimezone(timezone.utc), start.astimezone(zone)
    offsets = [moment.replace(fold=fold).utcoffset() for fold in (0, 1)]
    naive = utc.replace(tzinfo=None)
    return WindowStart(naive, min(naive + offset for offset in offsets if offset is not None))


def has_zoneless_window_start(query: str) -> bool:
    """Return whether a query uses `%(window_start)s`, whose time zone depends on the result."""
    return "window_start" in _parameter_names(query)


def has_window_start(query: str) -> bool:
    """Return whether a query uses the start of the window in any form."""
    return any(True for _name in _parameter_names(query))


def insert_window_start(query: str, start: WindowStart, *, in_utc: bool) -> str:
    """Replace the three parameters of a query file by the start of the window.

    `in_utc` decides the time zone of `%(window_start)s`. The time is quoted; inside a text it
    needs no quotes of its own. Comments are left as they are.
    """
    times = {
        "window_start": start.utc if in_utc else start.local,
        "window_start_utc": start.utc,
        "window_start_local": start.local,
    }

    def replace(token: re.Match[str]) -> str:
        if token["name"]:
            return f"'{times[token['name']].isoformat(' ')}'"
        if token["text"]:
            return _WINDOW_START.sub(lambda found: times[found[1]].isoformat(" "), token[0])
        return token[0]

    return _TOKEN.sub(replace, query)


def without_comments_and_texts(query: str) -> str:
    """Return a query with a blank for each comment and each text."""
    return _TOKEN.sub(lambda token: token[0] if token[0].startswith(("`", "%")) else " ", query)


def _parameter_names(query: str) -> Iterator[str]:
    for token in _TOKEN.finditer(query):
        if token["name"]:
            yield token["name"]
        elif token["text"]:
            yield from _WINDOW_START.findall(token["text"])


def insert_parameters(query: str, parameters: Parameters, connection: Any) -> bytes:
    """Replace `%(name)s` (mapping) or `%s` (sequence) by quoted values, and `%%` by `%`.

    Raises KeyError with the name of a missing parameter, ValueError where the number of values is
    not that of `%s`. The connector would leave `%%` as it is.
    """
    if isinstance(parameters, Mapping):
        values = dict(zip(parameters, _quoted(list(parameters.values()), connection), strict=True))

        def named(found: re.Match[bytes]) -> bytes:
            return b"%" if found[1] is None else values[found[1].decode()]

        return _BY_NAME.sub(named, query.encode())
    unused = iter(_quoted(list(parameters), connection))
    needed = sum(found != b"%%" for found in _BY_POSITION.findall(query.encode()))
    if needed != len(parameters):
        raise ValueError(f"{needed} x %s, but {len(parameters)} values")
    return _BY_POSITION.sub(
        lambda found: b"%" if found[0] == b"%%" else next(unused), query.encode()
    )


def _quoted(values: list[Any], connection: Any) -> list[bytes]:
    """Return the values as literals of SQL, by the connector's own rules."""
    converter = connection.converter
    if converter is None:  # the C extension
        return [bytes(literal) for literal in connection.prepare_for_mysql(values)]
    mode = connection.sql_mode
    return [
        str(value).encode()  # a number, which needs no quotes
        if isinstance(value, Decimal)
        else bytes(converter.quote(converter.escape(converter.to_mysql(value), mode)))
        for value in values
    ]
