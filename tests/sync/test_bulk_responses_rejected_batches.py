"""The results of rows whose whole batch was rejected."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from records.outcomes import CallResult
from records.rows import PendingRow, RequestKind
from tests.support.batch_results import REJECTED, again, batch, codes, read, refused_whole
from tests.support.fake_bulk_client import row


@pytest.mark.parametrize(
    ("status", "code"),
    [(413, "BatchTooLarge"), (400, "RequestFieldsTypesMismatched"), (400, "GenericError")],
)
def test_a_rejected_batch_that_names_no_row_is_split_in_two(status: int, code: str) -> None:
    reading = read(batch(5), refused_whole(code, status=status))
    assert codes(reading) == {}
    assert again(reading) == [[0, 1], [2, 3, 4]]


def test_a_row_sent_alone_is_rejected_with_the_reason_of_the_response() -> None:
    call = refused_whole("BatchTooLarge", {"a": 1}, 413)
    assert read(batch(1), call).settled[0] == call


def test_rows_that_bad_json_body_names_are_rejected_and_the_others_sent_again() -> None:
    params = {
        "obj.users[1].preferUserId": "Boolean value expected",
        "obj.users[1].email": "String value expected",
        "obj.users[3].dataFields": "Object expected",
    }
    reading = read(batch(5), refused_whole("BadJsonBody", params))
    assert codes(reading) == {1: (REJECTED, "BadJsonBody"), 3: (REJECTED, "BadJsonBody")}
    assert again(reading) == [[0, 2, 4]]
    assert reading.settled[1].params == {"obj.users[1].preferUserId": "Boolean value expected"}


def test_events_are_named_by_the_events_key() -> None:
    params = {"obj.events[0].createdAt": "Number expected"}
    reading = read(batch(2), refused_whole("BadJsonBody", params), RequestKind.EVENT)
    assert codes(reading) == {0: (REJECTED, "BadJsonBody")}


def test_nothing_is_sent_again_when_every_row_is_named() -> None:
    params = {f"obj.users[{n}].email": "String value expected" for n in range(2)}
    assert again(read(batch(2), refused_whole("BadJsonBody", params))) == []


@pytest.mark.parametrize(
    "params",
    [
        {"obj.users[4].email": "x"},
        {"obj.users[-1].email": "x"},
        {"obj.users[].email": "x"},
        {"obj.users[" + "9" * 5_000 + "].email": "x"},
        {"obj.superusers[0].email": "x"},
        {"obj": "x"},
        {},
        [],
        "users[0]",
        None,
    ],
)
def test_a_batch_is_split_when_the_named_places_fit_no_row(params: Any) -> None:
    assert again(read(batch(4), refused_whole("BadJsonBody", params))) == [[0, 1], [2, 3]]


def mistyped(**offending: Any) -> CallResult:
    errors = {
        name: {"expectedType": "date", "offendingValue": value, "category": "user"}
        for name, value in offending.items()
    }
    return refused_whole("RequestFieldsTypesMismatched", {"validationErrors": errors})


def holding(*values: str) -> list[PendingRow]:
    return [row(seq, fields=f'{{"since": {value}}}') for seq, value in enumerate(values)]


def test_rows_with_the_offending_value_are_sent_apart_from_the_others() -> None:
    rows = holding('"2026-01-01"', '"GGG"', "null", '"GGG"')
    reading = read(rows, mistyped(since="GGG"))
    assert codes(reading) == {}
    assert again(reading) == [[0, 2], [1, 3]]


@pytest.mark.parametrize(
    ("values", "offending"),
    [
        (("1", "1"), 1),  # every row holds it
        (("1", "2"), 3),  # none does
        (("true", "false"), 1),  # a number is no truth value
        (("1", "2"), 1.0),
        (('"a"', '"b"'), None),
    ],
)
def test_a_batch_is_split_when_all_or_no_rows_have_the_offending_value(
    values: tuple[str, ...], offending: Any
) -> None:
    assert again(read(holding(*values), mistyped(since=offending))) == [[0], [1]]


@pytest.mark.parametrize(
    "errors",
    [None, [], "x", {}, {"since": None}, {"since": {}}, {"other": {"offendingValue": "a"}}],
)
def test_unreadable_validation_errors_split_the_batch(errors: Any) -> None:
    call = refused_whole("RequestFieldsTypesMismatched", {"validationErrors": errors})
    assert again(read(holding('"a"', '"b"'), call)) == [[0], [1]]


# Any response

JUNK = st.none() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2)
PARAMS = st.dictionaries(
    st.sampled_from(["obj.users[0].a", "obj.events[2].a", "validationErrors", "x"]),
    JUNK
    | st.dictionaries(st.just("since"), JUNK | st.fixed_dictionaries({"offendingValue": JUNK})),
)


@given(st.integers(1, 6), PARAMS | JUNK, st.sampled_from(RequestKind))
def test_no_rejection_of_a_batch_raises_an_exception(
    count: int, params: Any, kind: RequestKind
) -> None:
    reading = read(batch(count), refused_whole("BadJsonBody", params), kind)
    assert not [result for result in reading.settled.values() if result.delivered]
