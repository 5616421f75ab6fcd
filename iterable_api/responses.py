"""Iterable's responses: the parsed body, the verdict, the requested wait, the log line.

Sources: Iterable's API reference (`IterableApiResponse.code`) and its article "API overview and
sample payloads".
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from records.outcomes import Verdict

USERS_UPDATE = "users/update"
EVENTS_TRACK = "events/track"
USERS_BULK_UPDATE = "users/bulkUpdate"
EVENTS_TRACK_BULK = "events/trackBulk"
USERS_UPDATE_EMAIL = "users/updateEmail"
USERS_GET_FIELDS = "users/getFields"
BULK_ENDPOINTS = frozenset({USERS_BULK_UPDATE, EVENTS_TRACK_BULK})

UNKNOWN_USER_CODES = frozenset(
    {"UnknownEmailError", "UnknownUserIdError", "error.users.noUserWithIdExists"}
)
_MAX_MESSAGE_CHARACTERS = 2_000
NO_API_RESPONSE = "not an API response"  # `ApiResponse.problem` if the body is not a JSON object


@dataclass(frozen=True)
class ApiResponse:
    """The result of one attempt: an HTTP response or, with `status` None, a network error.

    `body` is the parsed JSON, None if there is none. Unless it is an object, `problem` names the
    network error or is `NO_API_RESPONSE`.
    """

    status: int | None
    body: Any = None
    problem: str = ""
    requested_wait_seconds: float | None = None
    request_id: str | None = None
    content: bytes = b""  # the raw body, with the API key redacted
    is_permanent_error: bool = False  # e.g. an untrusted certificate

    @property
    def is_from_api(self) -> bool:
        """Whether this is the API's own JSON, not a page of a proxy or firewall in between.

        Errors have the form `IterableApiResponse`: `code` and `msg` are texts. A success may be
        any object, because GETs and bulk calls return their data without a `code`.
        """
        if self.status is None or not isinstance(self.body, dict):
            return False
        if 200 <= self.status < 300:
            return True
        return isinstance(self.body.get("code"), str) and isinstance(self.body.get("msg"), str)

    @property
    def is_answer(self) -> bool:
        """Whether Iterable is up: the API's JSON with a status other than 408 and 5xx."""
        return self.is_from_api and self.status != 408 and (self.status or 0) < 500

    @property
    def is_blocked(self) -> bool:
        """Whether a proxy or firewall in between rejected the request: 4xx, not the API's JSON.

        401 is about the key, 408, 425 and 429 pass, and 413 is about the size of a batch.
        """
        status = self.status or 0
        return (
            400 <= status < 500 and status not in (401, 408, 413, 425, 429) and not self.is_from_api
        )

    @property
    def code(self) -> str | None:
        """Iterable's `code`, or `problem` if there is no JSON object."""
        if isinstance(self.body, dict) and isinstance(self.body.get("code"), str):
            return str(self.body["code"])[:100]
        return None if isinstance(self.body, dict) else self.problem

    @property
    def message(self) -> str:
        """Iterable's `msg`, or `problem` if there is no JSON object."""
        if not isinstance(self.body, dict):
            return self.problem
        message = self.body.get("msg")
        # Only text: `str()` of deeply nested JSON would exceed the recursion limit.
        return message[:_MAX_MESSAGE_CHARACTERS] if isinstance(message, str) else ""

    @property
    def params(self) -> Any:
        """Iterable's `params`, any JSON value."""
        return self.body.get("params") if isinstance(self.body, dict) else None


def verdict_of(
    endpoint: str, response: ApiResponse, request: bytes = b"", *, api_has_answered: bool = False
) -> Verdict:
    """Return the verdict on a response.

    The status is read before the body: Iterable's `code` is sometimes "Success" on an error.
    `request` is the body that was sent: its event's name is compared with a message that a name is
    disallowed. `api_has_answered` means that this run has had the API's own JSON: then a
    page of a proxy or firewall (`is_blocked`) concerns its own request alone.
    """
    status, body = response.status, response.body
    if response.is_permanent_error:
        return Verdict.REFUSED  # a retry meets the same certificate
    if status is None or status < 200 or status in (408, 425, 429) or status >= 500:
        return Verdict.UNAVAILABLE
    if api_has_answered and response.is_blocked:
        return Verdict.REJECTED
    if status in (401, 403) or 300 <= status < 400:
        return Verdict.REFUSED
    if status == 404:
        return Verdict.REJECTED if response.code in UNKNOWN_USER_CODES else Verdict.REFUSED
    if status >= 400:
        return Verdict.REJECTED
    if not isinstance(body, dict):
        return Verdict.UNAVAILABLE
    if endpoint in BULK_ENDPOINTS:
        counts = (body.get("successCount"), body.get("failCount"))
        return Verdict.DELIVERED if all(map(_is_count, counts)) else Verdict.UNAVAILABLE
    if _says_disallowed(response.message, request):
        return Verdict.REJECTED
    if not isinstance(body.get("code"), str):
        return Verdict.UNAVAILABLE
    return Verdict.DELIVERED if body["code"] == "Success" else Verdict.REJECTED


def requested_wait_seconds(
    retry_after: str | None, body: object, now: datetime | None = None
) -> float | None:
    """Return the seconds that Iterable asks the client to wait, None if it does not ask.

    That is the longer one of the `Retry-After` header (seconds or a date) and, in a 429's body,
    `params.rateLimitReset` (seconds).
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
    # The comparison also drops NaN.
    return max((wait for wait in waits if 0 <= wait < float("inf")), default=None)


def error_line(endpoint: str, response: ApiResponse) -> str:
    """Return the log line for a failed attempt."""
    if response.status is None:
        return f"No response from {endpoint}: {response.problem}"
    if response.status >= 500:
        return f"5xx Server Error from {endpoint}: Status {response.status}"
    if response.status >= 400:
        return f"4xx Client Error from {endpoint}: Status {response.status}"
    if response.status >= 300:
        return f"Redirect from {endpoint}, not followed: Status {response.status}"
    return f"Unexpected response from {endpoint}: Status {response.status}"


def log_level(verdict: Verdict, *, is_last: bool) -> int:
    """Return the log level of a failed attempt: WARNING if it is retried, otherwise ERROR."""
    if verdict is Verdict.UNAVAILABLE and not is_last:
        return logging.WARNING
    return logging.ERROR


def _says_disallowed(message: str, request: bytes) -> bool:
    """Return whether the project blocks the name of this event, not of another one."""
    if "is disallowed from tracking" not in message:
        return False
    event_name = orjson.loads(request or b"{}").get("eventName")
    if event_name is None:  # in doubt it is ours: a false rejection is reported and tried again
        return True
    name = re.escape(event_name)
    return re.search(rf"(?<![\w-]){name}(?![\w-])", message) is not None


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
