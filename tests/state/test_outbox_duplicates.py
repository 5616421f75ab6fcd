"""Several rows with one user key: the latest event is sent, the others are duplicates."""

from __future__ import annotations

import pytest

from config.fields import parse_fields
from records.mapping import RowMapping
from state.outbox import Outbox
from tests.support.rows import COLUMNS, deliver_all, fill, later, row


def test_of_rows_with_one_user_key_the_latest_event_wins(outbox: Outbox) -> None:
    same = {"email": "same@example.com"}
    found = [
        row(1, **same, event_time=later(5)),
        row(2, **same, event_time=later(9)),
        row(3, **same, event_time=later(7)),
        row(4),
    ]
    assert fill(outbox, found).to_send == 2
    assert [waiting.user_id for waiting in outbox.pending()] == [2, 4]
    settled = {each.user_id: each for each in outbox.settled()}
    assert [each.state.outcome.value for each in settled.values()] == [
        *("duplicate", "not_attempted", "duplicate", "not_attempted")
    ]
    assert settled[1].reason == "the same e-mail as user 2, whose row is used instead"


def test_the_latest_event_is_found_per_user_key(outbox: Outbox) -> None:
    found = [
        *(row(1, email="ann@example.com"), row(2, email="bob@example.com")),
        *(row(3, email="ann@example.com", event_time=later(1)), row(4, email="bob@example.com")),
        row(5, email="bob@example.com", event_time=later(-1)),
    ]
    found[1] = row(2, email="bob@example.com", event_time=later(2))
    assert fill(outbox, found).to_send == 2
    assert [waiting.user_id for waiting in outbox.pending()] == [2, 3]
    assert [each.reason for each in outbox.settled()] == [
        "the same e-mail as user 3, whose row is used instead",
        *(None, None),
        *(2 * ["the same e-mail as user 2, whose row is used instead"]),
    ]


@pytest.mark.parametrize("other", ["SAME@Example.com", "  same@example.com ", "same@example.com"])
def test_emails_are_compared_trimmed_and_without_case(outbox: Outbox, other: str) -> None:
    found = [row(1, email="same@example.com"), row(2, email=other, event_time=later(1))]
    fill(outbox, found)
    assert [waiting.user_id for waiting in outbox.pending()] == [2]


@pytest.mark.parametrize("changes", [{"first_name": "Ann"}, {"page": "settings"}])
def test_of_events_at_the_same_time_the_winner_changed_with_the_order_of_the_rows(
    outbox: Outbox, changes: dict[str, str]
) -> None:
    same = {"email": "same@example.com"}
    found = [row(1, **same, first_name="Bo"), row(2, **same, **changes), row(3, **same)]
    fill(outbox, found)
    (winner,) = outbox.pending()
    deliver_all(outbox)
    for order in ((0, 2, 1), (1, 0, 2), (2, 1, 0), (2, 0, 1)):
        assert fill(outbox, [found[place] for place in order]).to_send == 0
        outcomes = {each.user_id: each.state.outcome.value for each in outbox.settled()}
        assert outcomes[winner.user_id] == "unchanged"


def test_of_rows_that_differ_in_the_id_alone_the_lowest_wins(outbox: Outbox) -> None:
    found = [row(n, email="same@example.com", first_name="Ann") for n in (8, 3, 5)]
    fill(outbox, found)
    assert [waiting.user_id for waiting in outbox.pending()] == [3]


@pytest.mark.parametrize("pages", [("pricing", "settings"), ("a", "b"), ("x", "pricing")])
def test_changed_settings_made_another_row_of_equal_time_win(
    outbox: Outbox, pages: tuple[str, str]
) -> None:
    found = [row(1, page=page, last_name=page) for page in pages]
    fill(outbox, found)
    deliver_all(outbox)
    for fields in ("first_name", "last_name,city=location", "plan_type"):
        mapping = RowMapping(COLUMNS, user_fields=parse_fields(fields, frozenset()))
        fill(outbox, found, mapping)
        assert [waiting.event for waiting in outbox.pending()] == [None]


def test_an_invalid_row_makes_no_other_row_a_duplicate(outbox: Outbox) -> None:
    broken = row(2, email="same@example.com", event_time=later(9), last_name=b"\xff")
    fill(outbox, [row(1, email="same@example.com"), broken])
    assert [waiting.user_id for waiting in outbox.pending()] == [1]
    assert [each.state.outcome.value for each in outbox.settled()] == ["not_attempted", "invalid"]


def test_a_duplicate_of_an_unchanged_row_is_a_duplicate(outbox: Outbox) -> None:
    newest = row(1, email="same@example.com", event_time=later(9))
    fill(outbox, [newest])
    deliver_all(outbox)
    assert fill(outbox, [row(2, email="same@example.com"), newest]).to_send == 0
    assert [each.state.outcome.value for each in outbox.settled()] == ["duplicate", "unchanged"]


def test_a_duplicate_of_a_row_without_an_id_has_a_reason(outbox: Outbox) -> None:
    winner = row(1, email="same@example.com", id=None, event_time=later(1))
    fill(outbox, [winner, row(2, email="same@example.com")])
    _winner, loser = outbox.settled()
    assert loser.reason == "the same e-mail as user ?, whose row is used instead"
