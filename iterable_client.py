"""Client for Iterable's API: single and bulk calls, rate limited and retried.

    client = IterableClient("your server-side key")
    delivered, response = client.update_user("ann@example.com", {"plan_type": "pro"})

Network errors and error responses are returned as results, never raised.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson
import requests

from iterable_api.circuit_breaker import Attempts, CircuitBreaker, CircuitBreakers
from iterable_api.http import TIMEOUT_SECONDS, IterableHTTP
from iterable_api.rate_limiter import (
    MAX_REQUESTED_WAIT_SECONDS,
    RateLimiter,
    backoff_seconds,
)
from iterable_api.responses import (
    BULK_ENDPOINTS,
    EVENTS_TRACK,
    EVENTS_TRACK_BULK,
    NO_API_RESPONSE,
    USERS_BULK_UPDATE,
    USERS_GET_FIELDS,
    USERS_UPDATE,
    USERS_UPDATE_EMAIL,
    ApiResponse,
    error_line,
    log_level,
    verdict_of,
)
from iterable_api.send_budget import SendBudget
from logger_config import RowText, failure_of
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
# Requests per second that Iterable allows a project, from its API reference.
DOCUMENTED_RPS: Mapping[str, float] = {
    USERS_UPDATE: 500,
    EVENTS_TRACK: 2000,
    USERS_BULK_UPDATE: 5,
    EVENTS_TRACK_BULK: 10,
    USERS_UPDATE_EMAIL: 10,  # not documented: our own caution
}
MAX_RATE_LIMITED_SECONDS = 300.0  # a call gives up after this long on 429s alone
MAX_LOGGED_BYTES = 20_000  # of each request and response body


class IterableClient:
    """Client for one Iterable project. Thread-safe.

    - `api_key`: a key of type Server-side.
    - `base_url`: for EU projects https://api.eu.iterable.com.
    - `requests_per_second`: the limit of each endpoint; `DOCUMENTED_RPS` for those it leaves out.
    - `max_attempts`: attempts per call; a 429 does not count.
    - `timeout_seconds`: to connect, and between two bytes of a request or response.
    - `log_payloads`: whether request and response bodies go into the log at level DEBUG.
    - `connections`: the number of connections to keep open.
    - `to_mapping`: builds the row mapping of `process_user_record` from the column names.
    - `stop`: an event that ends every wait; a call then returns its last result.
    - `create_new_fields`: what bulk bodies for users say of fields that the project does not have;
      None: nothing, so the project's setting decides.
    - `outage_patience_seconds`: requests wait so long for an Iterable that does not answer, see
      `iterable_api.circuit_breaker`; None: they fail after `max_attempts`.

    Raises ValueError for a key with spaces or with characters other than printable ASCII.
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
        outage_patience_seconds: float | None = None,
        create_new_fields: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        rates = {**DOCUMENTED_RPS, **requests_per_second}
        self.rate_limiters = {
            endpoint: RateLimiter(rate, clock=clock) for endpoint, rate in rates.items()
        }
        self.breakers = CircuitBreakers(rates, outage_patience_seconds, clock=clock)
        self.call_count = 0  # attempts, retries included
        self.retry_count = 0
        self.has_api_answered = False  # whether any response was the API's own JSON
        self._answered_at = float("-inf")  # when the last answer came, see `ApiResponse.is_answer`
        self._asked_at = float("-inf")  # when `is_answering` last sent a request
        self._asking = threading.Lock()
        self._counting = threading.Lock()
        self._max_attempts = max_attempts
        self._log_payloads = log_payloads
        self.create_new_fields = create_new_fields
        self._to_mapping = to_mapping
        self._stop = stop or threading.Event()
        self._clock = clock
        self._send_budget = SendBudget()
        self._http = IterableHTTP(
            api_key, base_url, connections=connections, timeout_seconds=timeout_seconds
        )

    def __repr__(self) -> str:
        return f"IterableClient({self._http.base_url!r})"

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def open_connections(self, count: int) -> None:
        """Open up to `count` connections in the background, so that the first calls find them.

        Nothing is sent and no attempt is counted. Errors are ignored: a later call meets them, too.
        """
        self._http.open_connections(count)

    def update_user(
        self, email: str | None, data_fields: JSON, *, user_id: str | None = None
    ) -> tuple[bool, JSON]:
        """Create or update a user's profile (`POST /api/users/update`).

        With a `user_id` that names the user, in a userID-based or hybrid project; `email` may be
        None, and else becomes a field of the profile.
        `data_fields` maps a profile field to a JSON value or a value of MySQL's driver (Decimal,
        datetime, ...). Returns whether Iterable accepted the update, and a dict with the `code`,
        `msg` and `params` of its response and the `verdict`, `http_status` and `attempts` of the
        call (see `CallResult`). Raises ValueError for a value that JSON cannot represent.
        """
        if user_id is None:
            body = _to_body({"email": email, "dataFields": data_fields})
        else:
            if email and isinstance(data_fields, dict):  # `_to_body` refuses anything else
                data_fields = {"email": email, **data_fields}
            body = _to_body({"userId": user_id, "dataFields": data_fields})
        return _to_tuple(self.call(USERS_UPDATE, body))

    def track_event(
        self,
        email: str | None,
        event_name: str,
        data_fields: JSON,
        *,
        user_id: str | None = None,
        event_id: str | None = None,
        created_at: int | None = None,
    ) -> tuple[bool, JSON]:
        """Track a custom event (`POST /api/events/track`).

        With a `user_id` that names the user, whom Iterable creates if it does not know it; `email`
        is then not sent.
        `created_at` is in unix seconds; None means the time at which Iterable receives the event.
        With an `event_id` (at most 64 letters, digits and hyphens) a repeated call updates the
        event; without one it adds a second event. Returns and raises what `update_user` does.
        """
        body: JSON = {"email": email} if user_id is None else {"userId": user_id}
        body["eventName"] = event_name
        body["dataFields"] = data_fields
        if event_id is not None:
            body["id"] = event_id
        if created_at is not None:
            body["createdAt"] = created_at
        return _to_tuple(self.call(EVENTS_TRACK, _to_body(body)))

    def move_user(self, current_email: str, new_email: str, subject: str = "") -> CallResult:
        """Give a user of an e-mail-based project another address (`POST /api/users/updateEmail`).

        The profile and the events go along. Iterable advises to wait 60 s before other calls for
        the user.
        """
        body = orjson.dumps({"currentEmail": current_email, "newEmail": new_email})
        return self.call(USERS_UPDATE_EMAIL, body, subject)

    def bulk_update_users(
        self, users: Sequence[bytes], subject: str = "", **options: Any
    ) -> CallResult:
        """Update many profiles in one request (`POST /api/users/bulkUpdate`).

        Each item is the JSON body of a users/update call. Iterable accepts 4 MB a request.
        `options` are those of `call`.

        `delivered` means that Iterable processed the batch. Rows may still have failed:
        `params` is the whole response, with the counts and the failed rows.
        """
        body = bulk_body(USERS_BULK_UPDATE, users, create_new_fields=self.create_new_fields)
        return self.call(USERS_BULK_UPDATE, body, subject, row_count=len(users), **options)

    def bulk_track_events(
        self, events: Sequence[bytes], subject: str = "", **options: Any
    ) -> CallResult:
        """Track many events in one request (`POST /api/events/trackBulk`).

        Each item is the JSON body of an events/track call. Returns what `bulk_update_users` does.
        """
        body = bulk_body(EVENTS_TRACK_BULK, events)
        return self.call(EVENTS_TRACK_BULK, body, subject, row_count=len(events), **options)

    def process_user_record(self, user_record: JSON) -> JSON:
        """Update the profile and track the page view of one row.

        `user_record` maps column names to values; missing columns count as NULL. Returns the
        row's entry in `records[]` of the results file.
        """
        mapping = self._to_mapping(list(user_record))
        record = mapping.to_record([*user_record.values(), None])  # None: missing columns
        if isinstance(record, InvalidRow):
            return row_entry(record.user_id, record.email, Outcome.INVALID, record.reason)
        subject = f"user {record.user_id}"
        update = event = None
        if record.profile is not None:
            update = self.call(USERS_UPDATE, record.profile, subject)
        if record.event is not None and (
            update is None
            or update.delivered
            or (not mapping.event_needs_profile and event_may_follow(update))
        ):
            event = self.call(EVENTS_TRACK, record.event, subject)
        return row_entry(
            record.user_id,
            record.email,
            row_outcome(
                update.verdict if update else None,
                event.verdict if event else None,
                profile_in_place=False if mapping.sends_profiles else None,
                event_in_place=False if mapping.sends_events else None,
            ),
            None,
            update.to_json() if update else None,
            event.to_json() if event else None,
        )

    def call(
        self,
        endpoint: str,
        body: bytes,
        subject: str = "",
        *,
        max_attempts: int | None = None,
        before_attempt: Callable[[int], bool] = lambda _attempt: True,
        after_failure: Callable[[], object] = lambda: None,
        row_count: int = 1,
        is_suspect: bool = False,
    ) -> CallResult:
        """POST a JSON body to an endpoint and retry; `subject` names the call in the log.

        Retries what may succeed later (`Verdict.UNAVAILABLE`), with exponential backoff and full
        jitter. While the endpoint's circuit breaker is open, the call waits. A 429 slows down the
        whole endpoint and does not count as an attempt of `max_attempts`; after 5 minutes of
        nothing but 429s the call gives up. `max_attempts` can only lower that of the client.
        `before_attempt(number)` is called right before an attempt is sent, or when it failed to
        connect; if it returns False, neither this attempt nor a later one is made.
        `after_failure()` is called when an attempt has failed that may be retried. `is_suspect`:
        the `row_count` rows are part of a batch that was not answered while others were.
        """
        max_attempts = min(max_attempts or self._max_attempts, self._max_attempts)
        rate_limiter, breaker = self.rate_limiters[endpoint], self.breakers[endpoint]
        tried = breaker.attempts(max_attempts, count_at_once=is_suspect)
        started_at = self._clock()
        attempts = limited_count = 0
        limited_at = started_at  # when the first of `limited_count` 429s came
        response = ApiResponse(None, problem="stopped before it was sent")
        verdict = Verdict.UNAVAILABLE
        while (
            breaker.admit(tried, self._stop)
            and (share := self._send_budget.take(len(body), self._stop)) is not None
        ):
            with share, self._http.connection() as connection:
                # A call starts after its handshake, which takes two round trips or more: where new
                # connections give way to reused ones, too many calls would arrive at once.
                sent_at = self._clock()
                error = connection.open()
                if error is None:
                    if not rate_limiter.acquire(self._stop.wait):
                        break
                    if breaker.holds_back(tried):
                        continue
                    sent_at = self._clock()
                    error = connection.open()  # if the server has closed it in the meantime
                if not before_attempt(attempts + 1):
                    break
                attempts += 1
                self._count_attempt(is_retry=attempts > 1)
                response = error or connection.post(endpoint, body, share)
            taken_seconds = self._clock() - sent_at
            if self._note_answer(response):
                breaker.note_answer(is_rate_limited=response.status == 429)
            verdict = verdict_of(endpoint, response, body, api_has_answered=self.has_api_answered)
            if logger.isEnabledFor(logging.DEBUG):
                self._log_attempt(
                    f"{endpoint} {subject} attempt {attempts}",
                    body,
                    response,
                    taken_seconds,
                    is_bulk=endpoint in BULK_ENDPOINTS,
                    is_delivered=verdict is Verdict.DELIVERED,
                )
            if verdict is Verdict.DELIVERED:
                break
            if verdict is Verdict.UNAVAILABLE:
                after_failure()
            if response.status == 429:
                limited_at = limited_at if limited_count else self._clock()
                limited_count += 1
                rate_limiter.slow_down(response.requested_wait_seconds or 0.0, started_at=sent_at)
            else:
                limited_count = 0
                verdict = self._judge_unanswered(
                    breaker, tried, response, verdict, sent_at, is_alone=row_count == 1
                )
            wait_seconds = self._wait_before_retry(
                verdict, response, breaker, tried, limited_count, limited_at
            )
            self._log_failure(
                endpoint,
                response,
                verdict,
                subject,
                attempts,
                wait_seconds,
                is_outage=breaker.is_open and not tried.are_used_up,
            )
            if wait_seconds is None or self._stop.wait(wait_seconds):
                break
        breaker.end_probe(tried)
        elapsed_seconds = self._clock() - started_at
        result = _to_result(endpoint, response, verdict, attempts, elapsed_seconds)
        if verdict is Verdict.UNAVAILABLE and not tried.are_used_up:
            breaker.count(tried)  # it was stopped, or met nothing but 429s
            is_in_outage = tried.met_outage or breaker.is_open
            return replace(result, met_only_outage=is_in_outage and response.status != 429)
        # Before the API has answered, a 404 means a wrong address.
        if response.is_blocked and (self.has_api_answered or response.status != 404):
            return replace(result, code=NO_API_RESPONSE, is_blocked=True)
        return result

    def _judge_unanswered(
        self,
        breaker: CircuitBreaker,
        tried: Attempts,
        response: ApiResponse,
        verdict: Verdict,
        sent_at: float,
        *,
        is_alone: bool,
    ) -> Verdict:
        """Tell the breaker of an attempt that was not delivered; return the verdict.

        Once a proxy or firewall blocks everything, a blocked request waits like an unanswered one.
        """
        cause = f"HTTP {response.status}" if response.status else response.problem
        if response.is_blocked:
            cause = f"a page of a proxy or firewall, {cause}"
        if verdict is Verdict.REJECTED and response.is_blocked:
            if is_alone and not tried.count_at_once:
                breaker.note_blocked(cause)
            if breaker.is_open and not tried.count_at_once:
                verdict = Verdict.UNAVAILABLE
        if verdict is not Verdict.UNAVAILABLE:
            return verdict
        breaker.note_unanswered(tried, sent_at, cause, is_answered=response.is_answer)
        if breaker.is_probe(tried):
            asks = breaker.asks_for_fields() and not self._stop.is_set()
            if asks and self.get(USERS_GET_FIELDS).is_answer:
                breaker.close_for_suspects()
            breaker.end_probe(tried)
        return verdict

    def get(self, path: str, query: Mapping[str, str | int] | None = None) -> ApiResponse:
        """GET `/api/{path}` once; it counts as a call. Network errors are returned, too."""
        self._count_attempt()
        response = self._http.get(path, query)
        if self._note_answer(response) and path == USERS_GET_FIELDS:
            self.breakers.note_fields()
        return response

    def is_answering(self, since: float) -> bool:
        """Return whether Iterable has answered anything since then (a time of `clock`).

        If not, ask with `GET users/getFields`, one thread at a time. False after a stop.
        """
        if self._stop.is_set():
            return False
        if self._answered_at >= since:
            return True
        with self._asking:
            if max(self._answered_at, self._asked_at) < since and not self._stop.is_set():
                self._asked_at = self._clock()
                response = self.get(USERS_GET_FIELDS)
                logger.debug("%s: %s", USERS_GET_FIELDS, response.status or response.problem)
        return self._answered_at >= since and not self._stop.is_set()

    @property
    def is_stopped(self) -> bool:
        """Whether the event `stop` is set."""
        return self._stop.is_set()

    def now(self) -> float:
        """Return the time of the client's clock, for `is_answering`."""
        return self._clock()

    def _count_attempt(self, *, is_retry: bool = False) -> None:
        with self._counting:
            self.call_count += 1
            self.retry_count += is_retry

    def _note_answer(self, response: ApiResponse) -> bool:
        """Note whether Iterable is up, and return that."""
        if not response.is_from_api:
            return False
        self.has_api_answered = True
        if response.is_answer:
            self._answered_at = self._clock()
            return True
        return False

    def _wait_before_retry(
        self,
        verdict: Verdict,
        response: ApiResponse,
        breaker: CircuitBreaker,
        tried: Attempts,
        limited_count: int,
        limited_at: float,
    ) -> float | None:
        """Return the seconds to wait before another attempt, None when this was the last.

        While the breaker is open it decides when to try again.
        """
        if verdict is not Verdict.UNAVAILABLE or self._stop.is_set():
            return None
        requested_seconds = response.requested_wait_seconds
        if not limited_count:
            if tried.are_used_up:
                return None
            if breaker.is_open:
                return min(requested_seconds or 0.0, MAX_REQUESTED_WAIT_SECONDS)
            return backoff_seconds(max(1, tried.failed_count), requested_seconds)
        wait_seconds = backoff_seconds(limited_count, requested_seconds)
        waited_seconds = self._clock() - limited_at
        if waited_seconds + wait_seconds <= MAX_RATE_LIMITED_SECONDS:
            return wait_seconds
        breaker.note_rate_limit_over(wait_seconds)
        return None

    def _handle_response(self, response: requests.Response, endpoint: str) -> tuple[bool, JSON]:
        """Log and return the verdict on a response from `requests`, as `update_user` returns it."""
        try:
            body = orjson.loads(self._http.without_key(orjson.dumps(response.json())))
        except (ValueError, TypeError, RecursionError):  # RecursionError: deeply nested JSON
            body = None
        parsed = ApiResponse(response.status_code, body, NO_API_RESPONSE)
        self._note_answer(parsed)
        verdict = verdict_of(endpoint, parsed, api_has_answered=self.has_api_answered)
        if verdict is not Verdict.DELIVERED:
            self._log_failure(endpoint, parsed, verdict, "", 1, None)
        return _to_tuple(_to_result(endpoint, parsed, verdict))

    def _log_attempt(
        self,
        label: str,
        body: bytes,
        response: ApiResponse,
        elapsed_seconds: float,
        *,
        is_bulk: bool,
        is_delivered: bool,
    ) -> None:
        """Log a request and its response, but only the size of a bulk request.

        Of the response to a delivered single request, only the code: the rest says nothing new,
        and the results file has it.
        """
        request_text, response_text = f"{len(body)} bytes", f"{len(response.content)} bytes"
        if self._log_payloads:
            if is_delivered and not is_bulk:
                response_text = '{"code":"Success"}'
            else:
                response_text = response.content[:MAX_LOGGED_BYTES].decode("utf-8", "replace")
            if not is_bulk:
                request_text = RowText(body[:MAX_LOGGED_BYTES].decode("utf-8", "replace"))
        logger.debug(
            "%s: %s in %.0f ms, Iterable-Request-Id %s, request %s, response %s",
            label,
            response.status or response.problem,
            elapsed_seconds * 1000,
            response.request_id,
            request_text,
            response_text,
        )

    def _log_failure(
        self,
        endpoint: str,
        response: ApiResponse,
        verdict: Verdict,
        subject: str,
        attempt: int,
        wait_seconds: float | None,
        *,
        is_outage: bool = False,
    ) -> None:
        details = [subject] if subject else []
        details += [response.code] if response.code and response.status is not None else []
        if self._log_payloads and response.message not in ("", response.problem):
            details.append(response.message[:200])
        if is_outage and wait_seconds is not None:
            details.append(f"attempt {attempt}, waits until Iterable answers")
        elif wait_seconds is not None:
            details.append(f"attempt {attempt}, retry in {wait_seconds:.1f} s")
        elif attempt > 1:
            details.append(f"attempt {attempt}, the last")
        if response.request_id:
            details.append(f"request {response.request_id}")
        level = log_level(verdict, is_last=wait_seconds is None)
        if is_outage and verdict is Verdict.UNAVAILABLE:
            level = logging.DEBUG  # the breaker logs the outage
        suffix = f" ({'; '.join(details)})" if details else ""
        kind = failure_of(endpoint, response.code or response.status)
        logger.log(level, "%s%s", error_line(endpoint, response), suffix, extra=kind)


def bulk_body(
    endpoint: str, items: Sequence[bytes], *, create_new_fields: bool | None = None
) -> bytes:
    """Return the body of a bulk request from the JSON bodies of single ones.

    `create_new_fields` is a member of the whole body for users, and of each event; None: of none.
    """
    if endpoint != USERS_BULK_UPDATE:
        return b'{"events":[%b]}' % b",".join(items)
    option = b""
    if create_new_fields is not None:
        option = b'"createNewFields":%b,' % orjson.dumps(create_new_fields)
    return b'{%b"users":[%b]}' % (option, b",".join(items))


def _to_body(content: JSON) -> bytes:
    """Return the JSON of a body; raises ValueError for a value that JSON cannot represent."""
    texts = [name for name in ("email", "userId", "eventName", "id") if name in content]
    if not all(isinstance(content[name], str) for name in texts):
        raise ValueError(f"{', '.join(texts)} must be text")
    if not isinstance(content["dataFields"], dict):
        raise ValueError("data_fields must be a dict")
    if type(content.get("createdAt", 0)) is not int:
        raise ValueError("created_at must be whole unix seconds")
    fields = {}
    for name, value in content["dataFields"].items():
        try:
            fields[str(name)] = to_json_value(value)
        except ValueError as error:
            raise ValueError(f"field {str(name)!r} {error}") from None
    try:
        return orjson.dumps({**content, "dataFields": fields})
    except TypeError:  # from orjson
        raise ValueError("a text is not valid Unicode") from None


def _to_result(
    endpoint: str,
    response: ApiResponse,
    verdict: Verdict,
    attempts: int = 1,
    elapsed_seconds: float = 0.0,
) -> CallResult:
    is_delivered_batch = endpoint in BULK_ENDPOINTS and verdict is Verdict.DELIVERED
    return CallResult(
        verdict,
        response.status,
        response.code,
        response.message,
        response.body if is_delivered_batch else _without_deep_nesting(response.params),
        attempts,
        elapsed_seconds,
        request_id=response.request_id,
    )


def _without_deep_nesting(params: object) -> object:
    """Return `params`, or None if orjson cannot write it: it reads more levels than it writes."""
    try:
        orjson.dumps([[[[params]]]])
    except orjson.JSONEncodeError:
        return None
    return params


def _to_tuple(result: CallResult) -> tuple[bool, JSON]:
    return result.delivered, {
        **result.response,
        "params": _without_deep_nesting(result.params),  # of a batch it is the whole body
        "verdict": result.verdict.value,
        "http_status": result.http_status,
        "attempts": result.attempts,
    }
