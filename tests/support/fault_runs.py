"""Run the program under faults, and check what must hold after any of them.

Shared by the tests of the fault table and `python -m tools.fault_table`.
"""

from __future__ import annotations

import io
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Set
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from commands.sync import status_of_run
from iterable_client import IterableClient
from main import exit_status_of
from sandbox.calls import CallRecord
from sandbox.iterable_api import IterableSandbox
from sandbox.mysql_server import MySQLSandbox
from sync.signals import StopSignal
from tests.conftest import SCHEMA, SourceDatabase
from tests.support.faults_and_ends import BATCH_SIZE, RETRIED, USER_COUNT, Case, Effect, When
from tests.support.rows import API_KEY
from tests.support.runs import Runs, counts_of, results_of
from tests.support.users import add_users, check_project, email_of, event_of, profile_of

# A wait of five minutes takes 0.15 s.
HURRY = 2_000.0
_HANG_TIME_OUT_SECONDS = 1.0

Request = tuple[str, str]  # "profile" or "event", e-mail


class HurriedTime(threading.Event):
    """The stop event of a run, whose waits take a fraction of their time, and the run's clock.

    A wait moves the clock by its whole length; between waits it runs with real time. If a
    busy machine delays a thread by a second, that is one of the 300 seconds for which a call may
    wait on 429s. (With a clock that ran 500 times as fast it was 500 seconds.)

    With a smaller `hurry` the waits between attempts stay longer than an attempt takes.
    """

    def __init__(self, hurry: float = HURRY) -> None:
        super().__init__()
        self._hurry = hurry
        self._skipped_seconds = 0.0
        self._lock = threading.Lock()

    def clock(self) -> float:
        return time.monotonic() + self._skipped_seconds

    def wait(self, timeout: float | None = None) -> bool:
        if timeout is None:
            return super().wait()
        due_at = self.clock() + timeout
        is_set = super().wait(timeout / self._hurry)
        with self._lock:  # of simultaneous waits the longest counts, not the sum
            self._skipped_seconds = max(self._skipped_seconds, due_at - time.monotonic())
        return is_set


def hurried_stop() -> StopSignal:
    """Return a stop signal with hurried time."""
    stop = StopSignal()
    stop.event = HurriedTime()
    return stop


def hurried_client(*arguments: Any, stop: HurriedTime, **options: Any) -> IterableClient:
    """Return a client that uses the clock of its stop event."""
    return IterableClient(*arguments, stop=stop, clock=stop.clock, **options)


@dataclass(frozen=True)
class Ended:
    """How a run ended: exit status, results file, and standard error."""

    status: int
    results: dict[str, Any]
    stderr: str

    @property
    def counts(self) -> dict[str, int]:
        names = ("successful", "partial_failures", "total_failures", "unchanged", "not_attempted")
        return {name: self.results[name] for name in names if self.results[name]}


@dataclass(frozen=True)
class Line:
    """One case of the table, and how its two runs ended."""

    case: Case
    first: Ended
    next_run: Ended

    def cells(self) -> list[str]:
        """Return the cells of the table that `tools/fault_table.py` prints."""
        counts = ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in self.first.counts.items())
        results, after = self.first.results, self.next_run
        return [
            *(self.case.fault.name, self.case.when.value, self.case.where.value, self.case.mode),
            *(str(self.first.status), counts),
            f"{results['api_calls']} / {results['retries']}",
            f"{after.status}, {after.results['api_calls']} calls",
        ]


class Stage:
    """A database with rows to sync, for one run under faults after another."""

    def __init__(self, source: SourceDatabase, folder: Path, user_count: int) -> None:
        self.source, self.folder = source, folder
        self.numbers = range(1, user_count + 1)
        self.requests = {(kind, email_of(n)) for n in self.numbers for kind in ("profile", "event")}

    def runs(self, iterable: IterableSandbox, mode: str, **settings: str) -> Runs:
        """Return the runs of a new state file, in hurried time."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        settings = {
            "BULK_BATCH_SIZE": str(BATCH_SIZE),
            "MAX_ATTEMPTS": "5",
            "REJECTED_RETRY_HOURS": "0",  # the fault that rejected a request may be over
            **settings,
        }
        runs = Runs.between(folder, self.source, iterable, SYNC_MODE=mode, **settings)
        runs.to_client = hurried_client
        runs.note_mapping()  # faults hit what is sent
        return runs

    def check(self, case: Case, iterable: IterableSandbox) -> Line:
        """Run with the faults of a case and then without; raises AssertionError."""
        iterable.reset()
        iterable.set_faults(case.rules())
        runs = self.runs(iterable, case.mode)
        if case.fault.rule["fault"] == "hang":
            times_out = (5.0, _HANG_TIME_OUT_SECONDS)
            runs.to_client = partial(runs.to_client, timeout_seconds=times_out)
            runs.settings |= {"MAX_ATTEMPTS": "2", "OUTAGE_PATIENCE_SECONDS": "30"}
        first = run_once(runs)
        self.check_end(case, iterable, first)
        next_run = self.check_recovery(runs, iterable, first)
        shutil.rmtree(runs.folder)
        return Line(case, first, next_run)

    def check_end(self, case: Case, iterable: IterableSandbox, ended: Ended) -> None:
        """Check how a run with faults ended, and that its results are true."""
        end = case.end()
        assert ended.status in ((0, 3) if end.status is None else (end.status,)), ended
        if end.counts is not None:
            assert ended.counts == end.counts
        self.check_honesty(iterable, ended)
        fired_count = sum(rule["fired"] for rule in iterable.state()["faults"])
        assert fired_count or case.fault.effect(case.mode) is Effect.NONE
        failed_count = len(self.requests) - len(delivered(ended))
        if case.when is When.SOME and ended.status == 3:
            most = fired_count if case.mode == "bulk" else 3
            assert 1 <= failed_count <= most
            assert failed_count == 3 or case.mode == "bulk"
        if case.when is not When.ALWAYS and end.status == 0:
            is_retried = case.fault.effect(case.mode) in RETRIED
            assert ended.results["retries"] == (fired_count if is_retried else 0)

    def check_honesty(
        self, iterable: IterableSandbox, ended: Ended, received_before: int = 0
    ) -> None:
        """Check that Iterable has all that counts as delivered, and that all calls are counted."""
        assert delivered(ended) <= in_place(iterable, self.numbers)
        assert ended.results["api_calls"] == received_count(iterable) - received_before
        assert iterable.state()["redirects_followed"] == 0
        assert API_KEY not in str(ended.results)
        assert "Traceback" not in ended.stderr

    def check_recovery(self, runs: Runs, iterable: IterableSandbox, ended: Ended) -> Ended:
        """Check that a run without faults sends just what is missing, and the next one nothing."""
        iterable.set_faults([])
        sent_before = len(iterable.calls)
        next_run = run_once(runs)
        assert next_run.status == 0, next_run
        sent = [each for call in iterable.calls[sent_before:] for each in requests_of(call)]
        assert sorted(sent) == sorted(self.requests - remembered(ended))
        check_project(iterable.project, self.numbers)
        last = run_once(runs)
        assert (last.status, last.results["api_calls"]) == (0, 0)
        assert last.counts == {"unchanged": len(self.numbers)}
        return next_run


@contextmanager
def stage(user_count: int = USER_COUNT) -> Iterator[Stage]:
    """Yield a stage whose embedded database has this many users."""
    with MySQLSandbox([SCHEMA]) as server, tempfile.TemporaryDirectory() as folder:
        source = SourceDatabase(
            host=server.host,
            port=server.port,
            user=server.user,
            password=server.password,
            database=server.database,
            run_sql=server.run_sql,
        )
        add_users(source.run_sql, range(1, user_count + 1))
        yield Stage(source, Path(folder), user_count)


def run_once(runs: Runs) -> Ended:
    """Run once in this process; an exception of the program is raised."""
    stop = hurried_stop()
    report = runs.run(stop)
    counts_of(report)  # checks that they add up
    stderr = io.StringIO()
    with redirect_stderr(stderr):
        status = exit_status_of(partial(status_of_run, report, stop))
    assert len(stderr.getvalue().splitlines()) == (0 if status in (0, 3) else 1), stderr.getvalue()
    return Ended(status, results_of(report), stderr.getvalue())


def delivered(ended: Ended) -> set[Request]:
    """Return the requests that the results file calls delivered, by this run or an earlier one."""
    found = set()
    for record in ended.results["records"]:
        for kind, call in (("profile", "users_update"), ("event", "events_track")):
            is_in_place = record["outcome"] in ("successful", "unchanged")
            if is_in_place or (record[call] is not None and record[call]["success"]):
                found.add((kind, record["email"]))
    return found


def remembered(ended: Ended, before: Set[Request] = frozenset()) -> set[Request]:
    """Return the delivered requests that the next run does not send again.

    An event is sent again where its user's profile was never delivered: Iterable may have dropped
    it. `before` is what earlier runs remember.
    """
    known = delivered(ended)
    profiles = known | before
    return {(kind, email) for kind, email in known if ("profile", email) in profiles}


def in_place(iterable: IterableSandbox, numbers: range) -> set[Request]:
    """Return the requests that Iterable has applied with the right values."""
    users = iterable.project.users
    events = {event.email: event.data_fields for event in iterable.project.events.values()}
    number_of = {email_of(n): n for n in numbers}
    has_profile = {
        e for e, n in number_of.items() if e in users and users[e].data_fields == profile_of(n)
    }
    has_event = {e for e, n in number_of.items() if events.get(e) == event_of(n)}
    return {("profile", e) for e in has_profile} | {("event", e) for e in has_event}


def received_count(iterable: IterableSandbox) -> int:
    """Return how many calls reached the API, those with a reset connection included."""
    state = iterable.state()
    return int(state["calls"] + state["reset_connections"])


def requests_of(call: CallRecord) -> list[Request]:
    """List the requests in a call, single or bulk; a GET has none."""
    if call.body is None:
        return []
    kind = "event" if call.endpoint.startswith("events/") else "profile"
    rows = call.body.get("users") or call.body.get("events") or [call.body]
    return [(kind, row["email"]) for row in rows]
