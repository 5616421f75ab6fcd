"""Which values count as the same, and which of Iterable's events is ours."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iterable_api.comparison import MissingError, event_differences, is_same, profile_differences

EVENT = {
    "email": "a@example.com",
    "eventName": "page_view",
    "id": "page-view-1",
    "createdAt": 1768314645,
    "dataFields": {"page": "pricing", "timestamp": "2026-01-13 14:30:45"},
}
SENT = orjson.dumps(EVENT)
FOUND = {
    "eventName": "page_view",
    "email": "a@example.com",
    "createdAt": "2026-01-13 14:30:45 +00:00",
    "dataFields": {"page": "pricing", "timestamp": "2026-01-13 14:30:45 +00:00"},
}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(VALUES)
def test_a_value_is_the_same_as_itself(value: Any) -> None:
    assert is_same(value, value)


@given(st.text(), st.text())
def test_texts_that_are_no_times_must_be_equal(one: str, other: str) -> None:
    assert is_same(f"x{one}", f"x{other}") is (one == other)


@pytest.mark.parametrize(
    ("sent", "found"),
    [
        (5, 5.0),
        (None, None),
        ("2026-01-13 14:30:45", "2026-01-13 14:30:45 +00:00"),
        ("2026-01-13", "2026-01-13 00:00:00 +00:00"),
        ("2026-01-13 14:30:45 +00:00", "2026-01-13T14:30:45.000Z"),
        ("2026-01-13 14:30:45", "2026-01-13 06:30:45 -08:00"),
        ({"a": None, "b": 1}, {"b": 1}),
    ],
)
def test_a_value_in_iterables_format_is_the_same(sent: Any, found: Any) -> None:
    assert is_same(sent, found)


@pytest.mark.parametrize(
    ("sent", "found"),
    [
        *((True, 1), (1, True), (False, None), (False, 0), ("5", 5), ("", None), ("a", "A")),
        *(([1, 2], [2, 1]), ([1], [1, 1]), ({"a": 1}, {"a": 1, "b": 2}), ("a", "a ")),
        ("2026-01-13 14:30:45", "2026-01-13 14:30:46 +00:00"),
        ("2026-01-13 14:30:45", "2026-01-13 14:30:45 +01:00"),
        ("20260113", "2026-01-13"),
        ("2026-13-13", "2026-13-13 00:00:00"),
    ],
)
def test_different_values_are_not_the_same(sent: Any, found: Any) -> None:
    assert not is_same(sent, found)


def test_a_field_sent_as_null_must_be_absent() -> None:
    sent = b'{"email":"a@example.com","dataFields":{"x":null}}'
    assert profile_differences(sent, {"user": {"dataFields": {}}}) == []
    assert profile_differences(sent, {"user": {"dataFields": {"x": 1}}}) == [
        "x was sent as null and is 1"
    ]


@pytest.mark.parametrize("response", [{}, {"user": None}, {"user": []}, [], None, "x"])
def test_a_response_without_a_user_is_a_missing_profile(response: Any) -> None:
    with pytest.raises(MissingError):
        profile_differences(b'{"email":"a@example.com","dataFields":{}}', response)


@pytest.mark.parametrize("fields", [None, [], "x", 5])
def test_a_user_without_fields_lacks_each_field(fields: Any) -> None:
    sent = b'{"email":"a@example.com","dataFields":{"x":1}}'
    assert profile_differences(sent, {"user": {"dataFields": fields}}) == [
        "x was sent as 1 and is absent"
    ]


def test_long_values_are_cut() -> None:
    sent = orjson.dumps({"email": "a@example.com", "dataFields": {"x": "y" * 1_000}})
    (difference,) = profile_differences(sent, {"user": {"dataFields": {"x": "z"}}})
    assert len(difference) < 150


@pytest.mark.parametrize(
    "found",
    [
        {**FOUND, "id": "page-view-1"},
        {**FOUND, "_id": "page-view-1", "createdAt": 1768314645000},
        {**FOUND, "createdAt": 1768314645},
        {**FOUND, "_id": "an id of Iterable's own"},
        {**FOUND["dataFields"], **{k: v for k, v in FOUND.items() if k != "dataFields"}},  # type: ignore[dict-item]
    ],
)
def test_an_event_is_found_in_each_format_of_iterable(found: Any) -> None:
    others = [{"eventName": "purchase", "createdAt": 1768314645}, {"eventType": "emailSend"}, "x"]
    assert event_differences(SENT, {"events": [*others, found]}) == []


def test_an_event_is_identified_by_its_id_where_iterable_returns_ids() -> None:
    other = {**FOUND, "id": "page-view-2"}
    with pytest.raises(MissingError, match="is not in Iterable"):
        event_differences(SENT, {"events": [other]})
    changed = {**FOUND, "id": "page-view-1", "dataFields": {"page": "home"}}
    assert event_differences(SENT, {"events": [other, changed]}) == [
        'page was sent as "pricing" and is "home"',
        'timestamp was sent as "2026-01-13 14:30:45" and is absent',
    ]


def test_of_events_in_the_same_second_the_most_similar_is_compared() -> None:
    other = {**FOUND, "dataFields": {"page": "home"}}
    assert event_differences(SENT, {"events": [other, FOUND, other]}) == []


@pytest.mark.parametrize("response", [{}, {"events": None}, {"events": []}, {"events": [1]}, None])
def test_a_response_without_events_is_a_missing_event(response: Any) -> None:
    with pytest.raises(MissingError):
        event_differences(SENT, response)


@given(VALUES)
def test_any_response_is_compared_or_missing(response: Any) -> None:
    for read in (event_differences, profile_differences):
        try:
            found = read(
                SENT, {"events": [response, {**FOUND, "createdAt": response}], "user": response}
            )
        except MissingError:
            continue
        assert all(isinstance(difference, str) for difference in found)
