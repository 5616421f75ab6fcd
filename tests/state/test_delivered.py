"""The table of delivered users: the choice of users to be read back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from state.database import open_state
from state.delivered import DeliveredTable


@pytest.fixture
def delivered(tmp_path: Path) -> Iterator[DeliveredTable]:
    """Users 1 to 100: an event at 1,000 + their number, and a profile at 50."""
    path = tmp_path / "state.sqlite3"
    with closing(open_state(path)) as database:
        database.executemany(
            "INSERT INTO delivered (user_key, profile_hash, profile_at, event_hash, event_at)"
            " VALUES (?, 1, 50, 1, ?)",
            [(number, 1_000 + number) for number in range(1, 101)],
        )
        yield DeliveredTable(path, database)


def test_recently_delivered_users_are_chosen_first(delivered: DeliveredTable) -> None:
    chosen = delivered.choose_users(10, since=1_096)
    assert {user for user, is_recent in chosen.items() if is_recent} == {96, 97, 98, 99, 100}
    assert len(chosen) == 10
    assert set(delivered.choose_users(5, since=1_096)) == {96, 97, 98, 99, 100}


def test_among_equally_recent_users_the_choice_is_random(delivered: DeliveredTable) -> None:
    chosen = {user for _ in range(30) for user in delivered.choose_users(10, since=0)}
    assert len(chosen) > 50  # of 100; the probability that it is not is below 10 ** -12


def test_a_user_whose_requests_are_in_doubt_is_not_chosen(delivered: DeliveredTable) -> None:
    delivered.doubt_everything()
    assert delivered.choose_users(10, since=0) == {}
