"""Results are recorded, and progress is reported, while the delivery runs."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from iterable_api.responses import EVENTS_TRACK, USERS_UPDATE
from records.identity import to_user_key
from records.rows import Finished, PendingRow
from sandbox.iterable_api import IterableSandbox
from state.database import StateError
from state.outbox import Outbox
from sync.dispatcher import CallReport
from tests.support.drains import check_that_nothing_was_lost_or_repeated, drain, outbox_with
from tests.support.rows import outcomes_of, rows

NUMBERS = range(1, 101)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.sqlite3"


class DiskThatIsFullOnce:
    """An outbox whose disk is full when results are recorded for the first time."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self.is_full = True

    def pending(self) -> Iterator[PendingRow]:
        return self._outbox.pending()

    def rows_to_try_first(self) -> Any:
        return self._outbox.rows_to_try_first()

    def events_of(self, seqs: Any) -> list[PendingRow]:
        return self._outbox.events_of(seqs)

    def record(self, finished: Sequence[Finished]) -> None:
        if self.is_full and finished:
            self.is_full = False
            raise StateError("The disk is full.")
        self._outbox.record(finished)


@pytest.mark.slow
def test_results_that_could_not_be_recorded_are_recorded_at_the_end(path: Path) -> None:
    with (
        IterableSandbox(latency_seconds=0.02) as iterable,
        outbox_with(path, rows(*NUMBERS)) as outbox,
    ):
        disk: Any = DiskThatIsFullOnce(outbox)
        with pytest.raises(StateError, match="The disk is full"):
            drain(disk, iterable.url, requests_per_second={USERS_UPDATE: 100, EVENTS_TRACK: 100})
        counts = Counter(outcomes_of(outbox).values())
        assert counts["successful"] == len(iterable.project.events) >= 10
        check_that_nothing_was_lost_or_repeated(outbox, iterable, NUMBERS)


@pytest.mark.slow
def test_results_are_on_disk_within_a_second(path: Path, iterable: IterableSandbox) -> None:
    late: list[str] = []
    looks: list[int] = []

    def look(_calls: Sequence[CallReport], rows_done: int) -> None:
        looks.append(rows_done)
        with sqlite3.connect(path) as second:
            found = second.execute("SELECT user_key FROM delivered WHERE event_at IS NOT NULL")
            recorded = {user_key for (user_key,) in found}
        second.close()
        tracked = [c for c in iterable.calls if c.endpoint == EVENTS_TRACK and c.status == 200]
        due = time.time() - 1.0
        emails = [c.email or "" for c in tracked if c.at < due]
        late.extend(email for email in emails if to_user_key(email) not in recorded)

    with outbox_with(path, rows(*range(1, 131))) as outbox:
        drain(
            outbox,
            iterable.url,
            on_progress=look,
            requests_per_second={USERS_UPDATE: 100, EVENTS_TRACK: 100},
        )
    assert late == []
    assert len(looks) >= 3
    assert looks == sorted(looks)
    assert looks[-1] == 130


def test_every_call_is_reported_to_progress_once(path: Path, iterable: IterableSandbox) -> None:
    reports: list[CallReport] = []
    with outbox_with(path, rows(*NUMBERS)) as outbox:
        drain(outbox, iterable.url, on_progress=lambda calls, _rows_done: reports.extend(calls))
    assert len(reports) == len(iterable.calls) == 200
    assert {len(report.finished) for report in reports} == {1}
