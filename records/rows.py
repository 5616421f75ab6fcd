"""What goes into and out of the outbox: rows to send, results of requests, rows with results."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from functools import cache
from typing import NamedTuple

from records.outcomes import CallResult, Outcome, Verdict, row_outcome

# Beginning of the reason of an invalid row; it goes on with the other user's id.
SHARED_EVENT_ID = "the event_id is not unique"


class RequestKind(str, Enum):
    """The two requests that a record may need."""

    PROFILE = "profile"
    EVENT = "event"


class PendingRow(NamedTuple):
    """A row to send; a body is None if that request is not needed."""

    seq: int  # position in the query's result
    user_id: int | str | None
    email: str
    profile: bytes | None
    event: bytes | None


Rows = Sequence[PendingRow]


class Finished(NamedTuple):
    """The result of one request of one row."""

    seq: int  # `PendingRow.seq`
    kind: RequestKind
    result: CallResult
    finished_at: float  # unix seconds


class RowState(NamedTuple):
    """Everything that decides a row's outcome."""

    kind: str | None  # "unchanged", "invalid" or "duplicate"; None for a row to send
    profile_in_place: bool  # an earlier run delivered it
    event_in_place: bool
    update: str | None  # verdict of this run's request, None if it was not made
    event: str | None

    @property
    def is_failure(self) -> bool:
        """Whether the row is invalid or one of its requests failed."""
        failed = (verdict not in (None, Verdict.DELIVERED) for verdict in (self.update, self.event))
        return self.kind == Outcome.INVALID or any(failed)

    @property
    def outcome(self) -> Outcome:
        """The outcome if nothing more is sent for the row."""
        return _outcome_of(self)


@cache  # a few dozen states, for any number of rows
def _outcome_of(state: RowState) -> Outcome:
    if state.kind is not None:
        return Outcome(state.kind)
    return row_outcome(
        Verdict(state.update) if state.update else None,
        Verdict(state.event) if state.event else None,
        profile_in_place=bool(state.profile_in_place),
        event_in_place=bool(state.event_in_place),
    )


class SettledRow(NamedTuple):
    """A row with the results of its requests so far, as JSON text (`CallResult.to_json`)."""

    state: RowState
    seq: int
    user_id: int | str | None
    email: str | None
    reason: str | None
    update_result: str | None
    event_result: str | None
    settled_at: float | None  # unix seconds


class Failure(NamedTuple):
    """The number of rows that failed for the same reason."""

    endpoint: str  # "users/update", "events/track", or "row" for an invalid row
    verdict: str
    code: str | None
    rows: int
    example_user_id: int | str | None
    field: str | None = None  # the one that Iterable names in the response to the example
