"""What goes into and out of the outbox: rows to send, results of requests, rows with results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from functools import cache
from typing import NamedTuple

import orjson

from records.outcomes import CallResult, Outcome, Verdict, event_may_follow, row_outcome

# Beginning of the reason of an invalid row; it goes on with the other user's id.
SHARED_EVENT_ID = "the event_id is not unique"


def common_reason(reason: str | None) -> str:
    """Return the reason of an invalid row without what differs from row to row."""
    return SHARED_EVENT_ID if (reason or "").startswith(SHARED_EVENT_ID) else reason or ""


class RequestKind(str, Enum):
    """The two requests that a record may need."""

    PROFILE = "profile"
    EVENT = "event"


class PendingRow(NamedTuple):
    """A row to send; a body is None if that request is not needed."""

    seq: int  # position in the query's result
    user_id: int | str | None
    email: str | None
    profile: bytes | None
    event: bytes | None
    # Whether only a delivered update lets the event follow: the userId may be unknown to Iterable,
    # which would then create a user without a profile.
    event_needs_profile: bool = False

    def event_may_follow(self, update: CallResult | None) -> bool:
        """Return whether to send the event after this result; None: no update was made."""
        if self.event_needs_profile:
            return update is not None and update.delivered
        return update is None or event_may_follow(update)


Rows = Sequence[PendingRow]


class Finished(NamedTuple):
    """The result of one request of one row."""

    seq: int  # `PendingRow.seq`
    kind: RequestKind
    result: CallResult
    finished_at: float  # unix seconds


class RowState(NamedTuple):
    """Everything that decides a row's outcome."""

    kind: str | None  # the outcome, if the requests do not decide it; None for a row to send
    profile_in_place: bool | None  # an earlier run delivered it; None: profiles are not sent
    event_in_place: bool | None
    update: str | None  # verdict of this run's request, None if it was not made
    event: str | None

    @property
    def lacks_profile(self) -> bool:
        """Whether no earlier run delivered the profile, which is sent."""
        return self.profile_in_place is not None and not self.profile_in_place

    @property
    def lacks_event(self) -> bool:
        """Whether no earlier run delivered the event, which is sent."""
        return self.event_in_place is not None and not self.event_in_place

    @property
    def is_failure(self) -> bool:
        """Whether the row is invalid or one of its requests failed."""
        failed = (verdict not in (None, Verdict.DELIVERED) for verdict in (self.update, self.event))
        return self.kind in (Outcome.INVALID, Outcome.TOTAL_FAILURE) or any(failed)

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
        profile_in_place=state.profile_in_place,
        event_in_place=state.event_in_place,
    )


class FailureAge(NamedTuple):
    """How long a request has failed for the same reason, or a row has been invalid."""

    first_failed_at: int  # unix seconds
    runs_failed: int  # this run included; 1: the failure is new


FailureAges = Mapping[str, FailureAge]  # by `RequestKind`; of an invalid row by INVALID_ROW
INVALID_ROW = "row"
EMAIL_CHANGE = "email_change"  # in the place of a `RequestKind`: a changed address


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
    failure_ages: str | None = None  # JSON of `FailureAges`; None: nothing has failed
    email_change: str | None = None  # JSON of `records[].email_change`; None: the same address
    # Whether the rejected update is why the event was not sent; see `PendingRow`.
    event_needed_profile: bool = False

    def ages(self) -> FailureAges:
        """Return how long each failing request has failed."""
        stored = orjson.loads(self.failure_ages) if self.failure_ages else {}
        return {kind: FailureAge._make(age) for kind, age in stored.items()}


class Failure(NamedTuple):
    """The number of rows that failed for the same reason."""

    endpoint: str  # "users/update", "events/track", or "row" for an invalid row
    verdict: str
    code: str | None
    rows: int
    example_user_id: int | str | None
    field: str | None = None  # one that Iterable names in a response
    request_id: str | None = None  # `Iterable-Request-Id` of the example, for Iterable's support
