"""Iterable's API as this program uses it: the single and the bulk calls, paced and retried.

`IterableClient.call` is the one retry loop: attempt (`iterable_http`), decide (`verdicts`),
wait (`pacing`). What Iterable or the network does is a `CallResult`, never an exception. Knows
no SQLite and starts no threads, but may be called from many at once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence

import orjson
import requests

from iterable_api.http import TIMEOUT_SECONDS, IterableHTTP
from iterable_api.rate_limiter import RateLimiter, backoff_seconds
from iterable_api.responses import (
    BULK_ENDPOINTS,
    EVENTS_TRACK,
    EVENTS_TRACK_BULK,
    NO_API_RESPONSE,
    USERS_BULK_UPDATE,
    USERS_UPDATE,
    ApiResponse,
    error_line,
    log_level,
    verdict_of,
)
from records.json_values import to_json_value
from records.mapping import InvalidRow, RowMapping
from records.outcomes import (
    JSON,
    CallResult,
    Outcome,
    Verdict,
    event_may_follow,
    row_entry,
    row_outcome,
)

logger = logging.getLogger(__name__)

DEFAULT_BASE_URL = "https://api.iterable.com"
# Iterable's documented limits, requests a second and project.
DOCUMENTED_RPS: Mapping[str, float] = {
    USERS_UPDATE: 500,
    EVENTS_TRACK: 2000,
    USERS_BULK_UPDATE: 5,
    EVENTS_TRACK_BULK: 10,
}
MAX_RATE_LIMITED_SECONDS = 300.0  # no call waits longer than this on 429s
MAX_LOGGED_BYTES = 20_000


class IterableClient:
    """Iterable's API for one project. Thread-safe.

    `requests_per_second` is a rate by endpoint, Iterable's documented ones where not named;
    `stop`, once set, ends every wait, so that a call under retry returns with what it has.
    `to_mapping` makes the row mapping that `process_user_record` uses.
    """

    def __init__(
        self,
        api_key: str,
        base_url: str = DEFAULT_BASE_URL,
        *,
        requests_per_second: Mapping[str, float] = DOCUMENTED_RPS,
        max_attempts: int = 5,
        log_payloads: bool = True,
        connections: int = 16,
        timeout_seconds: tuple[float, float] = TIMEOUT_SECONDS,
        to_mapping: Callable[[Sequence[str]], RowMapping] = RowMapping,
        stop: threading.Event | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        rates = {**DOCUMENTED_RPS, **requests_per_second}
        self.rate_limiters = {
            endpoint: RateLimiter(rate, clock=clock) for endpoint, rate in rates.items()
        }
        self.call_count = 0  # attempts made, retries included
        self.retry_count = 0
        self._counting = threading.Lock()
        self._max_attempts = max_attempts
        self._log_payloads = log_payloads
        self._to_mapping = to_mapping
        self._stop = stop or threading.Event()
        self._clock = clock
        self._http = IterableHTTP(
            api_key, base_url, connections=connections, timeout_seconds=timeout_seconds
        )

    def __repr__(self) -> str:
        return f"IterableClient({self._http.base_url!r})"

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def update_user(self, email: str, data_fields: JSON) -> tuple[bool, JSON]:
        """Create or update a profile (`POST /api/users/update`).

        Values may be of MySQL's types. Returns whether Iterable took it, and its `{code, msg,
        params}` together with our `verdict`, `http_status` and `attempts`. Raises ValueError for
        a value without a JSON form.
        """
        body = orjson.dumps({"email": email, "dataFields": to_json_value(data_fields)})
        return _friendly(self.call(USERS_UPDATE, body))

    def track_event(
        self,
        email: str,
        event_name: str,
        data_fields: JSON,
        *,
        event_id: str | None = None,
        created_at: int | None = None,
    ) -> tuple[bool, JSON]:
        """Track an event (`POST /api/events/track`); `created_at` is in unix seconds.

        With an `event_id` a repeat updates the event instead of doubling it. Returns what
        `update_user` returns.
        """
        body: JSON = {"email": email, "eventName": event_name}
        body["dataFields"] = to_json_value(data_fields)
        if event_id is not None:
            body["id"] = event_id
        if created_at is not None:
            body["createdAt"] = created_at
        return _friendly(self.call(EVENTS_TRACK, orjson.dumps(body)))

    def bulk_update_users(
        self, users: Sequence[bytes], subject: str = "", *, has_permit: bool = False
    ) -> CallResult:
        """Update profiles (`POST /api/users/bulkUpdate`), each the JSON body of a single call.

        `delivered` means that Iterable processed the batch. Rows may still have failed:
        `bulk_body` is the response with the counts and the failed rows.
        """
        body = b'{"users":[%b]}' % b",".join(users)
        return self.call(USERS_BULK_UPDATE, body, subject, has_permit=has_permit)

    def bulk_track_events(
        self, events: Sequence[bytes], subject: str = "", *, has_permit: bool = False
    ) -> CallResult:
        """Track events (`POST /api/events/trackBulk`); as `bulk_update_users`."""
        body = b'{"events":[%b]}' % b",".join(events)
        return self.call(EVENTS_TRACK_BULK, body, subject, has_permit=has_permit)

    def process_user_record(self, user_record: JSON) -> JSON:
        """Update the profile and track the page view of one row of the query.

        Returns the row's entry of the results file. Columns that the row lacks count as NULL.
        """
        mapping = self._to_mapping(list(user_record))
        record = mapping.to_record([*user_record.values(), None])  # None is for what it lacks
        if isinstance(record, InvalidRow):
            return row_entry(record.user_id, record.email, Outcome.INVALID, record.reason)
        subject = f"user {record.user_id}"
        update = self.call(USERS_UPDATE, record.profile, subject)
        goes_on = event_may_follow(update)
        event = self.call(EVENTS_TRACK, record.event, subject) if goes_on else None
        return row_entry(
            record.user_id,
            record.email,
            row_outcome(update.verdict, event.verdict if event else None),
            None,
            update.to_json(),
            event.to_json() if event else None,
        )

    def call(
        self, endpoint: str, body: bytes, subject: str = "", *, has_permit: bool = False
    ) -> CallResult:
        """Make one call, tried again while that may help; `subject` names it in the log.

        Never raises for what the network or Iterable does. `has_permit` says that the permit
        of the first attempt was taken already. A 429 slows the whole endpoint and uses up no
        attempt, but no call waits longer than 5 minutes on 429s.
        """
        pace = self.rate_limiters[endpoint]
        started_at = self._clock()
        limited_at = float("inf")  # when the first 429 came
        attempts = failures = 0
        answer, verdict = (
            ApiResponse(None, problem="stopped before it was sent"),
            Verdict.UNAVAILABLE,
        )
        while has_permit or pace.acquire(self._stop.wait):
            has_permit = False
            attempts += 1
            sent_at = self._clock()
            answer = self._http.post(endpoint, body)
            if logger.isEnabledFor(logging.DEBUG):
                self._log_attempt(
                    f"{endpoint} {subject} attempt {attempts}",
                    body,
                    answer,
                    self._clock() - sent_at,
                    is_bulk=endpoint in BULK_ENDPOINTS,
                )
            verdict = verdict_of(endpoint, answer)
            if verdict is Verdict.DELIVERED:
                break
            if answer.status == 429:
                limited_at = min(limited_at, self._clock())
                pace.slow_down(answer.requested_wait_seconds or 0.0)
            else:
                failures += 1
            wait_seconds = self._wait_before_retry(verdict, answer, attempts, failures, limited_at)
            self._log_failure(endpoint, answer, verdict, subject, attempts, wait_seconds)
            if wait_seconds is None or self._stop.wait(wait_seconds):
                break
        with self._counting:
            self.call_count += attempts
            self.retry_count += max(0, attempts - 1)
        elapsed_seconds = self._clock() - started_at
        return _to_result(endpoint, answer, verdict, attempts, elapsed_seconds)

    def _wait_before_retry(
        self, verdict: Verdict, answer: ApiResponse, attempts: int, failures: int, limited_at: float
    ) -> float | None:
        """Return the seconds to wait before another attempt, None when this was the last."""
        if verdict is not Verdict.UNAVAILABLE or self._stop.is_set():
            return None
        if answer.status != 429:
            if failures >= self._max_attempts:
                return None
            return backoff_seconds(failures, answer.requested_wait_seconds)
        wait_seconds = backoff_seconds(attempts, answer.requested_wait_seconds)
        waited_seconds = self._clock() - limited_at
        return wait_seconds if waited_seconds + wait_seconds <= MAX_RATE_LIMITED_SECONDS else None

    def _handle_response(self, response: requests.Response, endpoint: str) -> tuple[bool, JSON]:
        """Judge and log an answer made elsewhere, as `call` judges its own."""
        try:
            body = orjson.loads(self._http.without_key(orjson.dumps(response.json())))
        except (ValueError, TypeError, RecursionError):  # the last of what is nested deep
            body = None
        answer = ApiResponse(response.status_code, body, NO_API_RESPONSE)  # read where body is none
        verdict = verdict_of(endpoint, answer)
        if verdict is not Verdict.DELIVERED:
            self._log_failure(endpoint, answer, verdict, "", 1, None)
        return _friendly(_to_result(endpoint, answer, verdict))

    def _log_attempt(
        self,
        called: str,
        body: bytes,
        answer: ApiResponse,
        elapsed_seconds: float,
        *,
        is_bulk: bool,
    ) -> None:
        """Write down one request and its answer; of a bulk request, its size."""
        shown, got = f"{len(body)} bytes", f"{len(answer.content)} bytes"
        if self._log_payloads:
            got = answer.content[:MAX_LOGGED_BYTES].decode("utf-8", "replace")
            if not is_bulk:
                shown = body[:MAX_LOGGED_BYTES].decode("utf-8", "replace")
        logger.debug(
            "%s: %s in %.0f ms, Iterable-Request-Id %s, request %s, response %s",
            called,
            answer.status or answer.problem,
            elapsed_seconds * 1000,
            answer.request_id,
            shown,
            got,
        )

    def _log_failure(
        self,
        endpoint: str,
        answer: ApiResponse,
        verdict: Verdict,
        subject: str,
        attempt: int,
        wait_seconds: float | None,
    ) -> None:
        details = [subject] if subject else []
        details += [answer.code] if answer.code and answer.status is not None else []
        if self._log_payloads and answer.message not in ("", answer.problem):
            details.append(answer.message[:200])
        if wait_seconds is not None:
            details.append(f"attempt {attempt}, again in {wait_seconds:.1f} s")
        elif attempt > 1:
            details.append(f"attempt {attempt}, the last")
        level = log_level(verdict, is_last=wait_seconds is None)
        said = f" ({'; '.join(details)})" if details else ""
        logger.log(level, "%s%s", error_line(endpoint, answer), said)


def _to_result(
    endpoint: str,
    answer: ApiResponse,
    verdict: Verdict,
    attempts: int = 1,
    elapsed_seconds: float = 0.0,
) -> CallResult:
    is_delivered_batch = endpoint in BULK_ENDPOINTS and verdict is Verdict.DELIVERED
    return CallResult(
        verdict,
        answer.status,
        answer.code,
        answer.message,
        _storable(answer.params),
        attempts,
        elapsed_seconds,
        answer.body if is_delivered_batch else None,
    )


def _storable(params: object) -> object:
    """Return what can be written down again: JSON may be read deeper than it can be written."""
    try:
        orjson.dumps([[[[params]]]])
    except orjson.JSONEncodeError:
        return None
    return params


def _friendly(result: CallResult) -> tuple[bool, JSON]:
    return result.delivered, {
        **result.response,
        "verdict": result.verdict.value,
        "http_status": result.http_status,
        "attempts": result.attempts,
    }
