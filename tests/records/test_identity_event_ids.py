"""Event ids: the same in every release, unique in the project, in Iterable's alphabet."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta
from decimal import Decimal

import pytest

from records.identity import to_event_id, to_named_event_id, to_stable_text
from tests.support.golden import SARAHS_EVENT_ID, event_of, reason_of, sarah, stored

SARAHS_EMAIL = "sarah.johnson@email.com"


def test_event_ids_are_the_same_in_every_release() -> None:
    assert to_event_id(SARAHS_EMAIL, "2026-01-13 14:30:45", "pricing") == SARAHS_EVENT_ID
    assert to_named_event_id("a b") == "page-view-3f9ffc4809d3525dda89f1a8667d20b2"


def test_event_ids_differ_in_user_time_and_page() -> None:
    ids = {
        to_event_id(email, moment, page)
        for email in (
            "ann@example.com",
            "bob@example.com",
            "straße@example.de",
            "strasse@example.de",
        )
        for moment in ("2026-01-13 14:30:45", "2026-01-13 14:30:46")
        for page in ("pricing", "settings", "2026", None)
    }
    assert len(ids) == 4 * 2 * 4


@pytest.mark.parametrize("user_id", [2, None, "A-7"])
def test_two_people_with_one_user_id_or_none_shared_an_event_id(user_id: object) -> None:
    one = event_of(sarah(id=user_id))["id"]
    other = event_of(sarah(id=user_id, email="s.johnson@office.com"))["id"]
    assert one == SARAHS_EVENT_ID != other


@pytest.mark.parametrize("user_id", ["1", b"1", Decimal(1), 1.0])
def test_the_event_id_changed_with_the_type_of_the_user_id(user_id: object) -> None:
    assert event_of(sarah(id=user_id))["id"] == SARAHS_EVENT_ID


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, "1"),
        (Decimal("1.50"), "1.50"),
        (True, "1"),
        (5.0, "5"),
        (0.5, "0.5"),
        ({"b", "a"}, "a,b"),
        (date(2026, 1, 13), "2026-01-13"),
        (timedelta(hours=25, milliseconds=250), "25:00:00.25"),
        (bytearray(b"\x00\xab"), "00AB"),
        ({"b": 1, "a": 2}, {"a": 2, "b": 1}),
    ],
)
def test_the_event_id_does_not_depend_on_the_python_form_of_the_page(
    one: object, other: object
) -> None:
    assert to_stable_text(one) == to_stable_text(other)
    ids = {event_of(sarah(page=page), event_fields=())["id"] for page in (one, other)}
    assert len(ids) == 1


@pytest.mark.parametrize("email", [" Sarah.Johnson@Email.COM", "SARAH.JOHNSON@EMAIL.COM"])
def test_the_event_id_does_not_depend_on_the_case_of_the_email(email: str) -> None:
    assert event_of(sarah(email=email))["id"] == SARAHS_EVENT_ID


@pytest.mark.parametrize(
    "moment",
    [
        "2026-01-13 14:30:45.000",
        "2026-01-13T14:30:45Z",
        "2026-01-13 16:30:45.0+02:00",
        "2026-01-13T09:30:45 -0500",
        stored(2026, 1, 13, 14, 30, 45),
        datetime.fromisoformat("2026-01-13T15:30:45+01:00"),
    ],
)
def test_one_moment_in_different_forms_has_one_event_id(moment: object) -> None:
    assert event_of(sarah(event_time=moment))["id"] == SARAHS_EVENT_ID


# The column event_id


@pytest.mark.parametrize("event_id", ["a_b", "a b", "ü", "x" * 52, "a\n", 1.5])
def test_a_column_event_id_with_other_characters_is_hashed(event_id: object) -> None:
    named = event_of(sarah(event_id=event_id))["id"]
    assert re.fullmatch(r"page-view-[0-9a-f]{32}", named)
    assert named != SARAHS_EVENT_ID


def test_hashed_event_ids_differ() -> None:
    assert len({to_named_event_id(text) for text in ("a b", "a  b", "a_b", "1.5", "x" * 52)}) == 5


@pytest.mark.parametrize("event_id", [None, "", "  "])
def test_an_empty_event_id_makes_its_row_invalid(event_id: object) -> None:
    assert reason_of(sarah(event_id=event_id)) == "the event_id is empty"


def test_a_binary_event_id_is_written_as_hex() -> None:
    assert event_of(sarah(event_id=b"\x00\xff"))["id"] == "page-view-id-00FF"
