"""How many of the events that runs have delivered Iterable's webhooks have confirmed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from state.confirmations import Confirmations
from state.history import PastRun
from state.outbox import Outbox

_MAX_EVENTS = 100_000  # the newest ones; more would take seconds


class Confirmed(NamedTuple):
    """Confirmed events of a run, and all of them that no later run has delivered again."""

    confirmed_count: int
    event_count: int

    def __str__(self) -> str:
        return f"confirmed {self.confirmed_count:,} of {self.event_count:,} events"


def confirmed_events(
    runs: Sequence[PastRun], outbox: Outbox, confirmations: Confirmations
) -> dict[str, Confirmed]:
    """Return the counts of those runs that have delivered events, by run id.

    The runs are the newest first. The times of events are whole seconds: an event from the second
    in which one run ended and the next began counts for the newer one. Without a file of
    confirmations, and for runs before the newest 100,000 events, there are no counts.
    """
    windows = [
        _Window(run.run_id, _seconds(run.started_at), _seconds(run.finished_at))
        for run in runs
        if run.finished_at is not None
    ]
    if not confirmations.exist or not windows:
        return {}
    events = outbox.delivered.newest_events(min(each.start for each in windows), _MAX_EVENTS)
    oldest_at = events[-1][0] + 1 if len(events) == _MAX_EVENTS else 0
    confirmed_at = confirmations.confirmed_at(
        each for _at, *event_ids in events for each in event_ids if each is not None
    )
    counted = {each.run_id: [0, 0] for each in windows if each.start >= oldest_at}
    for at, *event_ids in events:
        run_id = next((each.run_id for each in windows if each.start <= at <= each.end), None)
        if run_id in counted:
            counted[run_id][0] += any(each in confirmed_at for each in event_ids)
            counted[run_id][1] += 1
    return {run_id: Confirmed(*counts) for run_id, counts in counted.items() if counts[1]}


class _Window(NamedTuple):
    """When a run began and ended, in unix seconds."""

    run_id: str
    start: int
    end: int


def _seconds(moment: str | None) -> int:
    return int(datetime.fromisoformat(moment or "").timestamp())
