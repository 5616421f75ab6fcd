"""The dispatcher starts units a little ahead: few wait for their first attempt."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import pytest

from iterable_api.rate_limiter import RateLimiter
from iterable_api.responses import EVENTS_TRACK, USERS_UPDATE
from records.rows import RequestKind, Rows
from sandbox.iterable_api import IterableSandbox
from sync.dispatcher import Dispatcher, Report, Started
from sync.per_user import PerUserSender
from tests.support.drains import (
    check_that_nothing_was_lost_or_repeated,
    drain,
    outbox_with,
    stop_when,
)
from tests.support.rows import outcomes_of, rows, wait_until
from tests.support.senders import RowsInMemory, ScriptedSender, delivered

# An exception that ends a thread unnoticed fails the test.
pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")

NUMBERS = range(1, 41)
RATES = pytest.mark.parametrize(("rate", "most"), [(0.5, 3), (5, 3), (100, 12), (500, 52)])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.sqlite3"


class HeldUnits:
    """Units that wait for a permit and then for a response; the first one waits for neither."""

    def __init__(self, rate: float, row_count: int = 200) -> None:
        self.begun: list[Rows] = []
        self.outbox = RowsInMemory(row_count)
        self.permits = threading.Semaphore(0)
        self.responses = threading.Event()
        sender = ScriptedSender(self._send, max_in_flight=row_count)
        sender.client.rate_limiters[USERS_UPDATE] = RateLimiter(rate)
        delivery = Dispatcher(self.outbox, sender, threading.Event())
        self._thread = threading.Thread(target=delivery.run)
        self._thread.start()

    def settle_at(self, count: int) -> bool:
        """Return whether so many units begin, and no more."""
        return wait_until(lambda: len(self.begun) == count) and not wait_until(
            lambda: len(self.begun) > count, 0.05
        )

    def finish(self) -> None:
        """Let all units go on, and wait for the end of the delivery."""
        self.responses.set()
        self.permits.release(10_000)
        self._thread.join(30)
        assert not self._thread.is_alive()

    def _send(self, unit: Rows, report: Report) -> None:
        if unit[0].seq:
            self.begun.append(unit)
            self.permits.acquire()
            assert report(Started(RequestKind.PROFILE, unit, 1))
            self.responses.wait()
        delivered(unit, report)


@RATES
def test_two_more_units_wait_for_their_first_attempt_than_start_in_a_tenth_of_a_second(
    rate: float, most: int
) -> None:
    units = HeldUnits(rate)
    try:
        assert units.settle_at(most)
    finally:
        units.finish()
    assert sorted(call.seq for call in units.outbox.recorded) == list(range(200))


@RATES
def test_a_unit_makes_room_for_the_next_one_with_its_first_attempt(rate: float, most: int) -> None:
    units = HeldUnits(rate)
    try:
        for attempts in range(4):
            assert units.settle_at(most + attempts)
            units.permits.release()
    finally:
        units.finish()
    assert sorted(call.seq for call in units.outbox.recorded) == list(range(200))


def test_a_stop_leaves_the_rows_that_wait_for_their_first_attempt_unattempted(
    path: Path, iterable: IterableSandbox
) -> None:
    """Progress counted them as done."""
    begun: list[Rows] = []
    counts: list[int] = []

    class Noting(PerUserSender):
        def send(self, unit: Rows, report: Report) -> None:
            begun.append(unit)
            super().send(unit, report)

    with outbox_with(path, rows(*NUMBERS)) as outbox:
        client = drain(
            outbox,
            iterable.url,
            stop=stop_when(lambda: len(begun) == 8 and len(iterable.calls) == 2),
            to_sender=Noting,
            on_progress=lambda _calls, rows_done: counts.append(rows_done),
            requests_per_second={USERS_UPDATE: 50},
            clock=lambda: 1_000.0,  # stands still: after the first permit there is no second one
        )
        assert Counter(outcomes_of(outbox).values()) == {"successful": 1, "not_attempted": 39}
        assert (len(begun), counts[-1]) == (8, 1)
        assert (client.call_count, client.retry_count) == (2, 0)
        assert [call.endpoint for call in iterable.calls] == [USERS_UPDATE, EVENTS_TRACK]
        check_that_nothing_was_lost_or_repeated(outbox, iterable, NUMBERS)
