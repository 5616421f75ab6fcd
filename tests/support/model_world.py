"""The world around the program in the model-based test: rows, Iterable projects, the state file.

Everything but the database is real: each run is a process that talks over sockets to a sandbox, and
it is really killed, stopped or started twice.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from sandbox.calls import CallRecord
from sandbox.iterable_api import IterableSandbox
from tests.support.contract_model import (
    Body,
    Config,
    Flags,
    Kind,
    Observed,
    Post,
    ProjectKey,
    Row,
    Stored,
    check,
)
from tests.support.row_server import RowServer
from tests.support.run_server import ForkedRun, RunServer

FORGOTTEN = frozenset({"gone@example.com"})  # users whom Iterable rejects
IN_MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None  # a commit takes no time there
_COLUMNS = (
    *("id", "email", "first_name", "last_name", "plan_type", "candidate"),
    *("page", "device", "location"),
)
_STATE_SUFFIXES = ("", "-wal", "-shm")
_KINDS = {
    "users/update": (Kind.PROFILE, None),
    "users/bulkUpdate": (Kind.PROFILE, "users"),
    "events/track": (Kind.EVENT, None),
    "events/trackBulk": (Kind.EVENT, "events"),
}


@dataclass(frozen=True)
class Target:
    """The address and the key of the settings; `project` is whose data they lead to."""

    project: str
    sandbox: int
    api_key: str


TARGETS = (
    Target("ours", 0, "1" * 32),
    Target("ours", 0, "2" * 32),  # a new key of the same project
    Target("other", 0, "3" * 32),  # a key of another project of this data centre
    Target("elsewhere", 1, "4" * 32),
)


@dataclass(frozen=True)
class Incident:
    """What happens to a run at its `at_call`-th call, counted from 1.

    A call is `applied` or not when the run is killed during it. With `slow_start` the first call
    takes so long that its result is recorded before the others are made.
    """

    what: str  # "kill", "stop", or "stop hanging": the call takes longer than a stopped run waits
    at_call: int  # 0: at `after_seconds`
    applied: bool = True
    slow_start: bool = False
    after_seconds: float = 0.0


@dataclass
class _Contents:
    """Users and events of a project that is not loaded in its sandbox."""

    users: dict[str, Any] = field(default_factory=dict)
    events: dict[str, Any] = field(default_factory=dict)
    lost_events: set[str] = field(default_factory=set)


class World:
    """The servers, made once, and a folder and empty projects for each example."""

    def __init__(self, rows: RowServer, runs: RunServer, sandboxes: Sequence[IterableSandbox]):
        self._rows, self._runs, self._sandboxes = rows, runs, sandboxes
        self.run_count = 0
        self.folder = Path()
        self.begin()

    def begin(self) -> None:
        """Start again with empty projects and without a state file."""
        self.end()
        self.folder = Path(tempfile.mkdtemp(dir=IN_MEMORY))
        (self.folder / "empty.env").touch()
        (self.folder / "query.sql").write_text("SELECT * FROM people")
        (self.folder / "link.sqlite3").symlink_to("state.sqlite3")
        self._contents = {target.project: _Contents() for target in TARGETS}
        self._loaded: dict[int, str] = {}

    def end(self) -> None:
        if self.folder != Path():
            shutil.rmtree(self.folder)
            self.folder = Path()

    # Runs

    def run(
        self,
        rows: Sequence[Row],
        config: Config,
        target: Target,
        flags: Flags,
        *,
        faults: Sequence[Mapping[str, Any]] = (),
        incident: Incident | None = None,
        state_name: str = "state.sqlite3",
        second_run: SecondRun | None = None,
    ) -> Observed:
        """Run once and return what was seen of it."""
        sandbox = self._load(target)
        self._set_rows(rows, config)
        rules = [*_rules_of(incident, second_run), *faults]
        sandbox.set_faults(rules)
        calls_before, stored_before = len(sandbox.calls), self.stored(target)
        applied_before = {name: e.applied_count for name, e in sandbox.project.events.items()}
        state_before = self._state_bytes() if flags.dry_run else {}
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        running = self._start(config, target, flags, folder, self.folder / state_name)
        try:
            if incident is not None:
                self._cause(incident, running, sandbox, calls_before)
            if second_run is not None:
                start = partial(self._start, config, target, flags)
                self._start_second(second_run, running, sandbox, calls_before, start)
            ending = running.ending()
        finally:
            running.send(signal.SIGKILL)
            running.ending()
        calls = sandbox.calls[calls_before:]
        sandbox.set_faults([])
        if flags.dry_run:
            check(self._state_bytes() == state_before, "a dry run changed the state file")
        found = sorted(folder.glob("integration_results_*.json"))
        check(len(found) <= 1, f"{len(found)} results files")
        results = orjson.loads(found[0].read_bytes()) if found else None
        shutil.rmtree(folder)
        self._note_lost_events(target, calls, applied_before)
        posts = [post for call in calls for post in _posts_of(call)]
        has_fired = any(
            call.fault not in (None, "delay") for call in calls
        )  # a fault that was planned but met no call is none
        return Observed(
            flags=flags,
            project=ProjectKey(self._address(target), target.api_key),
            status=ending.status,
            results=results,
            posts=posts,
            call_count=len(calls),
            stored_before=stored_before,
            stored=self.stored(target),
            output=ending.stderr,
            had_faults=has_fired,
            was_killed=incident is not None and incident.what == "kill",
            was_stopped=incident is not None and incident.what != "kill",
            rate_limited=sum(call.status == 429 for call in calls),
        )

    def _start(
        self, config: Config, target: Target, flags: Flags, folder: Path, state_path: Path
    ) -> ForkedRun:
        self.run_count += 1
        environment = {
            **self._rows.settings,
            **config.environment(),
            "ITERABLE_API_KEY": target.api_key,
            "ITERABLE_API_BASE_URL": self._address(target),
            "QUERY_FILE": str(self.folder / "query.sql"),
            "STATE_FILE": str(state_path),
            "RESULTS_DIR": str(folder),
            "LOG_FILE": str(folder / "run.log"),
            "LOG_LEVEL": "WARNING",
            "MAX_ATTEMPTS": str(flags.max_attempts),
            "OUTAGE_PATIENCE_SECONDS": "1",
            "BULK_UPDATE_RPS": "500",
            "TRACK_BULK_RPS": "500",
            "BULK_BATCH_SIZE": "3",
            "REJECTED_RETRY_HOURS": "0",  # the model sends what was rejected in every run
        }
        arguments = ["--env-file", str(self.folder / "empty.env"), *flags.to_arguments()]
        return self._runs.start(arguments, environment, folder)

    def _cause(
        self, incident: Incident, running: ForkedRun, sandbox: IterableSandbox, calls_before: int
    ) -> None:
        if not incident.at_call:
            time.sleep(incident.after_seconds)
        if _wait_for_call(running, sandbox, calls_before + incident.at_call):
            running.send(signal.SIGKILL if incident.what == "kill" else signal.SIGTERM)

    def _start_second(
        self,
        second: SecondRun,
        first: ForkedRun,
        sandbox: IterableSandbox,
        calls_before: int,
        start: Callable[[Path, Path], ForkedRun],
    ) -> None:
        """Start another run on the same state file while the first has stopped in mid-run."""
        if not _wait_for_call(first, sandbox, calls_before + 1):
            return
        first.send(signal.SIGSTOP)
        state = self.folder / "state.sqlite3"
        path = self.folder / second.state_name
        if second.state_name == "hard_link.sqlite3":
            os.link(state, path)
        if second.removes_lock_files:
            for lock in self.folder.glob("*.lock"):
                lock.unlink()
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        ending = start(folder, path).ending()
        shutil.rmtree(folder)
        first.send(signal.SIGCONT)
        if second.state_name == "hard_link.sqlite3":
            for suffix in _STATE_SUFFIXES:
                Path(f"{path}{suffix}").unlink(missing_ok=True)
        check(
            ending.status == 1,
            f"two runs at once on one state file: the second had the exit status {ending.status}",
        )

    # The state file

    def copy_state(self, name: str) -> None:
        """Copy the state file away."""
        copies = self.folder / name
        shutil.rmtree(copies, ignore_errors=True)
        copies.mkdir()
        for path in self._state_paths():
            shutil.copy2(path, copies)

    def restore_state(self, name: str) -> None:
        """Put a copy back; an empty one removes the file."""
        for path in self._state_paths():
            path.unlink()
        for path in (self.folder / name).iterdir():
            shutil.copy2(path, self.folder)

    def _state_paths(self) -> list[Path]:
        paths = [self.folder / f"state.sqlite3{suffix}" for suffix in _STATE_SUFFIXES]
        return [path for path in paths if path.exists()]

    def _state_bytes(self) -> dict[str, bytes]:
        """Return the content of the state file; SQLite may add empty files for a reader."""
        found = {path.name: path.read_bytes() for path in self._state_paths()}
        return {
            name: content
            for name, content in found.items()
            if content and not name.endswith("-shm")
        }

    # The projects

    def stored(self, target: Target) -> Stored:
        """Return what the target's project holds."""
        project = self._load(target).project
        events: dict[str, Body] = {
            event.id: {
                "email": event.email,
                "eventName": event.event_name,
                "createdAt": event.created_at,
                "dataFields": event.data_fields,
            }
            for event in project.events.values()
        }
        users = {key: user.data_fields for key, user in project.users.items()}
        return Stored(users, events, frozenset(self._contents[target.project].lost_events))

    def _load(self, target: Target) -> IterableSandbox:
        """Let the sandbox hold the data of the target's project."""
        sandbox = self._sandboxes[target.sandbox]
        before = self._loaded.get(target.sandbox)
        if before != target.project:
            if before is not None:
                left = self._contents[before]
                left.users, left.events = sandbox.project.users, sandbox.project.events
            sandbox.reset()
            contents = self._contents[target.project]
            sandbox.project.users, sandbox.project.events = contents.users, contents.events
            self._loaded[target.sandbox] = target.project
        return sandbox

    def _address(self, target: Target) -> str:
        return self._sandboxes[target.sandbox].url

    def _note_lost_events(
        self, target: Target, calls: Sequence[CallRecord], applied_before: Mapping[str, int]
    ) -> None:
        """An event of a user who does not exist is tracked for nobody.

        In one run an event follows the last attempt for its user's profile. So the user existed in
        time if and only if he exists after the run.
        """
        project = self._sandboxes[target.sandbox].project
        lost = self._contents[target.project].lost_events
        for call in calls:
            for post in _posts_of(call):
                event = project.events.get(post.event_id or "")
                if event and event.applied_count > applied_before.get(event.id, 0):
                    (lost.discard if post.key in project.users else lost.add)(event.id)

    def _set_rows(self, rows: Sequence[Row], config: Config) -> None:
        columns = [(name, "VAR_STRING") for name in _COLUMNS]
        columns.append(("event_time", config.time_type))
        if config.has_event_id:
            columns.append(("event_id", "VAR_STRING"))
        names = [name for name, _type in columns]
        self._rows.columns = columns
        self._rows.rows = [[getattr(row, name) for name in names] for row in rows]


@dataclass(frozen=True)
class SecondRun:
    """A run that is started while another one is in progress."""

    state_name: str
    removes_lock_files: bool = False


@contextmanager
def world() -> Iterator[World]:
    """Start the servers of a world."""
    with ExitStack() as stack:
        rows = stack.enter_context(RowServer())
        runs = stack.enter_context(RunServer())
        sandboxes = [
            stack.enter_context(IterableSandbox(forgotten=FORGOTTEN, keep_calls=1_000_000))
            for _ in range(2)
        ]
        made = World(rows, runs, sandboxes)
        try:
            yield made
        finally:
            made.end()


def _rules_of(incident: Incident | None, second: SecondRun | None) -> list[dict[str, Any]]:
    rules: list[dict[str, Any]] = []
    if second is not None:
        rules.append({"fault": "delay", "seconds": 0.2, "nth": 1})
    if incident is not None:
        if incident.slow_start:
            rules.append({"fault": "delay", "seconds": 0.55, "nth": 1})
        if incident.what != "stop" and incident.at_call:
            rules.append({"fault": "hang", "applied": incident.applied, "nth": incident.at_call})
        elif incident.at_call:
            rules.append({"fault": "delay", "seconds": 0.15, "nth": incident.at_call})
    return rules


def _wait_for_call(running: ForkedRun, sandbox: IterableSandbox, number: int) -> bool:
    """Wait until the sandbox has received so many calls; return False if the run ends before."""
    while len(sandbox.calls) < number:
        if running.is_over:
            return False
        time.sleep(0.002)
    return True


def _posts_of(call: CallRecord) -> list[Post]:
    """Return the requests in a call, single or bulk."""
    if call.endpoint not in _KINDS:
        return []
    kind, list_name = _KINDS[call.endpoint]
    if list_name is None:
        bodies = [call.body]
    else:
        check(set(call.body) == {list_name}, f"a batch with the keys {set(call.body)}")
        bodies = call.body[list_name]
        keys = [str(body.get("email", "")).lower() for body in bodies]
        check(len(set(keys)) == len(keys), f"two rows of a user in one batch: {keys}")
    return [Post(kind, body, call.status, call.fault) for body in bodies]
