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

    Without a file of confirmations, and for runs before the newest 100,000 events, there are none.
    """
    ended = [run for run in runs if run.finished_at is not None]
    if not confirmations.exist or not ended:
        return {}
    windows = {run.run_id: (_seconds(run.started_at), _seconds(run.finished_at)) for run in ended}
    events = outbox.delivered.newest_events(
        min(start for start, _end in windows.values()), _MAX_EVENTS
    )
    oldest_at = events[-1][0] + 1 if len(events) == _MAX_EVENTS else 0
    confirmed = confirmations.confirmed(event_id for _at, event_id in events)
    found: dict[str, Confirmed] = {}
    for run_id, (start, end) in windows.items():
        ids = [event_id for at, event_id in events if start <= at <= end + 1]
        if ids and start >= oldest_at:
            found[run_id] = Confirmed(len(confirmed.intersection(ids)), len(ids))
    return found


def _seconds(moment: str | None) -> int:
    return int(datetime.fromisoformat(moment or "").timestamp())
