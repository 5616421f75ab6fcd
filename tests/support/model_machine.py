"""State machine of the model-based test: any rows, settings, runs and accidents in any order.

`contract_model.py` says what must hold after each run. At the end of an example the faults stop,
and one or two plain runs must put everything right.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from functools import wraps
from random import Random
from typing import Any, ClassVar

from hypothesis import reject
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
)

from tests.support.contract_model import (
    Broken,
    Config,
    Contract,
    Flags,
    Kind,
    Memory,
    Need,
    Observed,
    ProjectKey,
    Record,
    Row,
    Rows,
    after_restoring,
    check,
    to_text,
)
from tests.support.model_world import FORGOTTEN, TARGETS, Incident, SecondRun, Target, World

MOST_ROWS = 8
FIRST_TIME = datetime(2026, 1, 13, 14, 30, 45)  # noqa: DTZ001 - as the database stores it
KEYS = ("ann@example.com", "bob@example.com", "cy@example.com", "dee@example.com", *FORGOTTEN)
SPELLINGS: Mapping[str, Callable[[str], str]] = {
    "as it is": str,
    "capitals": str.upper,
    "blank before": lambda email: f" {email}",
    "blank after": lambda email: f"{email} ",
}
NOT_EMAILS = (None, "", "no-at-sign", "two@@example.com")
VALUES: Mapping[str, tuple[str | None, ...]] = {
    "first_name": ("N0", "N1", None),
    "last_name": ("L0", "L1"),
    "plan_type": ("pro", "basic"),
    "candidate": ("yes", "no", None),
    "page": ("pricing", "settings"),
    "device": ("desktop", "mobile", None),
    "location": ("Berlin", "Paris"),
    "id": ("1", "2", "3", None),
    "event_id": ("e1", "e2", "e3", "e4"),
}
USER_FIELDS = (
    Config().user_fields,
    tuple(reversed(Config().user_fields)),
    (("first_name", "first_name"),),
    (("first_name", "first_name"), ("city", "location")),
)
EVENT_FIELDS = (
    Config().event_fields,
    tuple(reversed(Config().event_fields)),
    (("page", "page"), ("candidate", "candidate")),
    (*Config().event_fields, ("plan", "plan_type")),
)
ZONES = ("UTC", "Europe/Berlin", "America/New_York")

indexes = st.integers(0, MOST_ROWS - 1)
emails = st.one_of(
    st.builds(lambda key, spelling: SPELLINGS[spelling](key), st.sampled_from(KEYS),
              st.sampled_from(sorted(SPELLINGS))),
    st.sampled_from(KEYS),
    st.sampled_from(NOT_EMAILS),
)  # fmt: skip
times = st.one_of(
    st.integers(0, 3).map(lambda seconds: FIRST_TIME + timedelta(seconds=seconds)),
    st.integers(0, 3).map(lambda seconds: FIRST_TIME + timedelta(seconds=seconds)),
    st.none(),
)


def to_row(values: Mapping[str, Any]) -> Row:
    return Row(**values)


rows = st.fixed_dictionaries(
    {
        "email": emails,
        "event_time": times,
        **{name: st.sampled_from(values) for name, values in VALUES.items()},
    }
).map(to_row)  # printed in one line, unlike the rows of `st.builds`
changes = st.one_of(
    st.tuples(st.just("email"), emails),
    st.tuples(st.just("event_time"), times),
    st.sampled_from([(name, value) for name, values in VALUES.items() for value in values]),
    st.sampled_from([("event_id", ""), ("event_id", None)]),
)
columns = st.sampled_from(["email", "first_name", "event_time", "event_id"])
modes = st.sampled_from(["per-user", "bulk"])
selectors = st.one_of(
    st.builds(lambda key: {"email": key}, st.sampled_from(KEYS)),
    st.builds(lambda nth: {"nth": nth}, st.integers(1, 6)),
    st.builds(
        lambda key, endpoint: {"email": key, "endpoint": endpoint},
        st.sampled_from(KEYS),
        st.sampled_from(["users/update", "events/track", "users/bulkUpdate", "events/trackBulk"]),
    ),
)
EFFECTS: tuple[Mapping[str, Any], ...] = (
    {"fault": "drop_after"},
    {"fault": "drop_after"},
    {"fault": "drop_before"},
    {"fault": "status", "status": 503},
    {"fault": "status", "status": 500, "applied": True},
    {"fault": "status", "status": 400},
    {"fault": "status", "status": 401, "times": 1},
    {"fault": "rate_limited", "reset": 0.01, "times": 1},
    {"fault": "malformed_json"},
    {"fault": "half_body"},
    {"fault": "empty_body"},
    {"fault": "miscount", "by": -1},
    {"fault": "miscount", "by": 1},
    {"fault": "error_code_on_200"},
    {"fault": "success_code_on_error"},
    {"fault": "html_body", "status": 502, "applied": True},
)
faults = st.builds(lambda effect, where: {**effect, **where}, st.sampled_from(EFFECTS), selectors)

incidents = st.one_of(
    st.builds(
        Incident,
        what=st.sampled_from(["kill"] * 5 + ["stop"] * 3 + ["stop hanging"]),
        at_call=st.integers(1, 6),
        applied=st.booleans(),
        slow_start=st.sampled_from([False, False, True]),
    ),
    st.builds(
        Incident,
        what=st.sampled_from(["kill", "kill", "stop"]),
        at_call=st.just(0),
        after_seconds=st.integers(0, 12).map(lambda number: number / 200),  # a run takes 0.05 s
    ),
)

Step = tuple[str, Mapping[str, Any]]  # a rule and its arguments


class Counts:
    """What was tried so far, over all examples of this process."""

    steps = 0
    examples = 0


def step(rule_method: Callable[..., None]) -> Callable[..., None]:
    """Decorate a rule so that its calls are counted, and can be repeated."""

    @wraps(rule_method)
    def counted(self: SyncMachine, **arguments: Any) -> None:
        Counts.steps += 1
        self.made.append((rule_method.__name__, arguments))
        rule_method(self, **arguments)

    return counted


class SyncMachine(RuleBasedStateMachine):
    """Runs the program between random rows and Iterable, with all that can happen to it."""

    world: ClassVar[World]
    # Gets each broken promise and the steps that led to it; returns whether it fails the test.
    on_broken: ClassVar[Callable[[Broken, list[Step]], bool]] = staticmethod(lambda *_: True)

    def __init__(self) -> None:
        super().__init__()
        Counts.examples += 1
        self.world.begin()
        self.rows: list[Row] = []
        self.earlier: list[list[Row]] = []
        self.config = Config()
        self.target = TARGETS[0]
        self.contract = Contract(forgotten=FORGOTTEN)
        self.memory = Memory()
        # Copies of the state file: name -> what it remembers, and how many requests were made then.
        self.copies: dict[str, tuple[Memory, int]] = {}
        self.touched: list[tuple[Kind, str, tuple[str, ...]]] = []
        self.made: list[Step] = []
        self.described: list[str] = []
        self.has_failed = False

    @initialize(
        found=st.lists(rows, min_size=1, max_size=4),
        time_type=st.sampled_from(["DATETIME", "TIMESTAMP"]),
        has_event_id=st.sampled_from([False, False, True]),
    )
    @step
    def start(self, found: list[Row], time_type: str, has_event_id: bool) -> None:
        self.config = Config(time_type=time_type, has_event_id=has_event_id)
        with_ids = ", with a column event_id" if has_event_id else ""
        self._replace_rows(f"event_time is a {time_type}{with_ids}", found)

    # The table

    @rule(row=rows)
    @step
    def add_row(self, row: Row) -> None:
        if len(self.rows) < MOST_ROWS:
            self._replace_rows("a row is added", [*self.rows, row])

    @rule(index=indexes, change=changes)
    @step
    def change_value(self, index: int, change: tuple[str, Any]) -> None:
        if self.rows:
            self._change(index % len(self.rows), *change)

    @rule(first=indexes, second=indexes, column=columns)
    @step
    def swap_values(self, first: int, second: int, column: str) -> None:
        if self.rows:
            self._swap(first % len(self.rows), second % len(self.rows), column)

    @rule(back=st.integers(1, 3))
    @step
    def put_rows_back(self, back: int) -> None:
        """The table is again as it was some changes ago."""
        if len(self.earlier) >= back:
            self._replace_rows(f"the rows are as they were {back} changes ago", self.earlier[-back])

    @rule(index=indexes)
    @step
    def remove_row(self, index: int) -> None:
        if self.rows:
            index %= len(self.rows)
            self._replace_rows(
                f"row {index} is removed", self.rows[:index] + self.rows[index + 1 :]
            )

    @rule(number=st.integers(0, 5))
    @step
    def shuffle_rows(self, number: int) -> None:
        shuffled = list(self.rows)
        Random(number).shuffle(shuffled)
        self._replace_rows("the rows come in another order", shuffled)

    def _change(self, index: int, column: str, value: Any) -> None:
        changed = list(self.rows)
        changed[index] = replace(changed[index], **{column: value})
        self._replace_rows(f"row {index}: {column} becomes {value!r}", changed)

    def _swap(self, first: int, second: int, column: str) -> None:
        changed = list(self.rows)
        values = [getattr(changed[index], column) for index in (first, second)]
        changed[first] = replace(changed[first], **{column: values[1]})
        changed[second] = replace(changed[second], **{column: values[0]})
        self._replace_rows(f"rows {first} and {second} swap {column}", changed)

    def _replace_rows(self, what: str, changed: list[Row]) -> None:
        """Change the table. With a column `event_id` each user has one row, by construction.

        What a duplicate means for two users with the same event id, the contract leaves open.
        """
        if self.config.has_event_id:
            keys = [row.key for row in changed if row.key]
            if len(set(keys)) < len(keys):
                changed = [row for i, row in enumerate(changed) if row.key not in keys[:i]]
        self.earlier.append(self.rows)
        self.rows = changed
        self._describe(what + "".join(f"\n    {row!r}" for row in changed))

    # The settings

    @rule(
        user_fields=st.sampled_from(USER_FIELDS),
        event_fields=st.sampled_from(EVENT_FIELDS),
        send_nulls=st.booleans(),
        zone=st.sampled_from(ZONES),
        which=st.sampled_from(["user_fields", "event_fields", "send_nulls", "zone"]),
    )
    @step
    def change_setting(self, which: str, **values: Any) -> None:
        self.config = replace(self.config, **{which: values[which]})
        self._describe(f"{which} becomes {values[which]}")

    @rule(leads_to=st.sampled_from(TARGETS))
    @step
    def change_project_or_key(self, leads_to: Target) -> None:
        self.target = leads_to
        self._describe(f"the settings lead to {leads_to}")

    # Runs

    @rule(mode=modes)
    @step
    def run(self, mode: str) -> None:
        self._run(Flags(mode))

    @rule(mode=modes, limit=st.integers(1, 4))
    @step
    def run_with_limit(self, mode: str, limit: int) -> None:
        self._run(Flags(mode, limit=limit))

    @rule(mode=modes)
    @step
    def dry_run(self, mode: str) -> None:
        self._run(Flags(mode, dry_run=True))

    @rule(mode=modes, is_full_refresh=st.booleans(), what=st.lists(faults, min_size=1, max_size=2),
          max_attempts=st.sampled_from([1, 1, 1, 2]))  # fmt: skip
    @step
    def run_with_faults(
        self, mode: str, is_full_refresh: bool, what: list[dict[str, Any]], max_attempts: int
    ) -> None:
        flags = Flags(mode, full_refresh=is_full_refresh, max_attempts=max_attempts)
        self._run(flags, faults=what)

    @rule(mode=modes)
    @step
    def run_through_a_symlink(self, mode: str) -> None:
        self._run(Flags(mode), state_name="link.sqlite3")

    @rule(
        mode=modes,
        is_full_refresh=st.booleans(),
        incident=incidents,
    )
    @step
    def run_that_is_ended(self, mode: str, is_full_refresh: bool, incident: Incident) -> None:
        self._run(Flags(mode, full_refresh=is_full_refresh), incident=incident)

    @rule(
        index=indexes,
        other=indexes,
        change=st.one_of(changes, columns.map(lambda column: ("swap", column))),
        mode=modes,
        accident=st.one_of(
            st.sampled_from(EFFECTS).map(lambda effect: {"faults": [effect]}),
            faults.map(lambda fault: {"faults": [fault]}),
            st.builds(Incident, st.just("kill"), st.integers(1, 3), st.booleans()).map(
                lambda incident: {"incident": incident}
            ),
            incidents.map(lambda incident: {"incident": incident}),
        ),
    )
    @step
    def values_go_there_and_back(
        self,
        index: int,
        other: int,
        change: tuple[str, Any],
        mode: str,
        accident: dict[str, Any],
    ) -> None:
        """Rows are changed, a run in which anything may happen sends them, and they are put back.

        Other rules may do the same one after the other, but seldom do.
        """
        if not self.rows:
            return
        self._run(Flags(mode))
        index, other = index % len(self.rows), other % len(self.rows)
        if change[0] == "swap":
            self._swap(index, other, change[1])
        else:
            self._change(index, *change)
        self._run(Flags(mode), **accident)
        self._replace_rows("the rows are as they were before", self.earlier[-1])
        self._run(Flags(mode))

    @rule(
        mode=modes,
        second=st.builds(
            SecondRun,
            state_name=st.sampled_from(["state.sqlite3", "link.sqlite3", "hard_link.sqlite3"]),
            removes_lock_files=st.booleans(),
        ),
    )
    @step
    def two_runs_at_once(self, mode: str, second: SecondRun) -> None:
        self._run(Flags(mode, full_refresh=True), second_run=second)

    # The state file

    @rule(name=st.sampled_from(["copy 1", "copy 2"]))
    @step
    def copy_state_file_away(self, name: str) -> None:
        self._describe(f"the state file is copied to {name}")
        self.world.copy_state(name)
        self.copies[name] = (self.memory.copy(), len(self.touched))

    @precondition(lambda self: self.copies)
    @rule(name=st.sampled_from(["copy 1", "copy 2"]))
    @step
    def put_state_file_back(self, name: str) -> None:
        if name in self.copies:
            self._describe(f"{name} is put back as the state file")
            memory, touched_before = self.copies[name]
            self.world.restore_state(name)
            self.memory = after_restoring(memory, self.touched[touched_before:])

    # The checks

    def _run(self, flags: Flags, **accident: Any) -> Observed:
        details = [*flags.to_arguments(), *(f"{n}={v}" for n, v in accident.items())]
        self._describe(" ".join(["run", *details]))
        with self._reporting():
            return self._checked_run(flags, **accident)

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except Broken as broken:
            if not self.has_failed and not type(self).on_broken(broken, self.made):
                self.has_failed = True
                reject()
            self.has_failed = True
            raise
        except BaseException:
            self.has_failed = True
            raise

    def _describe(self, what: str) -> None:
        self.described.append(what)

    def _checked_run(self, flags: Flags, **accident: Any) -> Observed:
        run = self.world.run(self.rows, self.config, self.target, flags, **accident)
        read = Rows(self.rows[: flags.limit], self.config)
        expected = None if flags.dry_run else self._is_same_project(read, run)
        self.contract.check_run(run, read, self.memory, expected)
        for post in run.posts:
            identity = self.contract.identities.get(post.event_id or "", ())
            self.touched.append((post.kind, post.key, identity))
        return run

    def _is_same_project(self, read: Rows, run: Observed) -> bool | None:
        """Return whether the run has to accept the project; None: the contract leaves it open."""
        answers = {
            self._accepts(read, run, known) if known is not None else True
            for known in self.memory.projects
        }
        return answers.pop() if len(answers) == 1 else None

    def _accepts(self, read: Rows, run: Observed, known: ProjectKey) -> bool | None:
        if known == run.project:
            return True
        if known.address != run.project.address:
            return False
        if run.had_faults or self.memory.outdated:
            return None
        # Another key: up to five remembered events, else profiles, are compared with Iterable.
        records = [record for key in read.latest for record in read.candidates(key)]
        asked = [self._event_is_there(record, run) for record in records]
        asked = [answer for answer in asked if answer != "not remembered"]
        if not asked:
            asked = [self._profile_is_there(record, run) for record in records]
            asked = [answer for answer in asked if answer != "not remembered"]
        if not asked:
            # Nobody knows whose the key is: what is remembered may be of another project.
            self.memory = self.memory.without_proof()
            return None
        if "unknown" in asked or (len(set(asked)) > 1 and len(asked) > 5):
            return None
        if "there" in asked and not self._is_ours(known):
            self.memory = self.memory.without_proof()  # both projects have this user
            return None
        return "there" in asked

    def _is_ours(self, known: ProjectKey) -> bool:
        """Return whether a key that was used before is of the project that the settings lead to."""
        return any(
            (known.api_key, self.target.project) == (each.api_key, each.project) for each in TARGETS
        )

    def _event_is_there(self, record: Record, run: Observed) -> str:
        remembered = {
            event if event and event.identity == record.event.identity else None
            for event in self.memory.events.get(record.key, {None})
        }
        if remembered == {None}:
            return "not remembered"
        if len(remembered) > 1 or len(read_created := {json.loads(e.sent)["createdAt"]
                for e in (*remembered, record.event) if e}) > 1:  # fmt: skip
            return "unknown"
        found = [
            event
            for event in run.stored_before.events.values()
            if event["email"].lower() == record.key and event["createdAt"] in read_created
        ]
        return "there" if found else "missing"

    def _profile_is_there(self, record: Record, run: Observed) -> str:
        need = self.memory.need(Kind.PROFILE, record)
        if need is Need.MUST:
            return "not remembered"
        if need is Need.MAY:
            return "unknown"
        return "there" if run.stored_before.has_profile(record.profile) else "missing"

    def teardown(self) -> None:
        """Without faults one or two plain runs put everything right, and the next makes no call."""
        try:
            if not self.has_failed:
                with self._reporting():
                    self._heal()
        finally:
            self.world.end()

    def _heal(self) -> None:
        known = [each for each in self.memory.projects if each is not None]
        for target in TARGETS:
            if known and known[0].api_key == target.api_key:
                self.target = target
        if len(known) > 1:
            return  # of which project the file is, is open
        self.rows = [row for row in self.rows if row.key not in FORGOTTEN]
        self._describe("no faults from here on, and no rows of users whom Iterable rejects")
        flags = Flags(full_refresh=bool(self.memory.outdated))
        for each in (flags, Flags("bulk")):
            run = self._run(each)
            check(run.status in (0, 3), f"healing: exit status {run.status}: {run.output}")
        last = self._run(Flags())
        check(last.call_count == 0, f"{last.call_count} calls in a run with nothing to do")
        read = Rows(self.rows, self.config)
        for key in read.latest:
            self._check_user(key, read, last)
        doubled = [e for e, count in self._event_counts(last).items() if count > 1]
        check(not doubled, f"events that are in Iterable more than once: {doubled}")

    def _check_user(self, key: str, read: Rows, run: Observed) -> None:
        records = read.candidates(key)
        right = [record for record in records if run.stored.has_profile(record.profile)]
        check(right, f"the profile of {key!r} is {run.stored.users.get(key)}, not {records}")
        event_ids = {self.contract.ids.get(record.event.identity) for record in records}
        found = [
            run.stored.events[each] for each in event_ids if each and each in run.stored.events
        ]
        sent = [e.sent for e in self.memory.events[key] if e]
        check(
            any(to_text(event) in sent for event in found),
            f"the event of {key!r} is {found}, not {sent}",
        )
        lost = event_ids & run.stored.lost_events
        check(len(lost) < len(event_ids), f"the event of {key!r} was tracked for nobody")

    def _event_counts(self, run: Observed) -> dict[str, int]:
        counts: dict[str, int] = {}
        for event in run.stored.events.values():
            if not self.config.has_event_id:
                fields = event["dataFields"]
                name = f"{event['email'].lower()} {fields['timestamp']} {fields.get('page')}"
                counts[name] = counts.get(name, 0) + 1
        return counts


def repeat(steps: Sequence[Step]) -> tuple[Broken | None, list[str]]:
    """Make these steps, and heal; return the promise that was broken, and the steps as text.

    `SyncMachine.world` must be set.
    """
    machine = SyncMachine()
    broken: Broken | None = None
    try:
        for name, arguments in steps:
            getattr(machine, name)(**arguments)
    except Broken as raised:
        broken = raised
    try:
        machine.teardown()
    except Broken as raised:
        broken = broken or raised
    return broken, machine.described
