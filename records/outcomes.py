"""What became of a call and of a row: the words that the rest of the program speaks in.

Owns the verdict of one API call, the outcome of one row, and their JSON forms in the
results file. Knows nothing of HTTP, SQL or files, and imports nothing of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from enum import Enum
from functools import cache
from typing import Any, NamedTuple

JSON = dict[str, Any]


class Verdict(str, Enum):
    """What one API call came to; decided once, in `verdicts.verdict_of`."""

    DELIVERED = "delivered"  # Iterable said so, for this very row
    REJECTED = "rejected"  # this row will never be accepted as it is
    UNAVAILABLE = "unavailable"  # may pass another time
    REFUSED = "refused"  # nothing will be accepted: wrong key, data centre or URL


class Outcome(str, Enum):
    """What one row came to, in the words of the results file."""

    SUCCESSFUL = "successful"
    PARTIAL_FAILURE = "partial_failure"
    TOTAL_FAILURE = "total_failure"
    UNCHANGED = "unchanged"
    INVALID = "invalid"
    DUPLICATE = "duplicate"
    NOT_ATTEMPTED = "not_attempted"


# What the results file, the history and the terminal call the number of rows of each outcome.
COUNT_NAMES: Mapping[Outcome, str] = {
    Outcome.SUCCESSFUL: "successful",
    Outcome.PARTIAL_FAILURE: "partial_failures",
    Outcome.TOTAL_FAILURE: "total_failures",
    Outcome.UNCHANGED: "unchanged",
    Outcome.INVALID: "invalid",
    Outcome.DUPLICATE: "duplicates",
    Outcome.NOT_ATTEMPTED: "not_attempted",
}


@dataclass(frozen=True)
class CallResult:
    """One API call after its last attempt.

    `code`, `message` and `params` are Iterable's own (secrets taken out); where no answer
    came, `code` names what happened instead ("Timeout", "ConnectionError").
    """

    verdict: Verdict
    http_status: int | None
    code: str | None
    message: str
    params: Any = None
    attempts: int = 1
    elapsed_seconds: float = 0.0

    @property
    def delivered(self) -> bool:
        return self.verdict is Verdict.DELIVERED

    @property
    def response(self) -> JSON:
        """Iterable's `{code, msg, params}`."""
        return {"code": self.code, "msg": self.message, "params": self.params}

    def to_json(self) -> JSON:
        """Return the call as it stands in `records[].users_update` and `.events_track`."""
        return {
            "success": self.delivered,
            "verdict": self.verdict.value,
            "http_status": self.http_status,
            "attempts": self.attempts,
            "response": self.response,
        }


# Answers to users/update after which no event can reach the person either: Iterable's codes
# for a single call, and the list of `failedUpdates` that names the row in a bulk answer.
UNREACHABLE_CODES = frozenset(
    {
        *("InvalidEmailAddressError", "ForgottenUserError"),
        *("failedUpdates.invalidEmails", "failedUpdates.forgottenEmails"),
    }
)


def event_may_follow(update: CallResult) -> bool:
    """Say whether a row's event is sent after its update came to this.

    It is whatever the outcome, an event being a fact of its own, except where nothing would be
    accepted any more or this person cannot be reached at all.
    """
    return update.verdict is not Verdict.REFUSED and update.code not in UNREACHABLE_CODES


def row_outcome(
    update: Verdict | None,
    event: Verdict | None,
    *,
    profile_in_place: bool = False,
    event_in_place: bool = False,
) -> Outcome:
    """Say what a row came to once nothing more will be sent for it.

    `update` and `event` are the verdicts of this run's calls, None where none was made; the
    two others say that an earlier run had delivered that half already.
    """
    if update is None and event is None:
        return Outcome.NOT_ATTEMPTED
    profile_in_place = profile_in_place or update is Verdict.DELIVERED
    event_in_place = event_in_place or event is Verdict.DELIVERED
    if profile_in_place and event_in_place:
        return Outcome.SUCCESSFUL
    if profile_in_place or event_in_place:
        return Outcome.PARTIAL_FAILURE
    return Outcome.TOTAL_FAILURE


def iso_time(moment: datetime) -> str:
    """Write an aware time as the results file does: ISO 8601 with milliseconds."""
    return moment.isoformat(timespec="milliseconds")


def row_entry(
    user_id: int | str | None,
    email: str | None,
    outcome: Outcome,
    reason: str | None = None,
    update: JSON | None = None,
    event: JSON | None = None,
    timestamp: str | None = None,
) -> JSON:
    """Return a row as it stands in `records[]` of the results file.

    `update` and `event` are `CallResult.to_json()`, None where no call was made; `timestamp` is
    when the row was settled (ISO 8601), now if None.
    """
    return {
        "user_id": user_id,
        "email": email,
        "timestamp": timestamp or iso_time(datetime.now(timezone.utc)),
        "outcome": outcome.value,
        "overall_success": outcome in (Outcome.SUCCESSFUL, Outcome.UNCHANGED),
        "reason": reason,
        "users_update": update,
        "events_track": event,
    }


class RequestKind(str, Enum):
    """The two halves of a row, each remembered on its own."""

    PROFILE = "profile"
    EVENT = "event"


class PendingRow(NamedTuple):
    """A row to be sent; a body is None where that half needs no call."""

    seq: int
    user_id: int | str | None
    email: str
    profile: bytes | None
    event: bytes | None


class Finished(NamedTuple):
    """The outcome of one call for one half of one row."""

    seq: int
    kind: RequestKind
    result: CallResult
    finished_at: float  # unix seconds


class RowState(NamedTuple):
    """All that a row's outcome follows from."""

    kind: str | None  # "unchanged", "invalid", "duplicate"; None: it was to be sent
    profile_in_place: bool  # before this run
    event_in_place: bool
    update: str | None  # the verdict of the call, None where none was made
    event: str | None

    @property
    def outcome(self) -> Outcome:
        return _outcome_of(self)


@cache  # of a few dozen states, however many rows
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
    """A row after the run; the results of its calls are JSON text (`CallResult.to_json`)."""

    state: RowState
    user_id: int | str | None
    email: str | None
    reason: str | None
    update_result: str | None
    event_result: str | None
    settled_at: float | None  # unix seconds


class Failure(NamedTuple):
    """Rows that failed for one reason."""

    endpoint: str  # "users/update", "events/track", or "row" where it never got that far
    verdict: str
    code: str | None
    rows: int
    example_user_id: int | str | None
