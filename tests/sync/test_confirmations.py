"""How many events of each run are confirmed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path

import pytest

from records.webhooks import Webhook, to_event_hash
from state.confirmations import Confirmations, ConfirmationsFile, Received
from state.history import PastRun
from state.outbox import Outbox
from sync.confirmations import Confirmed, confirmed_events

NOW = 1_768_400_000


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    made = Outbox(tmp_path / "state.sqlite3")
    yield made
    made.close()


def run(run_id: str, start: int, end: int) -> PastRun:
    started_at, finished_at = (
        datetime.fromtimestamp(NOW + each, timezone.utc).isoformat() for each in (start, end)
    )
    return PastRun(run_id, "bulk", started_at, finished_at, "completed", None, {})


def deliver(folder: Path, events: Sequence[tuple[int, str, str | None]]) -> None:
    """Note events as delivered: seconds after NOW, event id, former event id."""
    with closing(sqlite3.connect(folder / "state.sqlite3")) as database, database:
        database.executemany(
            "INSERT INTO delivered (event_at, event_id, former_event_id) VALUES (?, ?, ?)",
            [(NOW + at, *event_ids) for at, *event_ids in events],
        )


def confirm(folder: Path, *event_ids: str) -> Confirmations:
    file = ConfirmationsFile(folder / "confirmations.sqlite3")
    hashes = tuple(map(to_event_hash, event_ids))
    file.add([Received(Webhook(1, "page_view", hashes), NOW)])
    file.close()
    return Confirmations(folder / "confirmations.sqlite3")


def test_runs_that_followed_each_other_at_once_shared_their_events(
    outbox: Outbox, tmp_path: Path
) -> None:
    deliver(tmp_path, [(0, "a", None), (1, "b", None), (2, "c", None), (3, "d", None)])
    confirmations = confirm(tmp_path, "a", "b", "c")
    adjacent = [run("new", 2, 3), run("old", 0, 1)]
    assert confirmed_events(adjacent, outbox, confirmations) == {
        "new": Confirmed(1, 2),
        "old": Confirmed(2, 2),
    }
    # Whole seconds do not tell which of them has delivered it: it counts once.
    overlapping = [run("new", 1, 3), run("old", 0, 1)]
    assert confirmed_events(overlapping, outbox, confirmations) == {
        "new": Confirmed(2, 3),
        "old": Confirmed(1, 1),
    }


def test_a_confirmed_event_was_no_longer_one_when_its_user_was_moved(
    outbox: Outbox, tmp_path: Path
) -> None:
    deliver(tmp_path, [(0, "under-the-new-address", "former")])
    confirmations = confirm(tmp_path, "former")
    found = confirmed_events([run("run", 0, 1)], outbox, confirmations)
    assert found == {"run": Confirmed(1, 1)}
