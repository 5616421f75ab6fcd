"""An outbox, a client and the sandbox, connected as in a run, for tests of the delivery."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from iterable_api.responses import EVENTS_TRACK, EVENTS_TRACK_BULK, USERS_BULK_UPDATE, USERS_UPDATE
from iterable_client import IterableClient
from sandbox.calls import CallRecord
from sandbox.iterable_api import IterableSandbox
from state.outbox import Outbox
from sync.bulk import BulkSender
from sync.dispatcher import CallReport, Dispatcher, Sender
from sync.per_user import PerUserSender
from tests.support.rows import API_KEY, Row, fill, outcomes_of, rows, wait_until

# So high that only tests of the rate limiter wait for it.
FAST = {USERS_UPDATE: 2_000, EVENTS_TRACK: 2_000, USERS_BULK_UPDATE: 500, EVENTS_TRACK_BULK: 500}


class FewAtOnce(PerUserSender):
    """A sender with few calls in flight at the end, however slow the machine is."""

    max_in_flight = 5


@contextmanager
def outbox_with(path: Path, found: Sequence[Row]) -> Iterator[Outbox]:
    """Open an outbox and fill it with these rows."""
    outbox = Outbox(path)
    try:
        fill(outbox, found)
        yield outbox
    finally:
        outbox.close()


def drain(
    outbox: Outbox,
    url: str,
    *,
    stop: threading.Event | None = None,
    to_sender: Callable[..., Sender] = PerUserSender,
    event_delay_seconds: float = 0.0,
    on_progress: Callable[[Sequence[CallReport], int], None] = lambda _calls, _rows_done: None,
    batch_size: int | None = None,
    **client_options: Any,
) -> IterableClient:
    """Deliver the pending rows of an outbox, in bulk if a batch size is given."""
    stop = stop or threading.Event()
    usual: dict[str, Any] = {"requests_per_second": FAST, "max_attempts": 1, "connections": 200}
    client = IterableClient(API_KEY, url, stop=stop, **{**usual, **client_options})
    holds_back = event_delay_seconds > 0
    sender: Sender
    if batch_size is None:
        sender = to_sender(client, delays_events=holds_back)
    else:
        sender = BulkSender(client, batch_size=batch_size, delays_events=holds_back)
    try:
        Dispatcher(
            outbox,
            sender,
            stop,
            event_delay_seconds=event_delay_seconds,
            on_progress=on_progress,
        ).run()
    finally:
        client.close()
    return client


def stop_when(holds: Callable[[], object]) -> threading.Event:
    """Return a stop event that is set as soon as a condition holds."""
    stop = threading.Event()

    def watch() -> None:
        wait_until(holds)
        stop.set()

    threading.Thread(target=watch, daemon=True).start()
    return stop


def check_that_nothing_was_lost_or_repeated(
    outbox: Outbox, iterable: IterableSandbox, numbers: Sequence[int]
) -> None:
    """Deliver the rest with another run; then every call must have been made once."""
    iterable.set_faults([])
    fill(outbox, rows(*numbers))
    drain(outbox, iterable.url)
    assert set(outcomes_of(outbox).values()) <= {"successful", "unchanged"}
    assert {user.applied_count for user in iterable.project.users.values()} == {1}
    assert {event.applied_count for event in iterable.project.events.values()} == {1}
    assert len(iterable.project.users) == len(iterable.project.events) == len(numbers)


def calls_by_user(iterable: IterableSandbox) -> dict[str | None, list[CallRecord]]:
    """Return the calls of each user in order of arrival."""
    calls: dict[str | None, list[CallRecord]] = defaultdict(list)
    for call in iterable.calls:
        calls[call.email].append(call)
    return calls


def endpoints_of(calls: Sequence[CallRecord]) -> list[str]:
    return [call.endpoint for call in calls]


def busiest_second(iterable: IterableSandbox, endpoint: str) -> int:
    """Return the most requests that reached an endpoint within any one second."""
    most: int = iterable.state()["endpoints"][endpoint]["max_in_one_second"]
    return most
