"""Table of faults: what the sandbox does to calls, and how a run has to end.

One line for each fault and variant of `sandbox/faults.py`. The expected ends are written down here
independently of the program. `tests/support/fault_runs.py` runs the cases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

BATCH_SIZE = 4
USER_COUNT = 9  # so few waiting requests that each is tried in an outage before the patience ends
MODES = ("per-user", "bulk")

Rule = Mapping[str, Any]


class Effect(Enum):
    """What becomes of a call that is hit by a fault."""

    NONE = "delivered"
    LOST = "not answered: retried, up to MAX_ATTEMPTS, or waits in an outage"
    PUT_OFF = "answered, but retried up to MAX_ATTEMPTS"
    LIMITED = "retried for five minutes"
    REJECTED = "rejected without a retry"
    UNREACHABLE = "rejected without a retry, and the event is not sent"
    UNBELIEVED = "the response contradicts itself: the batch is split, a single row fails"
    BLOCKED = "rejected without a retry; if no call gets through, the run is aborted"
    REFUSED = "refused: the run is aborted"


RETRIED = (Effect.LOST, Effect.PUT_OFF, Effect.LIMITED)


class When(Enum):
    """Which of the selected calls are hit."""

    FIRST = "the first call"
    SOME = "calls 2, 4 and 7"
    ALWAYS = "every call"


class Where(Enum):
    """Which endpoints are hit."""

    UPDATES = "updates"
    EVENTS = "events"
    BOTH = "both"


@dataclass(frozen=True)
class Fault:
    """One fault of the sandbox, and its effect on a call in each mode."""

    rule: Rule
    per_user: Effect
    bulk: Effect

    @property
    def name(self) -> str:
        parameters = [f"{key}={value!r}" for key, value in self.rule.items() if key != "fault"]
        return " ".join([self.rule["fault"], *parameters])

    def effect(self, mode: str) -> Effect:
        return self.bulk if mode == "bulk" else self.per_user


@dataclass(frozen=True)
class Case:
    """One run of the table."""

    fault: Fault
    when: When
    where: Where
    mode: str

    def __str__(self) -> str:
        return f"{self.fault.name}, {self.when.value}, {self.where.value}, {self.mode}"

    def rules(self) -> list[dict[str, Any]]:
        """Return the rules for the sandbox."""
        rule = dict(self.fault.rule)
        if self.where is not Where.BOTH:
            endpoints = _ENDPOINTS[self.mode]
            rule["endpoint"] = endpoints[0 if self.where is Where.UPDATES else 1]
        if self.when is When.FIRST:
            rule["times"] = 1
        elif self.when is When.SOME:
            rule["nth"] = [2, 4, 7]
        return [rule]

    def end(self) -> End:
        """Return the expected end of the run."""
        effect = self.fault.effect(self.mode)
        passes = effect in RETRIED and self.when is not When.ALWAYS
        if effect is Effect.NONE or passes:
            return End(0, {"successful": USER_COUNT})
        splits = self.mode == "bulk" and effect in _SPLIT
        if splits and self.when is When.FIRST:  # its parts are accepted
            return End(0, {"successful": USER_COUNT})
        if splits and self.when is When.SOME:  # a row fails if it is alone when it is hit
            return End(None, None)
        # If only some calls are blocked, the API answers when it is asked.
        nothing_passes = self.where is Where.BOTH
        if effect is Effect.BLOCKED and self.when is When.ALWAYS and nothing_passes:
            return End(1, {"total_failures": 3, "not_attempted": USER_COUNT - 3})
        if effect is Effect.LOST and self.when is When.ALWAYS and nothing_passes:
            return End(1, {"not_attempted": USER_COUNT})
        if effect is Effect.LIMITED and self.when is When.ALWAYS:
            return End(1, None)
        # The first call goes alone and has the updates of the first row or batch; its events and
        # the other rows follow together.
        first_count = BATCH_SIZE if self.mode == "bulk" else 1
        hits_update = self.where is not Where.EVENTS and self.when is not When.SOME
        hits_event = self.where is not Where.UPDATES and self.when is not When.FIRST
        kills_both = (hits_update and hits_event) or (
            hits_update and effect in (Effect.REFUSED, Effect.UNREACHABLE)
        )
        failed = "total_failures" if kills_both else "partial_failures"
        if effect is Effect.REFUSED and not hits_update:
            return End(1, None)
        if effect is Effect.REFUSED:
            return End(1, {failed: first_count, "not_attempted": USER_COUNT - first_count})
        if self.when is When.ALWAYS:
            return End(3, {failed: USER_COUNT})
        if self.when is When.FIRST:
            return End(3, {failed: 1, "successful": USER_COUNT - 1})
        return End(3, None)


@dataclass(frozen=True)
class End:
    """Exit status and counts of a run; None where chance decides which rows are hit."""

    status: int | None
    counts: Mapping[str, int] | None


_ENDPOINTS = {
    "per-user": ("users/update", "events/track"),
    "bulk": ("users/bulkUpdate", "events/trackBulk"),
}
_NONE, _LOST, _LIMITED = Effect.NONE, Effect.LOST, Effect.LIMITED
_PUT_OFF = Effect.PUT_OFF
_SPLIT = (Effect.REJECTED, Effect.UNREACHABLE, Effect.UNBELIEVED, Effect.BLOCKED)
_REJECTED, _REFUSED, _UNREACHABLE = Effect.REJECTED, Effect.REFUSED, Effect.UNREACHABLE
_FAR_DATE, _PAST_DATE = "Fri, 31 Dec 9999 23:59:59 GMT", "Thu, 01 Jan 1970 00:00:00 GMT"


def _fault(
    effect: Effect, fault: str, *, in_bulk: Effect | None = None, **parameters: Any
) -> Fault:
    return Fault({"fault": fault, **parameters}, effect, in_bulk or effect)


# One fault of each kind: tried with every `When` and `Where`.
KINDS = [
    _fault(_NONE, "delay", seconds=0.02),
    _fault(_LOST, "status", status=503),
    _fault(_REJECTED, "status", status=400),
    _fault(_REFUSED, "status", status=401),
    _fault(_LIMITED, "rate_limited"),
    _fault(_LOST, "malformed_json"),
    _fault(_LOST, "html_body"),
    _fault(Effect.BLOCKED, "html_body", status=403),  # a firewall's page
    _fault(_LOST, "half_body"),
    _fault(_LOST, "empty_body"),
    _fault(_LOST, "drop_before"),
    _fault(_LOST, "drop_after"),
    _fault(_REFUSED, "redirect"),
    _fault(_NONE, "miscount", in_bulk=Effect.UNBELIEVED),
    _fault(_LOST, "success_code_on_error"),
    _fault(_REJECTED, "error_code_on_200", in_bulk=_PUT_OFF),  # no counts, so no row is settled
    _fault(_REJECTED, "echo_request"),
    _fault(_NONE, "huge_body", bytes=20_000),
    _fault(_NONE, "early_hints"),
    _fault(_NONE, "early_hints", count=3),
    _fault(_NONE, "compressed"),
]
# These cannot be limited to an endpoint, or take real time.
WITHOUT_ENDPOINT = [
    _fault(_LOST, "down"),
    _fault(_LOST, "hang"),
    _fault(_LOST, "hang", applied=True),
]

# Every other parameter and kind of value, once.
VARIANTS = [
    *(_fault(_REFUSED, "status", status=status) for status in (300, 403, 404)),
    _fault(_REJECTED, "status", status=404, code="UnknownEmailError"),
    *(_fault(_REJECTED, "status", status=status) for status in (402, 405, 413, 422)),
    _fault(_REJECTED, "status", status=409, code="UserIdAlreadyExists"),
    _fault(_UNREACHABLE, "status", status=409, code="ForgottenUserError"),
    _fault(_UNREACHABLE, "status", status=400, code="InvalidEmailAddressError"),
    _fault(_REJECTED, "status", status=400, code="Success", msg="\u202e\x00 odd\r\nX: y"),
    *(_fault(_LOST, "status", status=status) for status in (408, 425, 500, 502, 504, 599, "any")),
    _fault(_LOST, "status", status=500, applied=True),
    _fault(_REJECTED, "status", status=400, applied=True),
    _fault(_LOST, "status", status=503, applied=False),
    _fault(_NONE, "status", in_bulk=_LOST, status=201, code="Success", applied=True),
    *(
        _fault(_LOST, "status", status=503, retry_after=wait)
        for wait in (0, 0.05, 1e9, _FAR_DATE, _PAST_DATE, "soon", "-5", "nan", "inf")
    ),
    _fault(_LIMITED, "status", status=429),
    _fault(_LIMITED, "status", status=429, code="Success", applied=True, retry_after=0),
    *(_fault(_LIMITED, "rate_limited", reset=reset) for reset in (None, 0, 0.05, 90, 1e9, 1e300)),
    *(
        _fault(_LIMITED, "rate_limited", reset=None, retry_after=wait)
        for wait in (0, 1e9, _FAR_DATE, _PAST_DATE, "soon", "-5", "nan", "1e999")
    ),
    _fault(_LOST, "malformed_json", applied=False),
    _fault(_LOST, "malformed_json", applied=True, status=500),
    _fault(_REJECTED, "malformed_json", status=400),
    _fault(_LOST, "html_body", applied=False, status=502),
    _fault(_LOST, "html_body", applied=True, status=504),
    *(_fault(Effect.BLOCKED, "html_body", status=status) for status in (400, 406, 407, 418, 451)),
    _fault(_REFUSED, "html_body", status=404),
    _fault(_LIMITED, "html_body", status=429),
    _fault(_LOST, "half_body", applied=False),
    _fault(_LOST, "half_body", applied=True, status=500),
    _fault(_REJECTED, "half_body", status=400),
    _fault(_LOST, "empty_body", applied=True),
    _fault(_LOST, "empty_body", applied=False, status=503),
    _fault(_LOST, "empty_body", status=204),
    _fault(_LIMITED, "empty_body", status=429),
    _fault(_LOST, "hang", applied=False),
    *(_fault(_REFUSED, "redirect", status=status) for status in (301, 302, 303, 307, 308)),
    _fault(_REFUSED, "redirect", status=308, location="https://api.iterable.invalid/"),
    *(_fault(_NONE, "miscount", in_bulk=Effect.UNBELIEVED, by=by) for by in (1, 10**9)),
    _fault(_NONE, "miscount", in_bulk=_LOST, by=-5),  # a count cannot be negative
    _fault(_REJECTED, "success_code_on_error", status=400),
    _fault(_REJECTED, "success_code_on_error", status=409, applied=True),
    _fault(_LOST, "success_code_on_error", status=502, applied=False),
    _fault(_LIMITED, "success_code_on_error", status=429),
    _fault(_REFUSED, "success_code_on_error", status=404),
    _fault(_REJECTED, "error_code_on_200", in_bulk=_LOST, code="DatabaseError", applied=True),
    _fault(
        _REJECTED,
        "error_code_on_200",
        in_bulk=_LOST,
        code="Success",
        msg="Event page_view is disallowed from tracking.",
        applied=False,
    ),
    _fault(_REJECTED, "echo_request", status=400),
    _fault(_LOST, "echo_request", status=500),
    _fault(_LOST, "huge_body", bytes=8_100_000),  # more than is read of any response
    _fault(_LOST, "huge_body", bytes=9_000, status=500, applied=False),
    _fault(_REJECTED, "huge_body", bytes=9_000, status=400, applied=True),
]


def all_cases() -> list[Case]:
    """Return the whole table."""
    ways = [
        *((When.FIRST, Where.BOTH), (When.SOME, Where.BOTH), (When.ALWAYS, Where.UPDATES)),
        *((When.ALWAYS, Where.EVENTS), (When.ALWAYS, Where.BOTH)),
    ]
    tried = [(fault, when, where) for fault in KINDS for when, where in ways]
    tried += [
        (fault, when, Where.BOTH)
        for fault in WITHOUT_ENDPOINT
        for when in (When.FIRST, When.ALWAYS)
    ]
    tried += [(fault, When.FIRST, Where.BOTH) for fault in VARIANTS]
    return [Case(*each, mode) for each in tried for mode in MODES]


def cases_by_turns() -> list[Case]:
    """Return half of the cases; those that must end alike in both modes alternate between them."""
    return [
        case
        for number, case in enumerate(all_cases())
        if case.fault.per_user is not case.fault.bulk or number % 2 == number // 2 % 2
    ]
