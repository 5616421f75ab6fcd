"""Result types: the verdict of an API call, the outcome of a row, and their JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from enum import Enum
from typing import Any

JSON = dict[str, Any]
_MAX_FIELD_CHARACTERS = 100


class Verdict(str, Enum):
    """What a response means for a request; see `iterable_api.responses.verdict_of`."""

    DELIVERED = "delivered"  # Iterable accepted the request
    REJECTED = "rejected"  # Iterable will never accept this content
    UNAVAILABLE = "unavailable"  # a later attempt may succeed
    REFUSED = "refused"  # Iterable will accept no request: wrong key, data centre or URL


class Outcome(str, Enum):
    """What became of a row; the values of `records[].outcome` in the results file."""

    SUCCESSFUL = "successful"
    PARTIAL_FAILURE = "partial_failure"
    TOTAL_FAILURE = "total_failure"
    UNCHANGED = "unchanged"
    INVALID = "invalid"
    DUPLICATE = "duplicate"
    NOT_ATTEMPTED = "not_attempted"


# The names of the row counts in the results file, the history and the summary.
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

    `code`, `message` and `params` come from Iterable's response (secrets are redacted). Without
    a response `http_status` is None and `code` names the error: "ConnectTimeout".
    """

    verdict: Verdict
    http_status: int | None
    code: str | None
    message: str
    params: Any = None  # any JSON value; of a delivered bulk call the whole response, a dict
    attempts: int = 1  # 0: stopped before the first attempt
    elapsed_seconds: float = 0.0  # waits included
    is_blocked: bool = False  # the last response came from a proxy or firewall, not from Iterable
    met_only_outage: bool = False  # the run ended while the request waited for Iterable to answer
    request_id: str | None = None  # `Iterable-Request-Id` of the last response, for its support

    @property
    def delivered(self) -> bool:
        """Whether the verdict is `delivered`."""
        return self.verdict is Verdict.DELIVERED

    @property
    def has_verdict(self) -> bool:
        """Whether the call says anything about its rows; if not, they were not attempted."""
        return self.attempts > 0 and not self.met_only_outage

    @property
    def response(self) -> JSON:
        """Iterable's `{code, msg, params}`."""
        return {"code": self.code, "msg": self.message, "params": self.params}

    def to_json(self) -> JSON:
        """Return the value of `records[].users_update` or `.events_track`."""
        return {
            "success": self.delivered,
            "verdict": self.verdict.value,
            "http_status": self.http_status,
            "attempts": self.attempts,
            "request_id": self.request_id,
            "response": self.response,
        }


def named_field(params: Any) -> str | None:
    """Return the field that the `params` of Iterable's response name as the problem, or None.

    `RequestFieldsTypesMismatched`: {"validationErrors": {"signupDate": {...}}}; `BadJsonBody`:
    {"obj.dataFields.age": "..."}.
    """
    if not isinstance(params, dict):
        return None
    errors = params.get("validationErrors")
    if isinstance(errors, dict) and errors:
        return str(next(iter(errors)))[:_MAX_FIELD_CHARACTERS]
    name = str(next(iter(params), ""))
    return name.rpartition(".")[2][:_MAX_FIELD_CHARACTERS] if name.startswith("obj.") else None


# After one of these results of an update, no event can reach the user either.
UNREACHABLE_CODES = frozenset(
    {
        # Iterable's codes for a single call
        "InvalidEmailAddressError",
        "ForgottenUserError",
        # for a bulk call, the list that names the row
        "failedUpdates.invalidEmails",
        "failedUpdates.forgottenEmails",
        "failedUpdates.invalidUserIds",
        "failedUpdates.forgottenUserIds",
    }
)


def event_may_follow(update: CallResult) -> bool:
    """Return whether to send a row's event after this result of its update.

    An event is sent even after a failed update, because the next run's query may no longer return
    it. It is not sent if Iterable will accept no request or no event can reach the user. A proxy
    or firewall that blocked the update may let the event pass.
    """
    is_refused = update.verdict is Verdict.REFUSED and not update.is_blocked
    return not is_refused and update.code not in UNREACHABLE_CODES


def row_outcome(
    update: Verdict | None,
    event: Verdict | None,
    *,
    profile_in_place: bool | None = False,
    event_in_place: bool | None = False,
) -> Outcome:
    """Return the outcome of a row if nothing more is sent for it.

    `update` and `event` are the verdicts of this run's calls, None if no call was made.
    `profile_in_place` and `event_in_place` mean that an earlier run delivered the
    same request; None: such requests are not sent, so they decide nothing.
    """
    if update is None and event is None:
        return Outcome.NOT_ATTEMPTED
    in_place = [
        is_in_place or verdict is Verdict.DELIVERED
        for is_in_place, verdict in ((profile_in_place, update), (event_in_place, event))
        if is_in_place is not None
    ]
    if all(in_place):
        return Outcome.SUCCESSFUL
    return Outcome.PARTIAL_FAILURE if any(in_place) else Outcome.TOTAL_FAILURE


def iso_time(moment: datetime) -> str:
    """Return an aware datetime as the results file writes it: ISO 8601 with milliseconds."""
    return moment.isoformat(timespec="milliseconds")


def row_entry(
    user_id: int | str | None,
    email: str | None,
    outcome: Outcome,
    reason: str | None = None,
    update: JSON | None = None,
    event: JSON | None = None,
    timestamp: str | None = None,
    first_failed_at: str | None = None,
    runs_failed: int | None = None,
) -> JSON:
    """Return a row's entry in `records[]` of the results file.

    `update` and `event` are `CallResult.to_json()`, None if no call was made. `timestamp` is the
    time of the outcome (ISO 8601); None means now. `first_failed_at` and `runs_failed` say how long
    the row has failed for the same reason; None means that it did not fail.
    """
    return {
        "user_id": user_id,
        "email": email,
        "timestamp": timestamp or iso_time(datetime.now(timezone.utc)),
        "outcome": outcome.value,
        "overall_success": outcome in (Outcome.SUCCESSFUL, Outcome.UNCHANGED),
        "reason": reason,
        "first_failed_at": first_failed_at,
        "runs_failed": runs_failed,
        "users_update": update,
        "events_track": event,
    }
