"""A fake client for bulk calls: the kinds of its rows decide the response to a batch.

No sockets and no waiting. It remembers every request and every row that it has applied, so that
a test can compare what the program believes with what is true.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from enum import Enum
from typing import Any

import orjson

from iterable_api.circuit_breaker import CircuitBreakers
from iterable_api.rate_limiter import RateLimiter
from iterable_api.responses import EVENTS_TRACK_BULK, USERS_BULK_UPDATE, ApiResponse, verdict_of
from iterable_client import IterableClient
from records.outcomes import CallResult, Verdict
from records.rows import PendingRow


class Kind(Enum):
    """How Iterable treats a row."""

    FINE = "taken"
    INVALID = "named in failedUpdates.invalidEmails"
    FORGOTTEN = "named in failedUpdates.forgottenEmails"
    BAD_VALUE = "named in failedUpdates.invalidDataEmails"
    DEPRECATED = "named in the deprecated invalidEmails alone"
    NAMED_TWICE = "named in both"
    UNNAMED = "counted as failed, and named nowhere"
    POISON = "no batch with it is taken, and nothing says why"
    NAMED_POISON = "no batch with it is taken; BadJsonBody names its place"
    MISTYPED = "no batch with it is taken; RequestFieldsTypesMismatched names its value"
    MISCOUNTED = "taken, but no count of a batch with it is right"
    DOWN = "no batch with it gets a response"


LISTED = {
    Kind.INVALID: "invalidEmails",
    Kind.NAMED_TWICE: "invalidEmails",
    Kind.FORGOTTEN: "forgottenEmails",
    Kind.BAD_VALUE: "invalidDataEmails",
}
TAKEN = frozenset({Kind.FINE, Kind.MISCOUNTED})


def email_of(seq: int) -> str:
    """Return the address of a row, with capital letters that Iterable changes."""
    return f"User.{seq}@Example.com"


def row(seq: int, *, profile: bool = True, event: bool = True, fields: str = "{}") -> PendingRow:
    """Return a pending row."""
    body = b'{"email":"%b","dataFields":%b}' % (email_of(seq).encode(), fields.encode())
    named = body.replace(b',"dataFields"', b',"eventName":"page_view","dataFields"', 1)
    return PendingRow(seq, seq, email_of(seq), body if profile else None, named if event else None)


def rows_of(kinds: Sequence[Kind]) -> list[PendingRow]:
    """Return rows 0, 1, ...; one that is mistyped holds a value that no other one has."""
    return [
        row(seq, fields=f'{{"score": "bad {seq}"}}' if kind is Kind.MISTYPED else '{"score": 1}')
        for seq, kind in enumerate(kinds)
    ]


class FakeBulkClient(IterableClient):
    """A client whose bulk responses depend on the kinds of the rows."""

    def __init__(
        self,
        kinds: Mapping[int, Kind],
        event_kinds: Mapping[int, Kind] | None = None,
        *,
        most_rows: int = 1_000_000,
        stranger: bool = False,
        stops_after: int = 1_000_000,
        refuses_from: int = 1_000_000,
    ) -> None:
        self.create_new_fields = None
        self.rate_limiters = {
            USERS_BULK_UPDATE: RateLimiter(1e6),
            EVENTS_TRACK_BULK: RateLimiter(1e6),
        }
        self.breakers = CircuitBreakers()
        self.requests: list[tuple[str, list[int]]] = []
        self.applied: set[tuple[str, int]] = set()
        self.max_attempts: list[int | None] = []
        self._kinds = {
            USERS_BULK_UPDATE: kinds,
            EVENTS_TRACK_BULK: kinds if event_kinds is None else event_kinds,
        }
        self._most_rows = most_rows
        self._stranger = stranger  # each response names a user not in the batch
        self._stops_after = stops_after
        self._refuses_from = refuses_from
        self.has_api_answered = False
        self.suspects: list[bool] = []  # whether each request was one
        self._stop = threading.Event()

    def now(self) -> float:
        return 0.0

    def bulk_update_users(
        self, users: Sequence[bytes], subject: str = "", **options: Any
    ) -> CallResult:
        assert subject
        return self._call(USERS_BULK_UPDATE, "users", users, options)

    def bulk_track_events(
        self, events: Sequence[bytes], subject: str = "", **options: Any
    ) -> CallResult:
        assert subject
        return self._call(EVENTS_TRACK_BULK, "events", events, options)

    def _call(
        self, endpoint: str, noun: str, bodies: Sequence[bytes], options: Mapping[str, Any]
    ) -> CallResult:
        is_allowed = options["before_attempt"](1)
        if len(self.requests) >= self._stops_after or not is_allowed:
            return CallResult(Verdict.UNAVAILABLE, None, None, "stopped", attempts=0)
        seqs = [int(orjson.loads(body)["email"].split("@")[0].split(".")[1]) for body in bodies]
        self.requests.append((endpoint, seqs))
        self.max_attempts.append(options["max_attempts"])
        self.suspects.append(options["is_suspect"])
        response = self._respond(endpoint, noun, seqs)
        self.has_api_answered = True
        verdict = verdict_of(endpoint, response)
        params = response.body if verdict is Verdict.DELIVERED else response.params
        return CallResult(verdict, response.status, response.code, response.message, params)

    def _respond(self, endpoint: str, noun: str, seqs: Sequence[int]) -> ApiResponse:
        kinds = self._kinds[endpoint]

        def those(*wanted: Kind) -> list[int]:
            return [seq for seq in seqs if kinds[seq] in wanted]

        if len(self.requests) > self._refuses_from:
            return _error(401, "BadApiKey")
        if those(Kind.DOWN):
            return _error(503, "GenericError")
        if len(seqs) > self._most_rows:
            return _error(413, "BatchTooLarge")
        if places := [seqs.index(seq) for seq in those(Kind.NAMED_POISON)]:
            paths = {f"obj.{noun}[{place}].preferUserId": "Boolean expected" for place in places}
            return _error(400, "BadJsonBody", paths)
        if mistyped := those(Kind.MISTYPED):
            clash = {"expectedType": "long", "offendingValue": f"bad {mistyped[0]}"}
            errors = {"validationErrors": {"score": clash}}
            return _error(400, "RequestFieldsTypesMismatched", errors)
        if those(Kind.POISON):
            return _error(400, "GenericError")
        taken = those(*TAKEN)
        self.applied |= {(endpoint, seq) for seq in taken}
        miscounted = bool(those(Kind.MISCOUNTED))
        return _counts(
            len(taken) + miscounted,
            len(seqs) - len(taken),
            self._lists(those) if not self._stranger else {"invalidEmails": ["who@example.com"]},
            list(map(_lower, those(Kind.DEPRECATED, Kind.NAMED_TWICE))),
        )

    def _lists(self, those: Callable[[Kind], Collection[int]]) -> dict[str, list[str]]:
        lists: dict[str, list[str]] = {}
        for kind, name in LISTED.items():
            lists.setdefault(name, []).extend(map(_lower, those(kind)))
        return {name: emails for name, emails in lists.items() if emails}


def _lower(seq: int) -> str:
    return email_of(seq).lower()


def _error(status: int, code: str, params: object = None) -> ApiResponse:
    return ApiResponse(status, {"code": code, "msg": f"{code} it is", "params": params})


def _counts(
    succeeded: int, failed: int, lists: Mapping[str, list[str]], deprecated: list[str]
) -> ApiResponse:
    """Return a body like Iterable's: every key but the two counts may be missing."""
    body: dict[str, Any] = {"successCount": succeeded, "failCount": failed}
    if lists:
        body["failedUpdates"] = lists
    if deprecated:
        body["invalidEmails"] = deprecated
    return ApiResponse(200, body)
