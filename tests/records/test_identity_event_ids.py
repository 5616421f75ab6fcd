"""Event ids: the same in every release, different for different views, in Iterable's alphabet."""

from __future__ import annotations

import re

import pytest

from records.identity import to_event_id
from tests.support.golden import SARAHS_EVENT_ID


def test_event_ids_are_the_same_in_every_release() -> None:
    assert to_event_id(1, "2026-01-13 14:30:45", "pricing") == SARAHS_EVENT_ID
    hashed = to_event_id(1, "2026-01-13 14:30:45", "pricing", "a b")
    assert hashed == "page-view-3f9ffc4809d3525dda89f1a8667d20b2"


def test_event_ids_differ_in_user_time_and_page() -> None:
    ids = {
        to_event_id(user_id, moment, page)
        for user_id in (1, 12, "1", None)
        for moment in ("2026-01-13 14:30:45", "2026-01-13 14:30:46")
        for page in ("pricing", "settings", "2026", None)
    }
    assert len(ids) == 4 * 2 * 4


@pytest.mark.parametrize("event_id", ["a_b", "a b", "ü", "", "x" * 52, "a\n", b"\x00\xff", 1.5])
def test_a_column_event_id_with_other_characters_is_hashed(event_id: object) -> None:
    named = to_event_id(1, "2026-01-13 14:30:45", "pricing", event_id)
    assert re.fullmatch(r"page-view-[0-9a-f]{32}", named)
    assert named != SARAHS_EVENT_ID


def test_hashed_event_ids_differ() -> None:
    ids = {to_event_id(1, "", None, event_id) for event_id in ("a b", "a  b", "a_b", 1.5, "x" * 52)}
    assert len(ids) == 5
