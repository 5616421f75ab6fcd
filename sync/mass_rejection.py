"""Guard against mass rejection: ends a kind of request that Iterable mostly rejects.

A field of the wrong type makes Iterable reject every row. Without this guard a run would make all
of these calls, and in bulk mode split each batch down to single rows.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random

from records.outcomes import CallResult, Verdict, named_field
from records.rows import PendingRow, RequestKind, Rows

MIN_JUDGED = 200  # with fewer the share says little
SAMPLE_ROWS = 20  # of a batch that was refused whole


@dataclass(frozen=True)
class MassRejection:
    """Why a run sends no more requests of one kind."""

    kind: RequestKind
    code: str | None  # with which Iterable rejected them
    field_name: str | None  # if Iterable named one
    example_user_id: int | str | None
    max_rejected_percent: float

    def __str__(self) -> str:
        """Return the message for the operator; the same problem gives the same text again."""
        advice = (
            "Correct the field's values, or its type in Iterable"
            if self.field_name
            else "The results file has Iterable's responses"
        )
        return (
            f"Iterable rejected more than {self.max_rejected_percent:g} % of the {self.kind.value}s"
            f" with {self._cause}, so this run sends no more of them. {advice}; the next run tries "
            "some of these rows first."
        )

    @property
    def summary_line(self) -> str:
        return f"No more {self.kind.value}s were sent: {self._cause}"

    @property
    def _cause(self) -> str:
        named = f"field {self.field_name}, " if self.field_name else ""
        return f"{self.code or 'an error'} ({named}for example user {self.example_user_id})"

    @property
    def reason(self) -> str:
        """The reason of a row whose request is left out, in short: a million rows may repeat it."""
        return f"most {self.kind.value}s were rejected with {self.code or 'an error'}"


@dataclass
class _Tally:
    """The verdicts on the requests of one kind."""

    judged: float = 0  # delivered or rejected; a sample counts for its batch
    rejected: dict[str | None, float] = field(default_factory=lambda: defaultdict(float))  # by code
    # By code, of the first row in the query's order: (seq, user id, field)
    examples: dict[str | None, tuple[int, int | str | None, str | None]] = field(
        default_factory=dict
    )
    first_sample: threading.Lock = field(default_factory=threading.Lock)
    has_sample: bool = False

    def add(self, row: PendingRow, result: CallResult, weight: float = 1) -> None:
        if result.verdict is Verdict.REJECTED:
            code = result.code
            self.rejected[code] += weight
            if code not in self.examples or row.seq < self.examples[code][0]:
                self.examples[code] = (row.seq, row.user_id, named_field(result.params))
        elif result.verdict is not Verdict.DELIVERED:
            return
        self.judged += weight


class RejectionGuard:
    """Counts the verdicts of a run and ends a kind of request once too many are rejected.

    Judged are requests with a verdict of this run, `delivered` or `rejected`. When more than
    `max_rejected_percent` of them were rejected with one code, the kind has ended. After a sample
    of what an earlier run left out was accepted (`accepts`), the kind does not end. Thread-safe.
    """

    def __init__(self, max_rejected_percent: float = 100) -> None:
        self._max_rejected_percent = max_rejected_percent
        self._tallies = {kind: _Tally() for kind in RequestKind}
        self._ended: dict[RequestKind, MassRejection] = {}
        self._accepted: set[RequestKind] = set()
        self._lock = threading.Lock()

    def judges(self, kind: RequestKind) -> bool:
        """Return whether this kind can end."""
        return self._max_rejected_percent < 100 and kind not in self._accepted

    @property
    def ended(self) -> tuple[MassRejection, ...]:
        """The kinds of request that have ended, in the order in which they did."""
        return tuple(self._ended.values())

    def allows(self, kind: RequestKind) -> bool:
        """Return whether requests of this kind may still be sent."""
        return kind not in self._ended

    def wanted(self, rows: Iterable[PendingRow]) -> Iterator[PendingRow]:
        """Yield the rows without the requests that have ended, and no row that needs only these."""
        for row in rows:
            if not self._ended:
                yield row
                continue
            profile = row.profile if self.allows(RequestKind.PROFILE) else None
            has_event = self.allows(RequestKind.EVENT) and not (
                row.event_needs_profile and profile is None
            )
            event = row.event if has_event else None
            if profile is not None or event is not None:
                yield row._replace(profile=profile, event=event)

    def add(self, kind: RequestKind, results: Iterable[tuple[PendingRow, CallResult]]) -> None:
        """Count results; the kind may end once `MIN_JUDGED` are judged."""
        tally = self._tallies[kind]
        with self._lock:
            for row, result in results:
                tally.add(row, result)
            if tally.rejected and tally.judged >= MIN_JUDGED:
                self._judge(kind)

    def add_sample(
        self, kind: RequestKind, sample: Iterable[tuple[PendingRow, CallResult]], batch_rows: int
    ) -> bool:
        """Count the sample of a batch of so many rows, and judge at once.

        The sample counts as the whole batch: a large batch of rejected rows then ends the kind
        also after others were delivered. So count none of its rows again. If the sample is not
        complete, because rows got no verdict, it counts as it is; returns False then.
        """
        judged = [
            each for each in sample if each[1].verdict in (Verdict.DELIVERED, Verdict.REJECTED)
        ]
        if len(judged) < SAMPLE_ROWS:
            self.add(kind, judged)
            return False
        with self._lock:
            for row, result in judged:
                self._tallies[kind].add(row, result, batch_rows / len(judged))
            self._judge(kind)
        return True

    def accepts(self, kind: RequestKind) -> bool:
        """Judge by the rows that were tried first, however few; return whether the others may go.

        After `SAMPLE_ROWS` of them the kind cannot end any more: rejected rows that stand together
        at the beginning would keep those behind them from ever being sent. False if none was
        counted.
        """
        with self._lock:
            self._judge(kind)
            judged = self._tallies[kind].judged
            if judged >= SAMPLE_ROWS and kind not in self._ended:
                self._accepted.add(kind)
            return judged > 0 and kind not in self._ended

    @contextmanager
    def sampling(self, kind: RequestKind) -> Iterator[None]:
        """Surround a sample: until the first one is complete, no other one is taken.

        Otherwise the rows of many batches would be sent alone to find out the same.
        """
        tally = self._tallies[kind]
        with tally.first_sample:
            if not tally.has_sample:
                try:
                    yield
                finally:
                    tally.has_sample = True
                return
        yield

    def _judge(self, kind: RequestKind) -> None:
        tally = self._tallies[kind]
        if kind in self._ended or kind in self._accepted or not tally.rejected:
            return
        code = max(tally.rejected, key=lambda each: tally.rejected[each])
        # A thousandth of a row: weights are fractions.
        if tally.rejected[code] * 100 > self._max_rejected_percent * tally.judged + 0.001:
            _seq, user_id, field_name = tally.examples[code]
            self._ended[kind] = MassRejection(
                kind, code, field_name, user_id, self._max_rejected_percent
            )


def choose_sample(rows: Rows) -> Rows:
    """Return `SAMPLE_ROWS` of the rows, in their order.

    Chosen at random, because bad rows often stand together, but always the same ones.
    """
    places = Random(rows[0].seq).sample(range(len(rows)), SAMPLE_ROWS)  # noqa: S311
    return [rows[place] for place in sorted(places)]
