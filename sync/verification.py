"""Verification sample: a run reads back some rows that the run before it has delivered.

Iterable may apply a call minutes after it has accepted it, so a run cannot verify its own rows.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

from config.identity import IdentifyBy
from iterable_api.comparison import Comparison, compare
from records.outcomes import JSON
from records.rows import RequestKind
from state.delivered_samples import DeliveredRow, body_of
from sync.read_back import Get, ReadBack

logger = logging.getLogger(__name__)

# What was delivered more recently may still have to be applied.
PENDING_SECONDS = 600.0
_WORST_FIRST = ("missing", "different", "unanswered", "pending", "as_sent")
_RESULTS = {
    Comparison.AS_SENT: "as_sent",
    Comparison.DIFFERENT: "different",
    Comparison.MISSING: "missing",
    Comparison.NOT_READ: "unanswered",
}


@dataclass
class VerificationReport:
    """How many rows were asked for, and the result of each."""

    asked: int = 0
    as_sent: int = 0
    different: int = 0
    missing: int = 0
    pending: int = 0  # differ, but were delivered less than ten minutes ago
    unanswered: int = 0

    @property
    def has_differences(self) -> bool:
        """Whether the exit status must say so."""
        return bool(self.different or self.missing)

    def to_json(self) -> JSON:
        """Return the counts, as they stand in the head of the results file."""
        return dict(vars(self))

    def lines(self) -> list[str]:
        """Return the line of the summary; none where nothing was read back."""
        if not self.asked:
            return []
        counts = {name: n for name, n in vars(self).items() if n and name != "asked"}
        parts = [f"{n:,} {name.replace('_', ' ')}" for name, n in counts.items()]
        return [f"Read back {self.asked:,} users of the last run: {', '.join(parts)}"]


class _Lookup(NamedTuple):
    row: DeliveredRow
    kind: RequestKind
    delivered_at: int


def verify_rows(
    rows: Sequence[DeliveredRow],
    get: Get,
    identify_by: IdentifyBy,
    stop: threading.Event,
    *,
    logs_values: bool = True,
) -> VerificationReport:
    """Read the rows' profiles and events back with `get`, and compare them; ends early at a stop.

    A row counts by the worse one of its two results. What differs is logged, with its values only
    if `logs_values`.
    """
    lookups = [
        _Lookup(row, kind, at)
        for row in rows
        for kind, at in ((RequestKind.PROFILE, row.profile_at), (RequestKind.EVENT, row.event_at))
        if at is not None
    ]
    results = {row.record.identifier: {"unanswered"} for row in rows}
    read: set[str] = set()
    reader: ReadBack[_Lookup] = ReadBack(
        get, lambda lookup: (lookup.kind, lookup.row.record.identifier), identify_by, stop
    )
    with closing(reader):
        for lookup, response in reader.read(lookups):
            record = lookup.row.record
            sent = body_of(record, lookup.kind)
            comparison, details = compare(lookup.kind, sent, response)
            result = _RESULTS[comparison]
            is_recent = time.time() - lookup.delivered_at < PENDING_SECONDS
            if result in ("different", "missing"):
                if is_recent:
                    result = "pending"
                else:
                    logger.warning(
                        "User %s, delivered by the last run: the %s %s",
                        record.user_id,
                        lookup.kind.value,
                        "; ".join(details) if logs_values else f"is {comparison.value}",
                    )
            if record.identifier not in read:
                results[record.identifier] = set()
                read.add(record.identifier)
            results[record.identifier].add(result)
    report = VerificationReport(asked=len(rows))
    for found in results.values():
        worst = next(name for name in _WORST_FIRST if name in found)
        setattr(report, worst, getattr(report, worst) + 1)
    return report
