"""What counts as the same value, and how an event is found among those that Iterable shows."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands.verify.compare import NotThere, event_differences, is_same, profile_differences

EVENT = {
    "email": "a@example.com",
    "eventName": "page_view",
    "id": "page-view-1",
    "createdAt": 1768314645,
    "dataFields": {"page": "pricing", "timestamp": "2026-01-13 14:30:45"},
}
SENT = orjson.dumps(EVENT)
SHOWN = {
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
def test_texts_that_are_no_times_are_the_same_only_letter_by_letter(one: str, other: str) -> None:
    assert is_same(f"x{one}", f"x{other}") is (one == other)


@pytest.mark.parametrize(
    ("sent", "shown"),
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
def test_iterables_own_forms_are_the_same(sent: Any, shown: Any) -> None:
    assert is_same(sent, shown)


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        *((True, 1), (1, True), (False, None), (False, 0), ("5", 5), ("", None), ("a", "A")),
        *(([1, 2], [2, 1]), ([1], [1, 1]), ({"a": 1}, {"a": 1, "b": 2}), ("a", "a ")),
        ("2026-01-13 14:30:45", "2026-01-13 14:30:46 +00:00"),
        ("2026-01-13 14:30:45", "2026-01-13 14:30:45 +01:00"),
        ("20260113", "2026-01-13"),
        ("2026-13-13", "2026-13-13 00:00:00"),
    ],
)
def test_other_values_are_not(sent: Any, shown: Any) -> None:
    assert not is_same(sent, shown)


def test_a_field_sent_as_null_has_to_be_absent() -> None:
    sent = b'{"email":"a@example.com","dataFields":{"x":null}}'
    assert profile_differences(sent, {"user": {"dataFields": {}}}) == []
    assert profile_differences(sent, {"user": {"dataFields": {"x": 1}}}) == [
        "x was sent as null and is 1"
    ]


@pytest.mark.parametrize("answer", [{}, {"user": None}, {"user": []}, [], None, "x"])
def test_an_answer_without_the_person_is_a_missing_profile(answer: Any) -> None:
    with pytest.raises(NotThere):
        profile_differences(b'{"email":"a@example.com","dataFields":{}}', answer)


@pytest.mark.parametrize("fields", [None, [], "x", 5])
def test_a_person_without_fields_has_none_of_them(fields: Any) -> None:
    sent = b'{"email":"a@example.com","dataFields":{"x":1}}'
    assert profile_differences(sent, {"user": {"dataFields": fields}}) == [
        "x was sent as 1 and is absent"
    ]


def test_long_values_are_shown_in_part() -> None:
    sent = orjson.dumps({"email": "a@example.com", "dataFields": {"x": "y" * 1_000}})
    (described,) = profile_differences(sent, {"user": {"dataFields": {"x": "z"}}})
    assert len(described) < 150


@pytest.mark.parametrize(
    "shown",
    [
        {**SHOWN, "id": "page-view-1"},
        {**SHOWN, "_id": "page-view-1", "createdAt": 1768314645000},
        {**SHOWN, "createdAt": 1768314645},
        {**SHOWN, "_id": "an id of Iterable's own"},
        {**SHOWN["dataFields"], **{k: v for k, v in SHOWN.items() if k != "dataFields"}},  # type: ignore[dict-item]
    ],
)
def test_an_event_is_found_in_each_form_that_iterable_has(shown: Any) -> None:
    others = [{"eventName": "purchase", "createdAt": 1768314645}, {"eventType": "emailSend"}, "x"]
    assert event_differences(SENT, {"events": [*others, shown]}) == []


def test_an_event_is_looked_for_by_its_id_where_there_are_any() -> None:
    other = {**SHOWN, "id": "page-view-2"}
    with pytest.raises(NotThere, match="is not in Iterable"):
        event_differences(SENT, {"events": [other]})
    changed = {**SHOWN, "id": "page-view-1", "dataFields": {"page": "home"}}
    assert event_differences(SENT, {"events": [other, changed]}) == [
        'page was sent as "pricing" and is "home"',
        'timestamp was sent as "2026-01-13 14:30:45" and is absent',
    ]


def test_of_events_of_the_same_second_the_likest_is_compared() -> None:
    other = {**SHOWN, "dataFields": {"page": "home"}}
    assert event_differences(SENT, {"events": [other, SHOWN, other]}) == []


@pytest.mark.parametrize("answer", [{}, {"events": None}, {"events": []}, {"events": [1]}, None])
def test_an_answer_without_events_is_a_missing_event(answer: Any) -> None:
    with pytest.raises(NotThere):
        event_differences(SENT, answer)


@given(VALUES)
def test_no_answer_breaks_the_reading(answer: Any) -> None:
    for read in (event_differences, profile_differences):
        try:
            found = read(SENT, {"events": [answer, {**SHOWN, "createdAt": answer}], "user": answer})
        except NotThere:
            continue
        assert all(isinstance(described, str) for described in found)
