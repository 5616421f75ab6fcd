"""The contract as a model: what each row must become, what is remembered, and what is in doubt.

It uses no code of the program. `Rows` says what a read of the table means, `Memory` what a state
file may remember, and `Contract` checks one run after the other against both.

What a run remembers is not always known: a killed run may or may not have recorded a response. So a
memory holds for each request the set of what may be remembered. None stands for "in doubt": the
request has to be sent, whatever its value.
"""

from __future__ import annotations

import copy
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timezone
from enum import Enum
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

Body = dict[str, Any]
OUTCOMES = {
    "successful": "successful",
    "partial_failure": "partial_failures",
    "total_failure": "total_failures",
    "unchanged": "unchanged",
    "invalid": "invalid",
    "duplicate": "duplicates",
    "not_attempted": "not_attempted",
}
EVENT_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
_EMAIL = re.compile(r"[a-z0-9.]+@[a-z0-9]+\.[a-z]+", re.IGNORECASE)  # enough for the pool of tests


class Broken(AssertionError):
    """The program did not do what the contract says. `place` is the check that found it."""

    def __init__(self, place: str, message: str) -> None:
        super().__init__(message)
        self.place = place


def check(holds: object, message: str) -> None:
    """Raise Broken with the message unless `holds`."""
    if not holds:
        caller = sys._getframe(1)
        raise Broken(f"{caller.f_code.co_name}:{caller.f_lineno}", message)


class Kind(str, Enum):
    """The two requests of a row; the value is the key of its result in `records[]`."""

    PROFILE = "users_update"
    EVENT = "events_track"


class Need(Enum):
    """Whether a run has to send a request."""

    NO = "no"
    MAY = "may"
    MUST = "must"


@dataclass(frozen=True)
class Row:
    """A row of the query."""

    id: str | None
    email: str | None
    event_time: datetime | None
    first_name: str | None = None
    last_name: str | None = None
    plan_type: str | None = "pro"
    candidate: str | None = None
    page: str = "pricing"
    device: str | None = None
    location: str | None = None
    event_id: str | None = None  # only used where the query has this column

    @property
    def key(self) -> str:
        return (self.email or "").strip(" ").lower()

    def __repr__(self) -> str:
        return (
            "Row("
            + ", ".join(f"{n}={v!r}" for n, v in vars(self).items() if v != DEFAULTS[n])
            + ")"
        )


DEFAULTS = {each.name: each.default for each in fields(Row)}


@dataclass(frozen=True)
class Config:
    """The settings that shape what is sent. A field is (name at Iterable, column)."""

    user_fields: tuple[tuple[str, str], ...] = (
        *(("first_name", "first_name"), ("last_name", "last_name")),
        *(("plan_type", "plan_type"), ("candidate", "candidate")),
    )
    event_fields: tuple[tuple[str, str], ...] = (
        *(("page", "page"), ("browser", "device")),
        *(("location", "location"), ("candidate", "candidate")),
    )
    send_nulls: bool = False
    zone: str = "UTC"
    # Of the query, not of the settings: a DATETIME is in DB_TIMEZONE, a TIMESTAMP in UTC.
    time_type: str = "DATETIME"
    has_event_id: bool = False

    def environment(self) -> dict[str, str]:
        return {
            "USER_FIELDS": ",".join(f"{name}={column}" for name, column in self.user_fields),
            "EVENT_FIELDS": ",".join(f"{name}={column}" for name, column in self.event_fields),
            "SEND_NULLS": str(self.send_nulls).lower(),
            "DB_TIMEZONE": self.zone,
        }

    @property
    def event_settings(self) -> EventSettings:
        return EventSettings(self.event_fields, self.zone if self.time_type == "DATETIME" else "")


class EventSettings(NamedTuple):
    """The settings that shape an event."""

    fields: tuple[tuple[str, str], ...]
    zone: str


class Event(NamedTuple):
    """An event as it is remembered: its identity, and what was sent with which settings.

    `identity` is what its id is a function of: user key, name, time and page, or the `event_id`.
    """

    identity: tuple[str, ...]
    body: str  # without the id, as the row and the settings make it
    settings: EventSettings
    sent: str  # the body that Iterable has; another one after an event was adopted


class Record(NamedTuple):
    """A valid row, after the mapping."""

    key: str
    profile: str  # JSON with sorted keys, so that equal bodies are equal texts
    event: Event


def to_text(body: Body) -> str:
    return json.dumps(body, sort_keys=True)


def to_record(row: Row, config: Config) -> Record | None:
    """Return what a row becomes, None for a row that is invalid by itself."""
    email = (row.email or "").strip(" ")
    if not _EMAIL.fullmatch(email) or row.event_time is None:
        return None
    if config.has_event_id and not (row.event_id or "").strip(" "):
        return None
    profile: Body = {}
    for name, column in config.user_fields:
        value = getattr(row, column)
        if value is not None or config.send_nulls:
            profile[name] = value
    profile["recent_page_view"] = True
    stored = f"{row.event_time:%Y-%m-%d %H:%M:%S}"
    fields: Body = {"timestamp": stored}
    for name, column in config.event_fields:
        if (value := getattr(row, column)) is not None:
            fields[name] = value
    zone = ZoneInfo(config.zone) if config.time_type == "DATETIME" else timezone.utc
    event = {
        "email": email,
        "eventName": "page_view",
        "createdAt": int(row.event_time.replace(tzinfo=zone).timestamp()),
        "dataFields": fields,
    }
    if config.has_event_id:
        identity: tuple[str, ...] = ("page_view", str(row.event_id))
    else:
        identity = (row.key, "page_view", stored, row.page)
    body = to_text(event)
    return Record(
        row.key,
        to_text({"email": email, "dataFields": profile}),
        Event(identity, body, config.event_settings, body),
    )


class Rows:
    """What a read of these rows means: which are valid, invalid or duplicates."""

    def __init__(self, rows: Sequence[Row], config: Config) -> None:
        self.rows, self.config = rows, config
        self.records: dict[int, Record] = {}
        self.latest: dict[str, list[int]] = {}  # user key -> rows that tie for the latest event
        for index, row in enumerate(rows):
            if record := to_record(row, config):
                self.records[index] = record
        self._remove_shared_events()
        for index, record in self.records.items():
            tied = self.latest.setdefault(record.key, [])
            if tied and self._time(tied[0]) < self._time(index):
                tied.clear()
            if not tied or self._time(tied[0]) == self._time(index):
                tied.append(index)

    def candidates(self, key: str) -> list[Record]:
        """Return the records of which one is sent for this user; more than one if they tie."""
        return list(dict.fromkeys(self.records[index] for index in self.latest[key]))

    def _time(self, index: int) -> datetime:
        at = self.rows[index].event_time
        assert at is not None
        return at

    def _remove_shared_events(self) -> None:
        """Rows of two users with the same `event_id` are invalid."""
        if not self.config.has_event_id:
            return
        users: dict[tuple[str, ...], set[str]] = {}
        for record in self.records.values():
            users.setdefault(record.event.identity, set()).add(record.key)
        shared = {identity for identity, keys in users.items() if len(keys) > 1}
        self.records = {
            index: record
            for index, record in self.records.items()
            if record.event.identity not in shared
        }


class ProjectKey(NamedTuple):
    """What a state file knows of its project."""

    address: str
    api_key: str


@dataclass
class Memory:
    """What a state file may remember; see the module's docstring for the sets."""

    profiles: dict[str, set[str | None]] = field(default_factory=dict)
    events: dict[str, set[Event | None]] = field(default_factory=dict)
    profile_was_delivered: dict[str, set[bool]] = field(default_factory=dict)
    projects: set[ProjectKey | None] = field(default_factory=lambda: {None})
    # Requests made since this file was copied away; a restored copy lacks them.
    outdated: set[tuple[Kind, str]] = field(default_factory=set)

    def copy(self) -> Memory:
        return copy.deepcopy(self)

    def without_proof(self) -> Memory:
        """Return what may be remembered after a key was accepted that was never compared."""
        doubted = self.copy()
        for profiles in doubted.profiles.values():
            profiles.add(None)
        for events in doubted.events.values():
            events.add(None)
        for was_delivered in doubted.profile_was_delivered.values():
            was_delivered.add(False)
        doubted.outdated |= {(kind, key) for kind in Kind for key in doubted.profiles}
        return doubted

    def need(self, kind: Kind, record: Record) -> Need:
        """Return whether a run has to send this request."""
        needs: set[Need]
        if kind is Kind.PROFILE:
            remembered = self.profiles.get(record.key, {None})
            needs = {Need.NO if each == record.profile else Need.MUST for each in remembered}
        else:
            needs = {_need(each, record.event) for each in self.events.get(record.key, {None})}
        return needs.pop() if len(needs) == 1 else Need.MAY

    def adopt(self, record: Record) -> set[Event | None]:
        """Return what is remembered of an event once changed settings were noted."""
        adopted: set[Event | None] = set()
        for each in self.events.get(record.key, {None}):
            if each is not None and _need(each, record.event) is not Need.MUST:
                each = record.event._replace(sent=each.sent)
            adopted.add(each)
        return adopted


def _need(remembered: Event | None, event: Event) -> Need:
    if remembered is None or remembered.identity != event.identity:
        return Need.MUST
    if remembered.body == event.body:
        return Need.NO
    if remembered.settings == event.settings:
        return Need.MUST  # the row's own values changed
    same_fields = sorted(remembered.settings.fields) == sorted(event.settings.fields)
    if same_fields and remembered.settings.zone == event.settings.zone:
        return Need.MAY  # only their order: the contract leaves open whether this is a change
    return Need.NO  # an event is not sent again because settings changed


@dataclass(frozen=True)
class Post:
    """A request as the sandbox received it: one row of a call."""

    kind: Kind
    body: Body
    status: int | None  # of the response, None if there was none
    fault: str | None

    @property
    def key(self) -> str:
        return str(self.body.get("email", "")).lower()

    @property
    def event_id(self) -> str | None:
        return self.body.get("id")

    @property
    def text(self) -> str:
        """The body without the id."""
        return to_text({name: value for name, value in self.body.items() if name != "id"})


@dataclass(frozen=True)
class Stored:
    """What the project holds: profiles by lower-cased e-mail, events by id."""

    users: Mapping[str, Body]
    events: Mapping[str, Body]  # as sent, without the id
    # Events that Iterable has tracked for nobody, as their user did not exist.
    lost_events: frozenset[str] = frozenset()

    def has_profile(self, text: str) -> bool:
        body = json.loads(text)
        found = self.users.get(body["email"].lower())
        return found is not None and all(
            found.get(name) == value for name, value in body["dataFields"].items()
        )


@dataclass(frozen=True)
class Observed:
    """One run, as seen from outside."""

    flags: Flags
    project: ProjectKey
    status: int
    results: Body | None  # the results file
    posts: Sequence[Post]
    call_count: int  # HTTP exchanges that reached the sandbox
    stored_before: Stored
    stored: Stored  # afterwards
    output: str
    had_faults: bool = False
    was_killed: bool = False
    was_stopped: bool = False
    rate_limited: int = 0


@dataclass(frozen=True)
class Flags:
    """The flags of one run."""

    mode: str = "per-user"
    limit: int | None = None
    full_refresh: bool = False
    dry_run: bool = False
    max_attempts: int = 1

    def to_arguments(self) -> list[str]:
        arguments = ["--mode", self.mode]
        arguments += ["--limit", str(self.limit)] if self.limit else []
        arguments += ["--full-refresh"] if self.full_refresh else []
        return arguments + (["--dry-run"] if self.dry_run else [])


@dataclass
class Contract:
    """Checks runs. It outlives state files: an event has the same id whatever is remembered."""

    # Users whom the project rejects, whatever is sent for them.
    forgotten: frozenset[str] = frozenset()
    ids: dict[tuple[str, ...], str] = field(default_factory=dict)
    identities: dict[str, tuple[str, ...]] = field(default_factory=dict)
    # Rows of a user with equal times -> the rows of which one was used, whatever the settings.
    choices: dict[frozenset[Row], frozenset[Row]] = field(default_factory=dict)

    def check_run(
        self, run: Observed, rows: Rows, memory: Memory, same_project: bool | None
    ) -> None:
        """Check one run, and change `memory` to what is remembered after it.

        `same_project` is what the run had to find out about the project: None means either.
        """
        check(run.status != 70 and "Traceback" not in run.output, f"a bug: {run.output}")
        if run.flags.dry_run:
            self._check_dry_run(run, rows)
            return
        if same_project is False or (same_project is None and run.status == 1 and not run.posts):
            check(not run.posts, "requests went to another project than the state file's")
            was_ended = (run.was_killed, run.status) == (True, 137) or (
                (run.was_stopped, run.status) == (True, 143)
            )
            check(
                run.status == 1 or was_ended or not rows.records,
                f"another project, but exit status {run.status}: {run.output}",
            )
            return
        chosen = self._winners(run, rows)
        self._check_posts(run, rows, chosen, memory)
        if run.results is not None:
            self._check_results(run, rows, chosen, memory)
        self._check_status(run)
        self._remember(run, rows, chosen, memory)

    # The checks

    def _check_dry_run(self, run: Observed, rows: Rows) -> None:
        check(run.call_count == 0, "a dry run made calls")
        expected = 3 if len(rows.records) < len(rows.rows) else 0
        check(run.status == expected, f"dry run: exit status {run.status}, not {expected}")
        check(run.results is not None and run.results["dry_run"], "no results of the dry run")

    def _winners(self, run: Observed, rows: Rows) -> dict[str, list[Record]]:
        """Return for each user the record that the run used, or those that it may have used."""
        winners: dict[str, list[Record]] = {}
        for key, tied in rows.latest.items():
            together = frozenset(rows.rows[i] for i in tied)
            choice = self.choices.get(together, together)
            if run.results is not None and len(run.results["records"]) == len(rows.rows):
                used = [i for i in tied if run.results["records"][i]["outcome"] != "duplicate"]
                check(len(used) == 1, f"of the rows of {key!r} {len(used)} are used, not 1")
                record = rows.records[used[0]]
                # Rows that become the same record are not told apart.
                alike = frozenset(rows.rows[i] for i in tied if rows.records[i] == record)
                check(
                    choice & alike,
                    f"of equal times of {key!r} another row is used than before: {record}",
                )
                self.choices[together] = choice = choice & alike
            chosen = [rows.records[i] for i in tied if rows.rows[i] in choice]
            winners[key] = list(dict.fromkeys(chosen))
        return winners

    def _check_posts(
        self, run: Observed, rows: Rows, chosen: Mapping[str, Sequence[Record]], memory: Memory
    ) -> None:
        """Each request is what a row of the table becomes, is needed, and comes in its turn."""
        attempts: Counter[tuple[Kind, str]] = Counter()
        has_event: set[str] = set()
        for post in run.posts:
            label = f"{post.kind.value} of {post.key!r}"
            records = [
                record
                for record in chosen.get(post.key, ())
                if post.text == (record.profile if post.kind is Kind.PROFILE else record.event.body)
            ]
            check(records, f"{label}: no row of the table becomes this body: {post.body}")
            record = records[0]
            attempts[post.kind, post.key] += 1
            if not run.flags.full_refresh:
                check(
                    memory.need(post.kind, record) is not Need.NO,
                    f"{label} was sent although it is remembered as delivered: {post.body}",
                )
            if post.kind is Kind.EVENT:
                self._check_event_id(post, record)
                has_event.add(post.key)
            else:
                check(post.key not in has_event, f"{label} came after its event")
        if run.flags.mode == "per-user":
            # Twice: those that count, and those in an outage.
            most = 2 * run.flags.max_attempts + run.rate_limited
            for (kind, key), count in attempts.items():
                check(count <= most, f"{kind.value} of {key!r}: {count} attempts")
        del rows

    def _check_event_id(self, post: Post, record: Record) -> None:
        event_id, identity = post.event_id, record.event.identity
        check(
            isinstance(event_id, str) and EVENT_ID.fullmatch(event_id),
            f"the event id {event_id!r} is not in the alphabet",
        )
        assert event_id is not None
        known = self.ids.setdefault(identity, event_id)
        check(known == event_id, f"the event {identity} had the id {known}, now it has {event_id}")
        owner = self.identities.setdefault(event_id, identity)
        check(owner == identity, f"the events {owner} and {identity} share the id {event_id}")

    def _check_results(
        self, run: Observed, rows: Rows, chosen: Mapping[str, Sequence[Record]], memory: Memory
    ) -> None:
        results = run.results
        assert results is not None
        counted = Counter(record["outcome"] for record in results["records"])
        for outcome, name in OUTCOMES.items():
            check(
                results[name] == counted[outcome],
                f"{name} is {results[name]}, but {counted[outcome]} records say {outcome}",
            )
        check(results["total_users"] == len(results["records"]), "the counts do not add up")
        check(
            results["api_calls"] == run.call_count,
            f"api_calls is {results['api_calls']}, but {run.call_count} calls were made",
        )
        is_complete = results["status"].startswith("completed")
        if not results["records"] and not is_complete:
            check(not run.posts, "requests were made, but the results have no rows")
            return
        check(len(results["records"]) == len(rows.rows), "the results do not have all rows")
        for index, result in enumerate(results["records"]):
            label = f"row {index} ({rows.rows[index]!r})"
            outcome = result["outcome"]
            if index not in rows.records:
                check(outcome == "invalid", f"{label} is invalid, but the results say {outcome}")
                continue
            record = rows.records[index]
            if index not in rows.latest[record.key] or outcome == "duplicate":
                check(outcome == "duplicate", f"{label}: a duplicate, not {outcome}")
                continue
            check(record in chosen[record.key], f"{label} is used, not {chosen[record.key]}")
            self._check_row(label, run, record, result, memory, is_complete)

    def _check_row(
        self,
        label: str,
        run: Observed,
        record: Record,
        result: Body,
        memory: Memory,
        is_complete: bool,
    ) -> None:
        """Check outcome and truth of a row that is not invalid and no duplicate."""
        outcome = result["outcome"]
        is_in_place: dict[Kind, set[bool]] = {}
        verdicts: dict[Kind, str | None] = {}
        unsent: list[Kind] = []
        for kind in Kind:
            made = result[kind.value]
            verdict = verdicts[kind] = None if made is None else made["verdict"]
            need = Need.MUST if run.flags.full_refresh else memory.need(kind, record)
            posted = [post for post in run.posts if (post.kind, post.key) == (kind, record.key)]
            # A request that met only an outage has no verdict when the run ends.
            is_true = not posted if verdict is None and is_complete else verdict is None or posted
            check(is_true, f"{label}: {kind.value} is {made}, {posted}")
            if verdict is not None:
                check(made["success"] == (verdict == "delivered"), f"{label}: {made}")
                is_in_place[kind] = {verdict == "delivered"}
                if verdict == "delivered":
                    self._check_stored(label, kind, record, run.stored, {record.event})
                continue
            is_in_place[kind] = {Need.NO: {True}, Need.MUST: {False}}.get(need, {True, False})
            if outcome in ("unchanged", "successful") and (kind, record.key) not in memory.outdated:
                remembered = memory.adopt(record) | {record.event}
                self._check_stored(label, kind, record, run.stored, remembered)
            is_blocked = kind is Kind.EVENT and record.key in self.forgotten
            if need is Need.MUST and not is_blocked:
                unsent.append(kind)
        if is_complete:
            names = ", ".join(kind.value for kind in unsent)
            check(not unsent, f"{label}: {names} was not sent, though it is in doubt or new")
        allowed = {
            _outcome(verdicts, profile, event)
            for profile in is_in_place[Kind.PROFILE]
            for event in is_in_place[Kind.EVENT]
        }
        check(outcome in allowed, f"{label}: the outcome is {outcome}, not {allowed}")
        if is_complete and not run.had_faults and record.key not in self.forgotten:
            check(
                outcome in ("successful", "unchanged"),
                f"{label}: {outcome} in a run without faults: {result}",
            )

    def _check_stored(
        self,
        label: str,
        kind: Kind,
        record: Record,
        stored: Stored,
        remembered: Iterable[Event | None],
    ) -> None:
        """Iterable has the profile, or one of these events."""
        if kind is Kind.PROFILE:
            check(
                stored.has_profile(record.profile),
                f"{label}: said to be in Iterable: {record.profile},"
                f" there is: {stored.users.get(record.key)}",
            )
            return
        event_id = self.ids.get(record.event.identity, "")
        found = stored.events.get(event_id)
        bodies = [each.sent for each in remembered if each is not None]
        check(
            found is not None and to_text(found) in bodies,
            f"{label}: said to be in Iterable: {bodies}, there is: {found}",
        )

    def _check_status(self, run: Observed) -> None:
        label = f"exit status {run.status} ({run.output.strip()})"
        if run.was_killed and run.status == 137:
            return
        is_excused = run.status in (1, 143) and not run.posts  # it ended before there were any
        check(run.results is not None or is_excused, f"{label} without results")
        said = run.results["status"] if run.results else None
        outcomes = (
            {record["outcome"] for record in run.results["records"]} if run.results else set()
        )
        has_failed = outcomes & {"partial_failure", "total_failure", "invalid", "not_attempted"}
        if run.status == 0:
            check(said == "completed" and not has_failed, f"{label}: {said}, {outcomes}")
        elif run.status == 3:
            check(said == "completed_with_failures" and has_failed, f"{label}: {said}, {outcomes}")
        elif run.status == 143:
            # The signal may come when all is done.
            ends = ("interrupted", "completed", "completed_with_failures", None)
            check(run.was_stopped and said in ends, f"{label}: {said}")
        else:
            check(run.status == 1, label)
            check(run.had_faults, f"{label} in a run without faults")
            check(said in ("aborted", None), f"{label}: {said}")

    # What is remembered after the run

    def _remember(
        self, run: Observed, rows: Rows, chosen: Mapping[str, Sequence[Record]], memory: Memory
    ) -> None:
        results = run.results
        verdicts: dict[tuple[Kind, str], str | None] = {}
        in_place: set[tuple[Kind, str]] = set()
        if results is not None and results["records"]:
            for key, tied in rows.latest.items():
                (result,) = (
                    results["records"][i]
                    for i in tied
                    if results["records"][i]["outcome"] != "duplicate"
                )
                for kind in Kind:
                    made = result[kind.value]
                    verdicts[kind, key] = None if made is None else made["verdict"]
                    if made is None and result["outcome"] in ("successful", "unchanged"):
                        in_place.add((kind, key))
        before = memory.copy()
        for key, records in chosen.items():
            for kind in Kind:
                self._remember_request(
                    run, kind, key, records, before, memory, verdicts.get((kind, key)),
                    is_in_place=(kind, key) in in_place, is_known=bool(verdicts),
                )  # fmt: skip
        for (kind, key), verdict in verdicts.items():
            if verdict == "delivered":
                memory.outdated.discard((kind, key))
        if run.posts:
            self._doubt_events_that_may_move(run, chosen, before, memory)
        self._forget_moved_events(run, memory, verdicts)
        if "delivered" in verdicts.values():
            memory.projects = {run.project}
        elif run.call_count or memory.projects != {None}:
            memory.projects = memory.projects | {run.project}

    def _remember_request(
        self,
        run: Observed,
        kind: Kind,
        key: str,
        records: Sequence[Record],
        before: Memory,
        memory: Memory,
        verdict: str | None,
        *,
        is_in_place: bool,
        is_known: bool,
    ) -> None:
        """Change what is remembered of one request, which may be of one of these records."""
        posts = [post for post in run.posts if post.kind is kind and post.key == key]
        values: set[Any] = set()
        for record in records:
            current: Any = record.profile if kind is Kind.PROFILE else record.event
            need = Need.MUST if run.flags.full_refresh else before.need(kind, record)
            old: set[Any] = set(
                before.profiles.get(key, {None})
                if kind is Kind.PROFILE
                else before.events.get(key, {None}) | before.adopt(record)
            )
            if verdict == "delivered":
                values |= self._after_delivery(run, kind, key, before, current)
            elif verdict is not None:
                values.add(None)
            elif is_in_place:
                # It was remembered, or the run would have sent it.
                values |= (before.adopt(record) if kind is Kind.EVENT else old & {current}) - {None}
            elif need is Need.NO:
                values |= old
            elif run.posts:
                # The requests that wait are in doubt from before the first one.
                values.add(None)
                if need is Need.MAY:
                    values |= old
                if not is_known and any(_is_success(post) for post in posts):
                    values.add(current)
            else:
                values |= old | {None}
        if kind is Kind.PROFILE:
            memory.profiles[key] = values
            if verdict == "delivered":
                memory.profile_was_delivered[key] = {True}
            elif not is_known and any(_is_success(post) for post in posts):
                memory.profile_was_delivered.setdefault(key, {False}).add(True)
        else:
            memory.events[key] = values

    def _after_delivery(
        self, run: Observed, kind: Kind, key: str, before: Memory, current: Any
    ) -> set[Any]:
        if kind is Kind.PROFILE:
            return {current}
        # An event that was delivered before its user's profile ever was stays in doubt.
        known = before.profile_was_delivered.get(key, {False})
        results = run.results
        assert results is not None
        is_profile_delivered = any(
            record["users_update"] and record["users_update"]["success"]
            for record in results["records"]
            if (record["email"] or "").strip().lower() == key
        )
        if is_profile_delivered or known == {True}:
            return {current}
        return {None} if known == {False} else {None, current}

    def _doubt_events_that_may_move(
        self,
        run: Observed,
        chosen: Mapping[str, Sequence[Record]],
        before: Memory,
        memory: Memory,
    ) -> None:
        """An event that waits to be sent for another user may be in doubt before it is."""
        waiting = {
            record.event.identity: record.key
            for records in chosen.values()
            for record in records
            if run.flags.full_refresh or before.need(Kind.EVENT, record) is not Need.NO
        }
        for key, events in memory.events.items():
            if any(e and waiting.get(e.identity, key) != key for e in events):
                events.add(None)

    def _forget_moved_events(
        self,
        run: Observed,
        memory: Memory,
        verdicts: Mapping[tuple[Kind, str], str | None],
    ) -> None:
        """An event that is delivered for another user is forgotten for the former one."""
        for post in run.posts:
            if post.kind is not Kind.EVENT or post.event_id not in self.identities:
                continue
            identity = self.identities[post.event_id]
            is_certain = verdicts.get((Kind.EVENT, post.key)) == "delivered"
            for key, events in memory.events.items():
                if key != post.key and any(e and e.identity == identity for e in events):
                    kept = {e for e in events if not (e and e.identity == identity)}
                    # An attempt whose response was lost may have moved it as well.
                    memory.events[key] = kept | {None} if is_certain else events | {None}


def _is_success(post: Post) -> bool:
    return post.status == 200 and post.fault in (None, "delay")


def _outcome(verdicts: Mapping[Kind, str | None], profile: bool, event: bool) -> str:
    """Return the outcome of a row; `profile` and `event` say whether they are in place now."""
    if not any(verdicts.values()):
        return "unchanged" if profile and event else "not_attempted"
    if profile and event:
        return "successful"
    return "partial_failure" if profile or event else "total_failure"


def after_restoring(memory: Memory, touched: Iterable[tuple[Kind, str, tuple[str, ...]]]) -> Memory:
    """Return the memory of an older copy that was put back, after these requests since."""
    restored = memory.copy()
    for kind, key, identity in touched:
        restored.outdated.add((kind, key))
        for other, events in restored.events.items():
            if kind is Kind.EVENT and any(e and e.identity == identity for e in events):
                restored.outdated.add((Kind.EVENT, other))
    return restored
