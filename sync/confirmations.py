"""How many of the events that a run has delivered Iterable's webhooks have confirmed."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from state.confirmations import Confirmations
from state.history import PastRun
from state.outbox import Outbox


class Confirmed(NamedTuple):
    """Confirmed events of a run, and all of them that no later run has delivered again."""

    confirmed_count: int
    event_count: int

    def __str__(self) -> str:
        return f"confirmed {self.confirmed_count:,} of {self.event_count:,} events"


def confirmed_events(
    run: PastRun, outbox: Outbox, confirmations: Confirmations
) -> Confirmed | None:
    """Return the counts of a run; None if it has delivered no events, or nothing ever confirmed."""
    if not confirmations.exist or run.finished_at is None:
        return None
    times = (datetime.fromisoformat(at).timestamp() for at in (run.started_at, run.finished_at))
    event_ids = outbox.delivered.event_ids_between(*times)
    if not event_ids:
        return None
    return Confirmed(len(confirmations.confirmed(event_ids)), len(event_ids))
