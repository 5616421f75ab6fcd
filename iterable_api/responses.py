"""What an answer of Iterable's means: the one table that every reaction rests on.

Owns the reading of an HTTP answer (status, JSON body, named wait) and its verdict. Sources:
Iterable's API reference (`IterableApiResponse.code`) and its article "API overview and sample
payloads". Sends nothing.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

from records.outcomes import Verdict

USERS_UPDATE = "users/update"
EVENTS_TRACK = "events/track"
USERS_BULK_UPDATE = "users/bulkUpdate"
EVENTS_TRACK_BULK = "events/trackBulk"
BULK_ENDPOINTS = frozenset({USERS_BULK_UPDATE, EVENTS_TRACK_BULK})

_UNKNOWN_USER_CODES = frozenset({"UnknownEmailError", "UnknownUserIdError"})
_MAX_MESSAGE_CHARACTERS = 2_000


@dataclass(frozen=True)
class ApiResponse:
    """What one attempt brought: an HTTP answer, or (`status` None) the trouble instead of one.

    `body` is the parsed JSON, None where there was none; `trouble` says what came instead.
    """

    status: int | None
    body: Any = None
    trouble: str = ""
    requested_wait_seconds: float | None = None
    request_id: str | None = None
    content: bytes = b""  # as it came, secrets taken out
    is_certificate_error: bool = False

    @property
    def code(self) -> str | None:
        """Iterable's `code`, or the name of the trouble."""
        if isinstance(self.body, dict) and isinstance(self.body.get("code"), str):
            return str(self.body["code"])[:100]
        return None if isinstance(self.body, dict) else self.trouble

    @property
    def message(self) -> str:
        if not isinstance(self.body, dict):
            return self.trouble
        said = self.body.get("msg") or ""
        # Only a text is a message: what is nested deep enough cannot even be written as one.
        return said[:_MAX_MESSAGE_CHARACTERS] if isinstance(said, str) else ""

    @property
    def params(self) -> Any:
        return self.body.get("params") if isinstance(self.body, dict) else None


def verdict_of(endpoint: str, answer: ApiResponse) -> Verdict:
    """Classify an answer.

    The status is read before the body: Iterable's `code` is sometimes "Success" on an error.
    """
    status, body = answer.status, answer.body
    if answer.is_certificate_error:
        return Verdict.REFUSED  # not Iterable, or not to be trusted: no retry mends that
    if status is None or status < 200 or status in (408, 425, 429) or status >= 500:
        return Verdict.UNAVAILABLE
    if status in (401, 403) or 300 <= status < 400:
        return Verdict.REFUSED
    if status == 404:
        return Verdict.REJECTED if answer.code in _UNKNOWN_USER_CODES else Verdict.REFUSED
    if status >= 400:
        return Verdict.REJECTED
    if not isinstance(body, dict):
        return Verdict.UNAVAILABLE
    if endpoint in BULK_ENDPOINTS:
        counts = (body.get("successCount"), body.get("failCount"))
        return Verdict.DELIVERED if all(map(_is_count, counts)) else Verdict.UNAVAILABLE
    if "is disallowed from tracking" in answer.message:
        return Verdict.REJECTED
    if not isinstance(body.get("code"), str):
        return Verdict.UNAVAILABLE
    return Verdict.DELIVERED if body["code"] == "Success" else Verdict.REJECTED


def requested_wait_seconds(
    retry_after: str | None, body: object, now: datetime | None = None
) -> float | None:
    """Return how long Iterable asks to wait: `Retry-After` (seconds or date), or the
    `params.rateLimitReset` (seconds) of a 429's body; the longer of the two, None if neither.
    """
    waits: list[float] = []
    if retry_after:
        try:
            waits.append(float(retry_after))
        except ValueError:
            waits.extend(_seconds_until(retry_after, now or datetime.now(timezone.utc)))
    params = body.get("params") if isinstance(body, dict) else None
    reset = params.get("rateLimitReset") if isinstance(params, dict) else None
    if isinstance(reset, (int, float)) and not isinstance(reset, bool) and 0 <= reset < 1e12:
        waits.append(float(reset))
    # NaN and the like compare false and fall out here.
    return max((wait for wait in waits if 0 <= wait < float("inf")), default=None)


def error_line(endpoint: str, answer: ApiResponse) -> str:
    """Word a failed attempt for the log."""
    if answer.status is None:
        return f"No answer from {endpoint}: {answer.trouble}"
    if answer.status >= 500:
        return f"5xx Server Error from {endpoint}: Status {answer.status}"
    if answer.status >= 400:
        return f"4xx Client Error from {endpoint}: Status {answer.status}"
    if answer.status >= 300:
        return f"Redirect from {endpoint}, not followed: Status {answer.status}"
    return f"Unexpected answer from {endpoint}: Status {answer.status}"


def log_level(verdict: Verdict, *, is_last: bool) -> int:
    """Return how loud a failed attempt is: what will be tried again is only a warning."""
    if verdict is Verdict.UNAVAILABLE and not is_last:
        return logging.WARNING
    return logging.ERROR


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _seconds_until(http_date: str, now: datetime) -> list[float]:
    try:
        moment = parsedate_to_datetime(http_date)
    except (TypeError, ValueError, IndexError, OverflowError):
        return []
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return [max(0.0, (moment - now).total_seconds())]
