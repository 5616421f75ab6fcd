"""`--verify N`: does Iterable show what was delivered, field by field?

Owns the asking (at Iterable's pace, many at once), the patience (Iterable applies calls some time
after it took them), and what was found. Changes nothing anywhere.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import quote

from delivered_rows import DeliveredRow, choose_delivered_rows
from iterable_check import trouble_with
from iterable_http import IterableHTTP
from logger_config import printable
from outcomes import Half, Verdict
from pacing import Pace
from read_back import MOST_EVENTS, NotThere, event_differences, profile_differences
from settings import Settings
from verdicts import Answer, verdict_of

READ_RPS = 100.0  # Iterable's limit for a project, for each of the two endpoints
GET_BY_EMAIL = "users/getByEmail"
GET_EVENTS = "events/{email}"
# A minute together: Iterable's advice on how long to wait for a call to be applied.
WAITS_SECONDS = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
_THREADS = 32  # 100 answers a second at 300 ms each
_UNANSWERED_MOST = 20  # in a row: then Iterable is down


class VerificationError(Exception):
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
    half: Half
    found: Found
    details: tuple[str, ...] = ()

    def __str__(self) -> str:
        who = f"user {self.user_id}" if self.user_id is not None else self.email
        told = "; ".join(self.details) if self.details else "is as it was sent"
        return printable(f"{who}: the {self.half.value} {told}")


@dataclass
class VerificationTally:
    """The findings, counted."""

    counts: dict[tuple[Half, Found], int] = field(default_factory=dict)

    def add(self, finding: Finding) -> None:
        key = (finding.half, finding.found)
        self.counts[key] = self.counts.get(key, 0) + 1

    @property
    def all_as_sent(self) -> bool:
        return all(found is Found.AS_SENT for _, found in self.counts)

    def __str__(self) -> str:
        """Say it in a line: "10 profiles and 9 events as sent; 1 event missing"."""
        told = []
        for found in Found:
            halves = [
                f"{count:,} {half.value}{'' if count == 1 else 's'}"
                for half in Half
                if (count := self.counts.get((half, found), 0))
            ]
            if halves:
                told.append(f"{' and '.join(halves)} {found.value}")
        return "; ".join(told) or "nothing was read back"


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
    rows = choose_delivered_rows(settings, count)
    if not rows:
        raise VerificationError(
            "There is nothing to verify: no row of the query is in Iterable as it is now, for all "
            f"that {settings.state_file} remembers. Run a sync first."
        )
    with closing(_Reader(settings, stop)) as reader:
        yield from _settle(_questions(rows), reader, stop, waits_seconds, now)


@dataclass(frozen=True, slots=True)
class _Question:
    """One half of one row, to be read back."""

    row: DeliveredRow
    half: Half
    delivered_at: int


def _questions(rows: Sequence[DeliveredRow]) -> list[_Question]:
    questions = []
    for row in rows:
        if row.profile_at is not None:
            questions.append(_Question(row, Half.PROFILE, row.profile_at))
        if row.event_at is not None:
            questions.append(_Question(row, Half.EVENT, row.event_at))
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
        unsettled: list[_Question] = []
        for question, answer in reader.ask(questions):
            finding = _judge(question, answer)
            may_change = (
                finding.found is Found.UNANSWERED
                or now() - question.delivered_at <= patience_seconds
            )
            if finding.found is Found.AS_SENT or not may_change or wait_seconds is None:
                yield finding
            else:
                unsettled.append(question)
        if not unsettled or wait_seconds is None or stop.wait(wait_seconds):
            return
        questions = unsettled


def _judge(question: _Question, answer: Answer) -> Finding:
    record = question.row.record
    found, details = Found.AS_SENT, ()
    try:
        if answer.code in ("UnknownEmailError", "NotFound") and answer.status in (400, 404):
            raise NotThere("is not in Iterable")
        if answer.status != 200 or not isinstance(answer.body, dict):
            said = answer.status or answer.code
            found, details = Found.UNANSWERED, (f"could not be read back: {said}",)
        elif question.half is Half.PROFILE:
            details = tuple(profile_differences(record.profile, answer.body))
        else:
            details = tuple(event_differences(record.event, answer.body))
    except NotThere as missing:
        found, details = Found.MISSING, (str(missing),)
    if details and found is Found.AS_SENT:
        found = Found.DIFFERENT
    return Finding(record.user_id, record.email, question.half, found, details)


class _Reader:
    """Asks Iterable, many at once and at the pace it allows."""

    def __init__(self, settings: Settings, stop: threading.Event) -> None:
        self._address = settings.iterable_api_base_url
        self._stop = stop
        self._paces = {half: Pace(READ_RPS) for half in Half}
        self._http = IterableHTTP(settings.iterable_api_key, self._address, connections=_THREADS)
        self._pool = ThreadPoolExecutor(_THREADS, "verify")
        self._unanswered_in_a_row = 0

    def close(self) -> None:
        """Start no more; what is under way is not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._http.close()

    def ask(self, questions: Sequence[_Question]) -> Iterator[tuple[_Question, Answer]]:
        """Yield the answers in the order of the questions, fewer when stopped.

        Raises VerificationError where the key is refused or Iterable is down.
        """
        for question, answer in zip(questions, self._pool.map(self._get, questions), strict=True):
            if answer is None or self._stop.is_set():
                return
            self._watch(answer)
            yield question, answer

    def _get(self, question: _Question) -> Answer | None:
        """Ask one question, again where there were too many at once; None when stopped."""
        email, pace = question.row.record.email, self._paces[question.half]
        while pace.acquire(self._stop.wait):
            if question.half is Half.PROFILE:
                answer = self._http.get(GET_BY_EMAIL, {"email": email})
            else:
                path = GET_EVENTS.format(email=quote(email, safe=""))
                answer = self._http.get(path, {"limit": MOST_EVENTS})
            if answer.status != 429:
                return answer
            pace.slow_down(answer.named_wait_seconds or 1.0)
        return None

    def _watch(self, answer: Answer) -> None:
        """End it where no answer will come."""
        verdict = verdict_of(GET_EVENTS, answer)
        trouble = trouble_with(answer, self._address)
        if verdict is Verdict.REFUSED and answer.code != "NotFound":
            raise VerificationError(f"Nothing can be read back: {trouble}")
        if answer.status is not None and answer.status < 500:
            self._unanswered_in_a_row = 0
            return
        self._unanswered_in_a_row += 1
        if self._unanswered_in_a_row >= _UNANSWERED_MOST:
            raise VerificationError(f"Nothing more can be read back: {trouble}")
