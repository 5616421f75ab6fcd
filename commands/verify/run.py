"""`--verify N`: does Iterable show what was delivered, field by field?

Owns the asking (at Iterable's pace, many at once), the patience (Iterable applies calls some time
after it took them), and what was found. Changes nothing anywhere.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import closing
from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import quote

from commands.check.iterable import explain_problem
from commands.console import print_line
from commands.prepare import stop_signals
from commands.verify.compare import MAX_EVENTS, NotThere, event_differences, profile_differences
from commands.verify.delivered_rows import DeliveredRow, choose_delivered_rows
from config.settings import Settings
from errors import ExitStatus, SyncError
from iterable_api.http import IterableHTTP
from iterable_api.rate_limiter import RateLimiter
from iterable_api.responses import ApiResponse, verdict_of
from logger_config import printable
from records.outcomes import RequestKind, Verdict
from sync.signals import Interrupted
from sync.worker_pool import WorkerPool

# Iterable allows 100 to each of the two endpoints; calls that left evenly arrive less so.
READ_RPS = 90.0
GET_BY_EMAIL = "users/getByEmail"
GET_EVENTS = "events/{email}"
# A minute together: Iterable's advice on how long to wait for a call to be applied.
WAITS_SECONDS = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
_THREADS = 32  # 100 answers a second at 300 ms each
_TIMEOUT_SECONDS = (5.0, 15.0)
_UNANSWERED_MOST = 20  # in a row: then nobody else is asked for a while


class VerificationError(SyncError):
    """Nothing can be verified; the text says why and what to do."""


class Found(str, Enum):
    """How one half of a row was found in Iterable."""

    AS_SENT = "as sent"
    DIFFERENT = "different"
    MISSING = "missing"
    UNANSWERED = "unanswered"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one half of one row. Only a differing field's values are in `details`."""

    user_id: int | str | None
    email: str
    kind: RequestKind
    found: Found
    details: tuple[str, ...] = ()

    def __str__(self) -> str:
        who = f"user {self.user_id}" if self.user_id is not None else self.email
        described = "; ".join(self.details) if self.details else "is as it was sent"
        return printable(f"{who}: the {self.kind.value} {described}")


@dataclass
class VerificationTally:
    """The findings, counted."""

    counts: dict[tuple[RequestKind, Found], int] = field(default_factory=dict)

    def add(self, finding: Finding) -> None:
        key = (finding.kind, finding.found)
        self.counts[key] = self.counts.get(key, 0) + 1

    @property
    def has_differences(self) -> bool:
        """Whether anything is missing or other than it was sent."""
        return any(found in (Found.DIFFERENT, Found.MISSING) for _, found in self.counts)

    @property
    def is_complete(self) -> bool:
        """Whether everything that was asked for was answered."""
        return all(found is not Found.UNANSWERED for _, found in self.counts)

    def __str__(self) -> str:
        """Say it in a line: "10 profiles and 9 events as sent; 1 event missing"."""
        described = []
        for found in Found:
            parts = [
                f"{count:,} {kind.value}{'' if count == 1 else 's'}"
                for kind in RequestKind
                if (count := self.counts.get((kind, found), 0))
            ]
            if parts:
                described.append(f"{' and '.join(parts)} {found.value}")
        return "; ".join(described) or "nothing was read back"


def run_verify(settings: Settings, count: int) -> ExitStatus:
    """Read delivered users back from Iterable and print what is not as it was sent.

    Returns SOME_FAILED where something differs, STOPPED_EARLY where something could not be read.
    """
    tally = VerificationTally()
    with stop_signals() as stop:
        for finding in verify(settings, count, stop.event):
            tally.add(finding)
            if finding.details:
                print_line(str(finding))
        print_line(f"Read back: {tally}")
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
    now: Callable[[], float] = time.time,
) -> Iterator[Finding]:
    """Read back up to `count` people of the query who have in Iterable what they have here.

    Those of the last run come first. What is not as sent yet is asked for again after each of
    `waits_seconds`, unless it was delivered longer ago than all of them together. Ends early,
    without an error, when `stop` is set. Raises VerificationError, SourceError, StateError and
    ConfigError.
    """
    rows = choose_delivered_rows(settings, count, stop)
    if stop.is_set():
        return
    if not rows:
        raise VerificationError(
            f"There is nothing to verify: {settings.state_file} knows no row of the query that was "
            "delivered as it is now. Run a sync first."
        )
    with closing(_Reader(settings, stop)) as reader:
        yield from _settle(_questions(rows), reader, stop, waits_seconds, now)


@dataclass(frozen=True, slots=True)
class _Question:
    """One half of one row, to be read back."""

    row: DeliveredRow
    kind: RequestKind
    delivered_at: int


def _questions(rows: Sequence[DeliveredRow]) -> list[_Question]:
    questions = []
    for row in rows:
        if row.profile_at is not None:
            questions.append(_Question(row, RequestKind.PROFILE, row.profile_at))
        if row.event_at is not None:
            questions.append(_Question(row, RequestKind.EVENT, row.event_at))
    return questions


def _settle(
    questions: list[_Question],
    reader: _Reader,
    stop: threading.Event,
    waits_seconds: Sequence[float],
    now: Callable[[], float],
) -> Iterator[Finding]:
    """Ask, and ask again, until each question has its finding."""
    patience_seconds = sum(waits_seconds)
    for wait_seconds in (*waits_seconds, None):
        is_last = wait_seconds is None
        asked, unsettled = 0, []
        for question, answer in reader.ask(questions):
            asked += 1
            finding = _judge(question, answer)
            is_young = now() - question.delivered_at <= patience_seconds
            if finding.found is Found.AS_SENT or is_last or not _may_change(answer, is_young):
                yield finding
            else:
                unsettled.append(question)
        if stop.is_set():
            return
        unsettled += questions[asked:]
        if not unsettled or (wait_seconds is not None and stop.wait(wait_seconds)):
            return
        questions = unsettled
    raise VerificationError(f"Nothing more can be read back: {reader.trouble}")


def _may_change(answer: ApiResponse, is_young: bool) -> bool:
    """Say whether the same question may be answered otherwise a little later."""
    return is_young or answer.status is None or answer.status == 408 or answer.status >= 500


def _judge(question: _Question, answer: ApiResponse) -> Finding:
    record, kind = question.row.record, question.kind

    def finding(found: Found, *details: str) -> Finding:
        return Finding(record.user_id, record.email, kind, found, details)

    if answer.code == "UnknownEmailError":
        return finding(Found.MISSING, "is not in Iterable")
    if answer.status != 200 or not isinstance(answer.body, dict):
        said = f"HTTP {answer.status}" if answer.status else answer.trouble
        return finding(Found.UNANSWERED, f"could not be read back ({said})")
    try:
        if kind is RequestKind.PROFILE:
            differences = profile_differences(record.profile, answer.body)
        else:
            differences = event_differences(record.event, answer.body)
    except NotThere as missing:
        return finding(Found.MISSING, str(missing))
    if differences:
        return finding(Found.DIFFERENT, "differs: " + differences[0], *differences[1:])
    return finding(Found.AS_SENT)


class _Reader:
    """Asks Iterable, many at once and at the pace it allows."""

    def __init__(self, settings: Settings, stop: threading.Event) -> None:
        self._address = settings.iterable_api_base_url
        self._stop = stop
        self._paces = {kind: RateLimiter(READ_RPS) for kind in RequestKind}
        self._http = IterableHTTP(
            settings.iterable_api_key,
            self._address,
            connections=_THREADS,
            timeout_seconds=_TIMEOUT_SECONDS,
        )
        self.trouble: str | None = None  # why the last question was not answered
        self._pool = WorkerPool("verify", _THREADS)

    def close(self) -> None:
        """Start no more; what is under way is not waited for."""
        self._pool.close()
        self._http.close()

    def ask(self, questions: Sequence[_Question]) -> Iterator[tuple[_Question, ApiResponse]]:
        """Yield the answers in the order of the questions.

        Fewer when stopped, or when many in a row were not answered. Raises VerificationError where
        the key is refused or the address is not Iterable.
        """
        unanswered_in_a_row = 0
        futures = [self._pool.submit(self._get, question) for question in questions]
        try:
            for question, future in zip(questions, futures, strict=True):
                answer = self._result(future)
                if answer is None:
                    return
                self.trouble = explain_problem(answer, self._address)
                if verdict_of(GET_EVENTS, answer) is Verdict.REFUSED:
                    raise VerificationError(f"Nothing can be read back: {self.trouble}")
                yield question, answer
                is_answered = answer.status is not None and answer.status < 500
                unanswered_in_a_row = 0 if is_answered else unanswered_in_a_row + 1
                if unanswered_in_a_row >= _UNANSWERED_MOST:
                    return
        finally:
            for future in futures:
                future.cancel()

    def _result(self, future: Future[ApiResponse | None]) -> ApiResponse | None:
        """Wait for an answer, but not for one that hangs when the run is to stop."""
        while not self._stop.is_set():
            try:
                return future.result(timeout=0.2)
            except FutureTimeoutError:
                continue
        return None

    def _get(self, question: _Question) -> ApiResponse | None:
        """Ask one question, again where there were too many at once; None when stopped."""
        email, pace = question.row.record.email, self._paces[question.kind]
        while pace.acquire(self._stop.wait):
            if question.kind is RequestKind.PROFILE:
                answer = self._http.get(GET_BY_EMAIL, {"email": email})
            else:
                path = GET_EVENTS.format(email=quote(email, safe=""))
                answer = self._http.get(path, {"limit": MAX_EVENTS})
            if answer.status != 429:
                return answer
            pace.slow_down(answer.requested_wait_seconds or 1.0)
        return None
