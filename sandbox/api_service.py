"""Iterable API without sockets: a call goes in, a response comes out.

A call is checked in this order: fault rules, API key, rate limit, body size, schema, project.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import uuid4

from sandbox import responses
from sandbox.calls import ENDPOINTS, POST_ENDPOINTS, UNKNOWN_ENDPOINT, Call, CallRecord
from sandbox.fault_effects import apply_fault
from sandbox.faults import CallFacts, FaultScript
from sandbox.project import Project, ProjectType
from sandbox.request_schemas import body_problems
from sandbox.responses import ApiResponse, UnknownUserResponse
from sandbox.traffic import (
    BusiestSecond,
    EndpointTraffic,
    Limit,
    RateLimit,
    to_rate_limit,
    whole_seconds,
)
from sandbox.users_and_events import Event
from sandbox.wire_response import WireResponse, to_wire

BODY_LIMIT_BYTES = 4_000_000  # "Max size of request body: 4MB"


@dataclass(frozen=True, slots=True)
class ApiOptions:
    """How the API behaves.

    `latency_seconds` is the whole service time, varied by up to `jitter_seconds`; `failure_rate`
    is the share of calls that get a random 500, 502, 503 or 504; `limits` are calls per second by
    endpoint, or another form of `to_rate_limit`; `retry_after` and `rate_limit_reset` are the
    hints that a 429 carries; with `api_key` None any non-empty key is accepted; `keep_calls` is
    the number of calls that are recorded, the newest ones. For the others see `Project` and
    `FaultScript`.
    """

    latency_seconds: float = 0.0
    jitter_seconds: float = 0.0
    failure_rate: float = 0.0
    limits: Mapping[str, Limit] = field(default_factory=dict)
    retry_after: bool = False
    rate_limit_reset: bool = True
    faults: Sequence[Mapping[str, Any]] = ()
    seed: int = 1
    api_key: str | None = field(default=None, repr=False)
    forgotten: Collection[str] = ()
    invalid_emails: Collection[str] = ()
    invalid_data_emails: Collection[str] = ()
    conflict_emails: Collection[str] = ()
    disallowed_events: Collection[str] = ()
    field_types: Mapping[str, str] = field(default_factory=dict)
    drop_unknown_fields: bool = False
    sparse_bulk_responses: bool = False
    project_type: ProjectType | str = ProjectType.EMAIL
    unknown_user_response: UnknownUserResponse | str = UnknownUserResponse.EMPTY
    says_bad_params: bool = False
    on_event: Callable[[Event], None] | None = None
    keep_calls: int = 0


@dataclass(slots=True)
class PlannedResponse:
    """Response to one call, and the seconds after its arrival at which it is due."""

    response: WireResponse
    service_seconds: float
    request_id: str
    traffic: EndpointTraffic
    record: CallRecord | None

    def finish(self, outcome: str) -> None:
        """Count the call as ended; `outcome` is the HTTP status, or how it ended without one."""
        self.traffic.in_flight_count -= 1
        self.traffic.answers[outcome] += 1
        if self.record is not None and outcome.isdigit():
            self.record.status = int(outcome)


class ApiService:
    """The API of one project; not thread-safe. Times are monotonic seconds."""

    def __init__(self, options: ApiOptions) -> None:
        self._options = options
        self.project = Project(
            forgotten=options.forgotten,
            invalid_emails=options.invalid_emails,
            invalid_data_emails=options.invalid_data_emails,
            conflict_emails=options.conflict_emails,
            disallowed_events=options.disallowed_events,
            field_types=options.field_types,
            drop_unknown_fields=options.drop_unknown_fields,
            sparse_bulk_responses=options.sparse_bulk_responses,
            project_type=options.project_type,
            unknown_user_response=options.unknown_user_response,
            says_bad_params=options.says_bad_params,
            on_event=options.on_event,
        )
        # Repeatable randomness, not a secret.
        self._rng = random.Random(options.seed)  # noqa: S311
        self._posts: dict[str, Callable[[Mapping[str, Any]], ApiResponse]] = {
            "users/update": self.project.update_user,
            "events/track": self.project.track_event,
            "users/bulkUpdate": self.project.bulk_update_users,
            "events/trackBulk": self.project.track_events,
            "users/updateEmail": self.project.update_email,
        }
        self._limits: dict[str, RateLimit] = {}
        self.set_limits(options.limits)
        self.set_faults(options.faults)
        # Unique across sandboxes and cheap to make: a random prefix and a counter.
        self._request_prefix = uuid4().hex[:16]
        self._request_count = 0
        self.reset()

    def reset(self) -> None:
        """Forget users, events, learned types, counts and calls; keep faults and limits."""
        self.project.reset()
        self.calls: deque[CallRecord] = deque(maxlen=self._options.keep_calls)
        self._traffic = {name: EndpointTraffic() for name in (*ENDPOINTS, UNKNOWN_ENDPOINT)}
        self._busiest = BusiestSecond()
        self.connection_count = self.handshake_count = self.resumed_count = 0
        self._first_call_at: float | None = None
        self._last_call_at: float | None = None
        self.reset_connection_count = 0
        self.redirect_followed_count = 0

    def set_faults(self, rules: Sequence[Mapping[str, Any]]) -> None:
        """Replace the fault script; its clock starts now. ValueError names the bad rule."""
        # Validate the given rules first: then an error message counts only these.
        FaultScript(rules)
        failures: list[Mapping[str, Any]] = []
        if self._options.failure_rate:
            rate = self._options.failure_rate
            failures = [{"fault": "status", "status": "any", "probability": rate}]
        seed, now = self._options.seed, time.monotonic()
        self.faults = FaultScript([*rules, *failures], seed=seed, installed_at=now)

    def set_limits(self, limits: Mapping[str, Limit | None]) -> None:
        """Replace the limits of the named endpoints; None removes a limit."""
        unknown = sorted(set(limits) - set(ENDPOINTS))
        if unknown:
            known = ", ".join(ENDPOINTS)
            raise ValueError(f"no endpoint {', '.join(unknown)}; the endpoints are {known}")
        replaced = {
            name: to_rate_limit(limit) for name, limit in limits.items() if limit is not None
        }
        kept = {name: limit for name, limit in self._limits.items() if name not in limits}
        self._limits = {**kept, **replaced}

    def next_request_id(self) -> str:
        """Return a new `Iterable-Request-Id`."""
        self._request_count += 1
        return f"{self._request_prefix}{self._request_count:016x}"

    def serve(self, call: Call, request_text: Callable[[], str]) -> PlannedResponse:
        """Handle the call: choose the fault rule, apply the call if due, and plan the response."""
        options = self._options
        traffic = self._traffic[call.endpoint]
        traffic.arrive(call.arrived_at)
        self._busiest.arrive(call.arrived_at)
        self._last_call_at = time.time()
        if self._first_call_at is None:
            self._first_call_at = self._last_call_at
        service_seconds = options.latency_seconds
        if options.jitter_seconds:
            service_seconds += self._rng.uniform(-options.jitter_seconds, options.jitter_seconds)
        rule = None
        if self.faults.has_call_rules:
            facts = CallFacts(call.endpoint, call.identifiers)
            delay_seconds, rule = self.faults.choose(facts, call.arrived_at)
            service_seconds += delay_seconds
        if rule is None:
            response = to_wire(self._apply(call, traffic))
        else:
            response = apply_fault(
                rule, partial(self._apply, call, traffic), request_text, self.faults.rng
            )
        traffic.rate_limited_count += response.status == 429
        record = None
        request_id = self.next_request_id()
        if options.keep_calls:
            record = CallRecord(call.endpoint, call.email, call.body, time.time(), request_id)
            record.fault = None if rule is None else rule.fault
            record.user_id = call.user_id
            self.calls.append(record)
        return PlannedResponse(response, service_seconds, request_id, traffic, record)

    def count_connection(self, number: int, is_tls: bool, is_resumed: bool) -> None:
        """Add `number` (1 or -1) to the connections, and to the handshakes if it uses TLS."""
        self.connection_count += number
        self.handshake_count += number * is_tls
        self.resumed_count += number * is_resumed

    def is_down(self, now: float) -> bool:
        """Return whether a `down` rule resets the connection now, and count the reset."""
        if not self.faults.has_down_rules or not self.faults.is_down(now):
            return False
        self.reset_connection_count += 1
        return True

    def state(self) -> dict[str, Any]:
        """Return all counts, in the form of GET /sandbox/state."""
        project = self.project
        traffic = {name: each for name, each in self._traffic.items() if each.received_count}
        for name in POST_ENDPOINTS:
            traffic.setdefault(name, self._traffic[name])
        return {
            "users": len(project.users),
            "bare_users": sum(user.is_bare for user in project.users.values()),
            "events": len(project.events),
            "calls": sum(each.received_count for each in self._traffic.values()),
            "applies": sum(each.applied_count for each in self._traffic.values()),
            "repeated_applies": sum(each.repeated_count for each in self._traffic.values()),
            "event_id_collisions": project.event_id_collision_count,
            "shortest_wait_after_email_change": project.shortest_wait_after_email_change,
            "max_requests_in_one_second": self._busiest.most,
            "first_call_at": self._first_call_at,
            "last_call_at": self._last_call_at,
            "connections": self.connection_count,
            "handshakes": self.handshake_count,
            "resumed": self.resumed_count,
            "reset_connections": self.reset_connection_count,
            "redirects_followed": self.redirect_followed_count,
            "faults": self.faults.to_list(),
            "endpoints": {name: each.to_dict() for name, each in sorted(traffic.items())},
        }

    def _apply(self, call: Call, traffic: EndpointTraffic) -> ApiResponse:
        response = self._to_response(call)
        traffic.applied_count += response.applied_count
        traffic.repeated_count += response.repeated_count
        return response

    def _to_response(self, call: Call) -> ApiResponse:
        endpoint = call.endpoint
        if endpoint == UNKNOWN_ENDPOINT:
            return responses.not_found(call.path)
        if not call.api_key or self._options.api_key not in (None, call.api_key):
            return responses.bad_api_key(endpoint)
        limit = self._limits.get(endpoint)
        wait_seconds = limit.wait_seconds(call.arrived_at) if limit is not None else 0.0
        if limit is not None and wait_seconds:
            return self._rate_limited(limit, wait_seconds)
        apply = self._posts.get(endpoint)
        if apply is None:
            return self._look_up(endpoint, call.parameters)
        if len(call.raw) > BODY_LIMIT_BYTES:
            return responses.body_too_large(len(call.raw), BODY_LIMIT_BYTES)
        body = call.body
        if body is None:
            return responses.bad_body(endpoint, None)
        problems = body_problems(endpoint, body)
        return responses.bad_body(endpoint, problems) if problems else apply(body)

    def _rate_limited(self, limit: RateLimit, wait_seconds: float) -> ApiResponse:
        seconds = whole_seconds(wait_seconds)
        return responses.rate_limited(
            limit=limit.per_second,
            remaining=limit.remaining,
            reset_seconds=seconds if self._options.rate_limit_reset else None,
            retry_after=str(seconds) if self._options.retry_after else None,
        )

    def _look_up(self, endpoint: str, parameters: Mapping[str, str]) -> ApiResponse:
        project = self.project
        if endpoint == "users/getFields":
            return ApiResponse(200, project.user_fields())
        if endpoint in ("users/forgotten", "users/forgottenUserIds"):
            return project.forgotten_users("email" if endpoint == "users/forgotten" else "userId")
        key = "userId" if "byUserId" in endpoint else "email"
        identifier = parameters.get(key)
        if not identifier:
            return responses.bad_params(f"{key} is required")
        if not endpoint.startswith("events/"):
            if key == "userId":
                return project.user_by_user_id(identifier)
            return ApiResponse(200, project.user_by_email(identifier))
        limit = parameters.get("limit", "30")
        if not limit.isdecimal() or not 1 <= int(limit) <= 200:
            return responses.bad_params("limit must be a number from 1 to 200")
        return ApiResponse(200, project.events_of(identifier, int(limit), key))
