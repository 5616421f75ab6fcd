"""`--verify N`: read delivered users back from Iterable and compare them field by field.

Iterable applies calls asynchronously, so a difference soon after delivery is read again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from commands.console import print_as_json, print_line
from commands.verify.delivered_rows import choose_delivered_rows
from config.settings import Settings
from errors import ExitStatus, SyncError
from iterable_api.advice import explain_problem
from iterable_api.comparison import (
    GET_EVENTS,
    WAITS_SECONDS,
    Comparison,
    compare,
    is_unknown_user,
)
from iterable_api.http import IterableHTTP
from iterable_api.responses import ApiResponse, verdict_of
from records.outcomes import JSON, Verdict
from records.rows import RequestKind
from reporting.formatting import counted
from state.confirmations import Confirmations, ConfirmationsError
from state.delivered_samples import DeliveredRow, body_of
from sync.read_back import THREADS, ReadBack
from sync.signals import Interrupted, stop_signals
from sync.source_rows import MAX_READ_SECONDS

logger = logging.getLogger(__name__)

_TIMEOUT_SECONDS = (5.0, 15.0)


class VerificationError(SyncError):
    """Nothing can be verified."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result for one profile or event; `details` has the values of fields that differ."""

    user_id: int | str | None
    email: str | None
    kind: RequestKind
    comparison: Comparison
    details: tuple[str, ...] = ()

    def to_json(self) -> JSON:
        """Return the finding for `--json`."""
        return {
            "user_id": self.user_id,
            "email": self.email,
            "request": self.kind.value,
            "result": _key(self.comparison),
            "details": list(self.details),
        }

    def __str__(self) -> str:
        who = f"user {self.user_id}" if self.user_id is not None else str(self.email)
        details = "; ".join(self.details) if self.details else "is as sent"
        return f"{who}: the {self.kind.value} {details}"


@dataclass
class VerificationTally:
    """Counts of the findings."""

    counts: dict[tuple[RequestKind, Comparison], int] = field(default_factory=dict)

    def add(self, finding: Finding) -> None:
        key = (finding.kind, finding.comparison)
        self.counts[key] = self.counts.get(key, 0) + 1

    @property
    def has_differences(self) -> bool:
        """Whether anything is different or missing."""
        wrong = (Comparison.DIFFERENT, Comparison.MISSING)
        return any(comparison in wrong for _, comparison in self.counts)

    @property
    def is_complete(self) -> bool:
        """Whether everything could be read back."""
        return all(comparison is not Comparison.NOT_READ for _, comparison in self.counts)

    def to_json(self) -> JSON:
        """Return the counts of profiles and of events, by result."""
        return {
            f"{kind.value}s": {
                _key(comparison): self.counts.get((kind, comparison), 0)
                for comparison in Comparison
            }
            for kind in RequestKind
        }

    def __str__(self) -> str:
        """Return text such as "10 profiles and 9 events as sent; 1 event missing"."""
        parts = []
        for comparison in Comparison:
            counts = [
                counted(count, kind.value)
                for kind in RequestKind
                if (count := self.counts.get((kind, comparison), 0))
            ]
            if counts:
                parts.append(f"{' and '.join(counts)} {comparison.value}")
        return "; ".join(parts) or "nothing"


def _key(comparison: Comparison) -> str:
    return comparison.value.replace(" ", "_")


def run_verify(
    settings: Settings, count: int, *, quiet: bool = False, as_json: bool = False
) -> ExitStatus:
    """Verify up to `count` users and print what differs.

    `quiet` prints nothing if everything is as sent. `as_json` prints counts and differences at the
    end, as JSON. Returns SOME_FAILED if anything differs, STOPPED_EARLY if anything could not be
    read back.
    """
    tally, findings = VerificationTally(), []
    with stop_signals() as stop:
        for finding in verify(settings, count, stop.event):
            tally.add(finding)
            if not finding.details:
                continue
            if as_json:
                findings.append(finding.to_json())
            else:
                print_line(str(finding), redacts_secrets=False)
        if as_json:
            print_as_json({**tally.to_json(), "findings": findings})
        elif not quiet or tally.has_differences or not tally.is_complete:
            print_line(f"Result: {tally}")
    if stop.number is not None:
        raise Interrupted(stop.number)
    if tally.has_differences:
        return ExitStatus.SOME_FAILED
    return ExitStatus.OK if tally.is_complete else ExitStatus.STOPPED_EARLY


def verify(
    settings: Settings,
    count: int,
    stop: threading.Event,
    *,
    waits_seconds: Sequence[float] = WAITS_SECONDS,
    max_read_seconds: float = MAX_READ_SECONDS,
    now: Callable[[], float] = time.time,
) -> Iterator[Finding]:
    """Compare up to `count` users of the query whose rows have not changed since their delivery.

    Users of the last run come first. Their rows are looked for in the query's result for
    `max_read_seconds` at most. An event that a webhook has confirmed since its delivery counts as
    found. What differs is read again after each of `waits_seconds`, unless it was delivered longer
    ago than their sum. Stops early, without an error, when `stop` is set. Raises VerificationError,
    SourceError, StateError and ConfigError.
    """
    rows, read_count, ran_out_of_time = choose_delivered_rows(
        settings, count, stop, max_seconds=max_read_seconds
    )
    if stop.is_set():
        return
    if ran_out_of_time:
        where = f"among the {read_count:,} rows that were read (for {max_read_seconds:g} s)"
        if not rows:
            raise VerificationError(
                f"Nothing was verified: no row is unchanged since its delivery {where}. Run a sync "
                "first, or use a QUERY_FILE that returns fewer rows."
            )
        logger.warning(
            "Only %s users are verified: no more are unchanged since their delivery %s",
            f"{len(rows):,}",
            where,
        )
    if not rows:
        raise VerificationError(
            f"There is nothing to verify: {settings.state_file} has no row of the query that is "
            "unchanged since its delivery. Run a sync first."
        )
    lookups = _to_lookups(rows)
    confirmed_at = _read_confirmations(settings.confirmations_file, lookups)
    waiting = []
    for lookup in lookups:
        if lookup.is_confirmed_by(confirmed_at):
            record = lookup.row.record
            yield Finding(record.user_id, record.email, lookup.kind, Comparison.AS_SENT)
        else:
            waiting.append(lookup)
    with closing(_Reader(settings, stop)) as reader:
        yield from _compare_all(waiting, reader, stop, waits_seconds, now)


@dataclass(frozen=True, slots=True)
class _Lookup:
    """A profile or an event to read back; `delivered_at` is in unix seconds."""

    row: DeliveredRow
    kind: RequestKind
    delivered_at: int

    @property
    def event_ids(self) -> set[str]:
        """The ids of the event: the one that was sent, and the one that a webhook leads to.

        They differ where the user has got another address. None for a profile.
        """
        record = self.row.record
        if self.kind is RequestKind.PROFILE or record.event is None or record.event_id is None:
            return set()
        return {record.event_id, orjson.loads(record.event)["id"]}

    def is_confirmed_by(self, confirmed_at: Mapping[str, int]) -> bool:
        """Return whether a webhook came after the delivery: the event may be sent once more.

        `confirmed_at` is in unix seconds, by event id.
        """
        return any(confirmed_at.get(each, -1) >= self.delivered_at for each in self.event_ids)


def _read_confirmations(path: Path, lookups: Sequence[_Lookup]) -> Mapping[str, int]:
    """Return when each event was confirmed; without a file that can be read nothing is."""
    try:
        return Confirmations(path).confirmed_at(
            event_id for lookup in lookups for event_id in lookup.event_ids
        )
    except ConfirmationsError as error:
        logger.warning("%s Every event is read back.", error)
        return {}


def _to_lookups(rows: Sequence[DeliveredRow]) -> list[_Lookup]:
    lookups = []
    for row in rows:
        if row.profile_at is not None:
            lookups.append(_Lookup(row, RequestKind.PROFILE, row.profile_at))
        if row.event_at is not None:
            lookups.append(_Lookup(row, RequestKind.EVENT, row.event_at))
    return lookups


def _compare_all(
    lookups: list[_Lookup],
    reader: _Reader,
    stop: threading.Event,
    waits_seconds: Sequence[float],
    now: Callable[[], float],
) -> Iterator[Finding]:
    """Read and compare in rounds, until each lookup has its finding."""
    max_age_seconds = sum(waits_seconds)
    for wait_seconds in (*waits_seconds, None):
        is_last_round = wait_seconds is None
        read_count, unsettled = 0, []
        for lookup, response in reader.read(lookups):
            read_count += 1
            finding = _compare(lookup, response)
            is_recent = now() - lookup.delivered_at <= max_age_seconds
            is_final = finding.comparison is Comparison.AS_SENT or is_last_round
            if is_final or not _may_change(response, is_recent):
                yield finding
            else:
                unsettled.append(lookup)
        if stop.is_set():
            return
        unsettled += lookups[read_count:]
        if not unsettled or (wait_seconds is not None and stop.wait(wait_seconds)):
            return
        lookups = unsettled
    raise VerificationError(f"Nothing more can be read back: {reader.problem}")


def _may_change(response: ApiResponse, is_recent: bool) -> bool:
    """Return whether the same request may have another response a little later."""
    return is_recent or response.status is None or response.status == 408 or response.status >= 500


def _compare(lookup: _Lookup, response: ApiResponse) -> Finding:
    record, kind = lookup.row.record, lookup.kind

    comparison, details = compare(kind, body_of(record, kind), response)
    return Finding(record.user_id, record.email, kind, comparison, tuple(details))


class _Reader:
    """Reads profiles and events back with the API key of the settings."""

    def __init__(self, settings: Settings, stop: threading.Event) -> None:
        self._address = settings.iterable_api_base_url
        self._http = IterableHTTP(
            settings.iterable_api_key,
            self._address,
            connections=THREADS,
            timeout_seconds=_TIMEOUT_SECONDS,
        )
        self._read_back: ReadBack[_Lookup] = ReadBack(
            self._http.get,
            lambda lookup: (lookup.kind, lookup.row.record.identifier),
            settings.identify_by,
            stop,
        )
        self.problem: str | None = None  # of the last response

    def close(self) -> None:
        """Start no more requests, and do not wait for those in progress."""
        self._read_back.close()
        self._http.close()

    def read(self, lookups: Sequence[_Lookup]) -> Iterator[tuple[_Lookup, ApiResponse]]:
        """Yield the responses in the order of the lookups, see `ReadBack.read`.

        Raises VerificationError where the key is refused or the address is not Iterable's API.
        """
        has_answered = False  # then a firewall's page concerns its own lookup alone
        for lookup, response in self._read_back.read(lookups):
            self.problem = explain_problem(GET_EVENTS, response, self._address)
            has_answered = has_answered or response.is_from_api
            verdict = verdict_of(GET_EVENTS, response, api_has_answered=has_answered)
            if verdict is Verdict.REFUSED and not is_unknown_user(response):
                raise VerificationError(f"Nothing can be read back: {self.problem}")
            yield lookup, response
