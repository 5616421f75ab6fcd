"""Rows of the query as tuples, their outcomes in an outbox, and a client whose waits take no time.

Shared by the tests of the outbox, the client and the delivery.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from iterable_client import IterableClient
from records.mapping import RowMapping
from records.outcomes import CallResult, Verdict
from records.rows import Failure, Finished, PendingRow, RequestKind
from reporting.summary import RunTally
from state.outbox import FillSummary, Outbox
from tests.support.golden import SARAH, stored
from tests.support.program_files import PROJECT_FOLDER

API_KEY = "canary-key-0123456789abcdef"
COLUMNS = tuple(SARAH)
VIEWED_AT = stored(2026, 1, 13, 14, 30, 45)
MAPPING = RowMapping(COLUMNS)

Row = tuple[Any, ...]


def email_of(number: int) -> str:
    return f"user{number}@example.com"


def row(number: int, **changes: Any) -> Row:
    """Return user n's row, with these columns changed."""
    values = {"id": number, "email": email_of(number), "first_name": f"Name{number}"}
    return tuple({**SARAH, **values, **changes}.values())


def rows(*numbers: int) -> list[Row]:
    return [row(number) for number in numbers]


def later(seconds: float) -> datetime:
    """Return a time so many seconds after the usual view."""
    return VIEWED_AT + timedelta(seconds=seconds)


def fill(
    outbox: Outbox, found: Sequence[Row], mapping: RowMapping = MAPPING, **options: Any
) -> FillSummary:
    """Fill an outbox as a run does, two rows a chunk."""
    chunks = (found[start : start + 2] for start in range(0, len(found), 2))
    return outbox.fill(chunks, mapping, **options)


def call_result(verdict: Verdict = Verdict.DELIVERED, **changes: Any) -> CallResult:
    """Return the result of a call, by default 200 with the code Success."""
    usual: dict[str, Any] = {"http_status": 200, "code": "Success", "message": "Done"}
    return CallResult(verdict, **{**usual, **changes})


def finished(
    pending: Iterable[PendingRow], kind: RequestKind, verdict: Verdict = Verdict.DELIVERED
) -> list[Finished]:
    """Return results of this verdict for one request of each row, all at the same time."""
    return [Finished(row.seq, kind, call_result(verdict), 1_768_400_000.0) for row in pending]


def deliver_all(outbox: Outbox) -> None:
    """Record every pending request as delivered, as a run does."""
    outbox.begin_delivery()
    pending = list(outbox.pending())
    outbox.record(finished((row for row in pending if row.profile), RequestKind.PROFILE))
    outbox.record(finished((row for row in pending if row.event), RequestKind.EVENT))


def outcomes_of(outbox: Outbox) -> dict[str | None, str]:
    """Return each row's outcome by its e-mail."""
    return {each.email: each.state.outcome.value for each in outbox.settled()}


def failures_of(outbox: Outbox) -> list[Failure]:
    """Return the failures that the summary of a run would list."""
    tally = RunTally()
    tally.add(list(outbox.settled()))
    return tally.failures()


def contents(folder: Path) -> dict[str, bytes]:
    """Return every byte of a folder's files."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def run_python(script: str, *arguments: str | Path) -> int:
    """Run a script against the project's modules in a process of its own; return its status."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, cwd=PROJECT_FOLDER, check=False, timeout=60).returncode


def wait_until(holds: Callable[[], object], patience_seconds: float = 10.0) -> bool:
    """Wait until a condition holds; return False if it does not in time."""
    deadline = time.monotonic() + patience_seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


class PassingTime:
    """A clock for `IterableClient(clock=...)` that only `NoWaiting` moves."""

    def __init__(self) -> None:
        self.now_seconds = 1_000.0

    def __call__(self) -> float:
        return self.now_seconds

    def pass_by(self, seconds: float) -> bool:
        """Wait like an event that is never set: let the time pass at once."""
        self.now_seconds += seconds
        return False


class NoWaiting(threading.Event):
    """A stop event whose waits end at once, are recorded, and move the clock."""

    def __init__(self, clock: PassingTime | None = None) -> None:
        super().__init__()
        self.clock = clock or PassingTime()
        self.waits_seconds: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        if not self.is_set() and timeout is not None:
            self.waits_seconds.append(timeout)
            self.clock.now_seconds += timeout
        return self.is_set()


def unwaiting_client(url: str, **options: Any) -> tuple[IterableClient, NoWaiting]:
    """Return a client whose waits take no time, and the event that recorded them."""
    clock = PassingTime()
    stop = NoWaiting(clock)
    return IterableClient(API_KEY, url, clock=clock, stop=stop, **options), stop
