"""Runs under faults, and what must hold after each, whatever the fault.

Owns the sandbox and the database of a table of faults, hurried time, and the checks that the
table's tests and `python -m tools.fault_table` share.
"""

from __future__ import annotations

import io
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from iterable_client import IterableClient
from main import _status
from sandbox.calls import CallRecord
from sandbox.iterable_api import IterableSandbox
from sandbox.mysql_server import MySQLSandbox
from sync.signals import StopSignal
from tests.conftest import SCHEMA, SourceDatabase
from tests.support.faults_and_ends import PEOPLE_COUNT, Case, Effect, When
from tests.support.rows import API_KEY
from tests.support.runs import Runs, counts_of, results_of
from tests.support.users import add_users, check_project, email_of, event_of, profile_of

# Five minutes of patience with 429s take 0.6 s; a call's 2 ms of real time count as one second.
HURRY = 500.0
BATCH_SIZE = 4
_HANG_TIME_OUT_SECONDS = 0.4

Half = tuple[str, str]  # "profile" or "event", e-mail


class HurriedEvent(threading.Event):
    """The event that ends waits, and by which they take a fraction of their time."""

    def wait(self, timeout: float | None = None) -> bool:
        return super().wait(None if timeout is None else timeout / HURRY)


def hurried_clock() -> float:
    """Tell the time by which a client has waited as long as it meant to."""
    return time.monotonic() * HURRY


@dataclass(frozen=True)
class Ended:
    """How a run ended: exit status, results file, and what stood on stderr."""

    status: int
    results: dict[str, Any]
    said: str

    @property
    def counts(self) -> dict[str, int]:
        names = ("successful", "partial_failures", "total_failures", "unchanged", "not_attempted")
        return {name: self.results[name] for name in names if self.results[name]}


@dataclass(frozen=True)
class Line:
    """One case as the table shows it."""

    case: Case
    first: Ended
    next_run: Ended

    def cells(self) -> list[str]:
        counts = ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in self.first.counts.items())
        results, after = self.first.results, self.next_run
        return [
            *(self.case.fault.name, self.case.when.value, self.case.where.value, self.case.mode),
            *(str(self.first.status), counts),
            f"{results['api_calls']} / {results['retries']}",
            f"{after.status}, {after.results['api_calls']} calls",
        ]


class Stage:
    """People in a database, and an Iterable, for one run under faults after another."""

    def __init__(self, source: SourceDatabase, folder: Path, people_count: int) -> None:
        self.source, self.folder = source, folder
        self.numbers = range(1, people_count + 1)
        self.halves = {(half, email_of(n)) for n in self.numbers for half in ("profile", "event")}

    def runs(self, iterable: IterableSandbox, mode: str, **settings: str) -> Runs:
        """Return the runs of a state file of their own, in hurried time."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        settings = {"BULK_BATCH_SIZE": str(BATCH_SIZE), "MAX_ATTEMPTS": "5", **settings}
        runs = Runs.between(folder, self.source, iterable, SYNC_MODE=mode, **settings)
        runs.to_client = partial(IterableClient, clock=hurried_clock)
        return runs

    def check(self, case: Case, iterable: IterableSandbox) -> Line:
        """Run under a case's faults, then without; AssertionError where something is wrong."""
        iterable.reset()
        iterable.set_faults(case.rules())
        runs = self.runs(iterable, case.mode)
        if case.fault.rule["fault"] == "hang":
            times_out = (5.0, _HANG_TIME_OUT_SECONDS)
            runs.to_client = partial(runs.to_client, timeout_seconds=times_out)
            runs.settings["MAX_ATTEMPTS"] = "2"
        first = run_once(runs)
        self.check_end(case, iterable, first)
        next_run = self.check_recovery(runs, iterable, first)
        shutil.rmtree(runs.folder)
        return Line(case, first, next_run)

    def check_end(self, case: Case, iterable: IterableSandbox, ended: Ended) -> None:
        """Check one run against the table, and that it said nothing that is not so."""
        end = case.end()
        assert ended.status == end.status, ended
        if end.counts is not None:
            assert ended.counts == end.counts
        self.check_honesty(iterable, ended)
        fired_count = sum(rule["fired"] for rule in iterable.state()["faults"])
        assert fired_count or case.fault.effect(case.mode) is Effect.NONE
        failed_count = len(self.halves) - len(delivered(ended))
        if case.when is When.SOME and end.status == 3:
            most = fired_count if case.mode == "bulk" else 3
            assert 1 <= failed_count <= most
            assert failed_count == 3 or case.mode == "bulk"
        if case.when is not When.ALWAYS and end.status == 0:
            is_lost = case.fault.effect(case.mode) is not Effect.NONE
            assert ended.results["retries"] == (fired_count if is_lost else 0)

    def check_honesty(
        self, iterable: IterableSandbox, ended: Ended, received_before: int = 0
    ) -> None:
        """Check that what counts as delivered is there, and that every call is counted."""
        assert delivered(ended) <= in_place(iterable, self.numbers)
        assert ended.results["api_calls"] == received_count(iterable) - received_before
        assert iterable.state()["redirects_followed"] == 0
        assert API_KEY not in str(ended.results)
        assert "Traceback" not in ended.said

    def check_recovery(self, runs: Runs, iterable: IterableSandbox, ended: Ended) -> Ended:
        """Check that a run without faults sends what is missing, no more, and the next nothing."""
        iterable.set_faults([])
        sent_before = len(iterable.calls)
        next_run = run_once(runs)
        assert next_run.status == 0, next_run
        sent = [half for call in iterable.calls[sent_before:] for half in halves_of(call)]
        assert sorted(sent) == sorted(self.halves - delivered(ended))
        check_project(iterable.project, self.numbers)
        last = run_once(runs)
        assert (last.status, last.results["api_calls"]) == (0, 0)
        assert last.counts == {"unchanged": len(self.numbers)}
        return next_run


@contextmanager
def stage(people_count: int = PEOPLE_COUNT) -> Iterator[Stage]:
    """Give a stage before an embedded database with these many people."""
    with MySQLSandbox([SCHEMA]) as server, tempfile.TemporaryDirectory() as folder:
        source = SourceDatabase(
            host=server.host,
            port=server.port,
            user=server.user,
            password=server.password,
            database=server.database,
            run_sql=server.run_sql,
        )
        add_users(source.run_sql, range(1, people_count + 1))
        yield Stage(source, Path(folder), people_count)


def run_once(runs: Runs) -> Ended:
    """Run once in this process; a bug of the program is raised."""
    stop = StopSignal()
    stop.event = HurriedEvent()
    report = runs.run(stop)
    counts_of(report)  # they add up
    said = io.StringIO()
    with redirect_stderr(said):
        status = _status(report, stop, quiet=True)
    assert len(said.getvalue().splitlines()) == (0 if status == 0 else 1), said.getvalue()
    return Ended(status, results_of(report), said.getvalue())


def delivered(ended: Ended) -> set[Half]:
    """Return the halves that the results file calls delivered by this run, or by one before."""
    halves = set()
    for record in ended.results["records"]:
        for half, call in (("profile", "users_update"), ("event", "events_track")):
            is_in_place = record["outcome"] in ("successful", "unchanged")
            if is_in_place or (record[call] is not None and record[call]["success"]):
                halves.add((half, record["email"]))
    return halves


def in_place(iterable: IterableSandbox, numbers: range) -> set[Half]:
    """Return the halves that Iterable has, with the right values."""
    users = iterable.project.users
    events = {event.email: event.data_fields for event in iterable.project.events.values()}
    people = {email_of(n): n for n in numbers}
    has_profile = {
        e for e, n in people.items() if e in users and users[e].data_fields == profile_of(n)
    }
    has_event = {e for e, n in people.items() if events.get(e) == event_of(n)}
    return {("profile", e) for e in has_profile} | {("event", e) for e in has_event}


def received_count(iterable: IterableSandbox) -> int:
    """Return how many calls reached the API, those that it reset included."""
    state = iterable.state()
    return int(state["calls"] + state["reset_connections"])


def halves_of(call: CallRecord) -> list[Half]:
    """List what a call, single or bulk, is to deliver."""
    half = "event" if call.endpoint.startswith("events/") else "profile"
    rows = call.body.get("users") or call.body.get("events") or [call.body]
    return [(half, row["email"]) for row in rows]
