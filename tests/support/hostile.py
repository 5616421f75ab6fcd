"""Hypothesis strategies for hostile input: texts, cells, rows, field lists, JSON, damaged bytes.

Used by the tests in `tests/properties`, and so by `tools/fuzzing.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import orjson
from hypothesis import settings
from hypothesis import strategies as st

from tests.support.golden import SARAH

# For slow properties: a quarter of the examples of the profile.
FEW = settings(max_examples=max(1, settings().max_examples // 4))

# Lone surrogates, NUL, all kinds of line ends, a right-to-left override, an escape sequence.
SNIPPETS = (
    *("", " ", "\0", "\n", "\r", "\u2028", "\ud800", "\udcff", "\u202e", "\x1b[31m", "\ufeff"),
    *("'", '"', "`", "\\", "%", "$", "{}", "#", "=", ",", ":", ";", "--", "/*", "@", "."),
    *("null", "NaN", "None", "%s", "%(x)s", "../", "~", "~root", "/dev/null", "ß", "İ", "小"),
)
CHARACTERS = st.characters()  # with surrogates, which the default of `text` excludes
TEXTS = st.one_of(
    st.text(CHARACTERS, max_size=12),
    st.text(max_size=12),
    st.lists(st.sampled_from(SNIPPETS) | st.text(CHARACTERS, max_size=4), max_size=8).map("".join),
    st.builds(lambda part, times: part * times, st.text(CHARACTERS, max_size=3), st.just(12_000)),
)

ZONES = st.sampled_from(
    [timezone.utc, *map(ZoneInfo, ("Europe/Berlin", "Pacific/Kiritimati", "America/Lima"))]
)
MOMENTS = st.one_of(
    st.datetimes(),
    st.datetimes(timezones=ZONES),
    st.sampled_from([datetime.min, datetime.max, datetime(1970, 1, 1)]),  # noqa: DTZ001, DTZ901
    st.builds(
        lambda moment, minutes: moment.replace(tzinfo=timezone(timedelta(minutes=minutes))),
        st.sampled_from([datetime.min, datetime.max]),  # noqa: DTZ901
        st.integers(-1439, 1439),
    ),
)
DECIMALS = st.one_of(
    st.decimals().filter(lambda number: not number.is_snan()),  # MySQL has no signalling NaN
    st.builds(
        lambda digits, exponent: Decimal(digits).scaleb(exponent),
        st.integers(-(10**30), 10**30),
        st.integers(-999_000, 999_000),
    ),
    st.sampled_from([Decimal(text) for text in ("NaN", "-Inf", "1E+999999", "-0", "1E-9")]),
)
NUMBERS = st.one_of(
    st.integers(),
    st.integers(-(2**64), 2**65),
    st.floats(),
    st.booleans(),
    st.sampled_from([2**63 - 1, 2**63, 2**64, -(2**63), -(2**63) - 1, 10**80]),
    DECIMALS,
)


def nested(depth: int, opening: str) -> str:
    """Return JSON nested this deep, in arrays (`[`) or objects (`{"a":`)."""
    return opening * depth + "1" + ("]" if opening == "[" else "}") * depth


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=8,
)
OPENINGS = st.sampled_from(["[", '{"a":'])
# `orjson` reads 1,024 levels, and Python's stack is about as deep.
DEPTHS = st.sampled_from([90, 98, 99, 100, 101, 110, 249, 250, 253, 254, 255, 900, 990, 1_023])
DEEP_JSON = st.builds(nested, DEPTHS | st.sampled_from([1_024, 100_000]), OPENINGS)
JSON_TEXTS = st.one_of(
    JSON_VALUES.map(lambda value: orjson.dumps(value).decode()),
    DEEP_JSON,
    st.sampled_from(["NaN", "1e400", '"\\ud800"', '{"a":1,"a":2}', "1" * 400, "[", '"\\u0000"']),
)

# All types that the two drivers of MySQL return, and values of JSON columns.
CELLS = st.one_of(
    st.none(),
    TEXTS,
    JSON_TEXTS,
    NUMBERS,
    MOMENTS,
    st.dates() | st.sampled_from([date.min, date.max]),
    st.timedeltas(),
    st.binary(max_size=40) | st.binary(max_size=40).map(bytearray),
    st.sets(TEXTS, max_size=3),
    JSON_VALUES,
    st.builds(nested, DEPTHS, OPENINGS).map(orjson.loads),
)
LOCAL_PARTS = st.one_of(
    st.text(CHARACTERS, max_size=70),
    st.from_regex(r"[a-z.\"\\ ()+-]{0,70}", fullmatch=True),
    st.sampled_from(["a" * 64, '"' + "\\" * 62 + '"', "." * 60, "a." * 31, "(" * 60, "é" * 32]),
)
DOMAINS = st.one_of(
    st.text(CHARACTERS, max_size=40),
    st.from_regex(r"[a-zA-Z0-9.-]{0,190}", fullmatch=True),
    st.sampled_from(
        ["example.com", "a-" * 90, "a." * 95 + "de", "[127.0.0.1]", "xn--a.de", "ß.de"]
    ),
    st.sampled_from(["\u0300" * 90 + ".com", "ﷺ" * 30 + ".com", "[IPv6:" + ":" * 100 + "]"]),
)
EMAILS = st.one_of(
    st.emails(),
    st.sampled_from(["ann@example.com", " Ann@Example.com ", "ANN@EXAMPLE.COM\n"]),
    st.builds("{}@{}".format, LOCAL_PARTS, DOMAINS),
    st.builds("{}@example.com".format, LOCAL_PARTS),
)
TEXT_TIMES = st.one_of(
    MOMENTS.map(str),
    MOMENTS.map(lambda moment: moment.isoformat() + "Z"),
    st.from_regex(r"[0-9]{4}-?W?[0-9]{2}-?[0-9]{1,2}[T ]?[0-9:.,Z+-]{0,20}", fullmatch=True),
)
COLUMNS = (*SARAH, "extra", "event_id")


def rows_of(columns: Sequence[str]) -> st.SearchStrategy[tuple[Any, ...]]:
    """Return a strategy for rows. Most cells are valid, since one invalid cell hides all others."""
    usual: dict[str, Any] = {**SARAH, "extra": 1, "event_id": "e-1"}
    wild: dict[str, st.SearchStrategy[Any]] = {"email": EMAILS, "event_time": MOMENTS | TEXT_TIMES}
    cells = [
        st.just(usual[column]) | wild.get(column, CELLS) | CELLS if column in usual else CELLS
        for column in columns
    ]
    return st.tuples(*cells)


FIELD_LISTS = st.lists(
    st.builds(
        "{}{}{}".format,
        st.sampled_from(["", "a=", "b =", "name=", "a.b=", "email=", "=", "小="]),
        st.sampled_from([*COLUMNS, "", "absent", "a=b"]),
        st.sampled_from(["", ":bool", ":json", ": bool ", ":int", ":"]),
    ),
    max_size=6,
).map(",".join)


class Mutation:
    """Replaces `removed` bytes by `added` at `place`, a fraction of the length."""

    def __init__(self, place: float, removed: int, added: bytes) -> None:
        self.place, self.removed, self.added = place, removed, added

    def __repr__(self) -> str:
        return f"Mutation({self.place!r}, {self.removed!r}, {self.added!r})"

    def of(self, content: bytes) -> bytes:
        start = int(self.place * len(content))
        return content[:start] + self.added + content[start + self.removed :]


def _overwriting(place: float, added: bytes) -> Mutation:
    return Mutation(place, len(added), added)


MUTATIONS = st.one_of(
    st.builds(_overwriting, st.floats(0, 1), st.binary(min_size=1, max_size=16)),
    st.builds(_overwriting, st.floats(0, 0.02), st.binary(min_size=1, max_size=4)),
    st.builds(Mutation, st.floats(0, 1), st.integers(0, 10_000), st.binary(max_size=200)),
    st.builds(Mutation, st.floats(0, 1), st.just(10**9), st.just(b"")),
)
