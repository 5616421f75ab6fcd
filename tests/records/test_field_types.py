"""Which types of values a field of Iterable certainly refuses."""

from __future__ import annotations

from typing import Any

import pytest

from records.field_types import refuses, types_of

VALUES: dict[str, Any] = {
    "text": "pro",
    "date text": "2026-01-13 14:30:45 +00:00",
    "integer": 5,
    "number": 5.25,
    "boolean": True,
    "object": {"a": 1},
}


@pytest.mark.parametrize(
    ("iterable_type", "refused"),
    [
        ("string", {"boolean", "object"}),
        ("long", {"text", "date text", "boolean", "object"}),
        ("double", {"text", "date text", "boolean", "object"}),
        ("boolean", {"text", "date text", "integer", "number", "object"}),
        ("date", {"text", "boolean", "object"}),
        ("object", {"boolean"}),
        ("nested", {"boolean"}),
        ("geo_location", {"boolean"}),
        ("a type of next year", set()),
    ],
)
def test_a_field_certainly_refuses(iterable_type: str, refused: set[str]) -> None:
    found = {
        name
        for name, value in VALUES.items()
        if any(refuses(iterable_type, kind) for field, kind in types_of("x", value) if field == "x")
    }
    assert found == refused


@pytest.mark.parametrize(
    ("text", "is_date"),
    [
        ("2026-01-13", True),
        ("2026-01-13 14:30:45", True),
        ("2026-01-13 14:30:45 +00:00", True),
        ("2026-01-13T14:30:45.000Z", True),
        ("2026-01-13T14:30:45", False),
        ("13.01.2026", False),
        ("soon", False),
    ],
)
def test_a_date_field_refuses_a_text_that_is_no_date(text: str, is_date: bool) -> None:
    ((_field, kind),) = types_of("x", text)
    assert refuses("date", kind) is not is_date


@pytest.mark.parametrize(
    ("value", "types"),
    [
        (None, []),
        ([], []),
        ([1, "a"], [("x", "long"), ("x", "string")]),
        ({"size": "L"}, [("x", "object"), ("x.size", "string")]),
        ([{"n": [1]}], [("x", "object"), ("x.n", "long")]),
    ],
)
def test_lists_count_by_their_elements_and_objects_by_their_members(
    value: Any, types: list[tuple[str, str]]
) -> None:
    assert list(types_of("x", value)) == types
