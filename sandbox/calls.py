"""One request to the API: which endpoint it is for, whom it is about, what is kept of it.

Owns the endpoints' names and paths. Refuses to know what any of them does.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import parse_qs, unquote

import orjson

from sandbox.bodies import rows_of

POST_ENDPOINTS = ("users/update", "events/track", "users/bulkUpdate", "events/trackBulk")
GET_ENDPOINTS = ("users/getByEmail", "users/getFields", "users/{email}", "events/{email}")
UNKNOWN_ENDPOINT = "unknown"
ENDPOINTS = (*POST_ENDPOINTS, *GET_ENDPOINTS)

_API = "/api/"
_POST_PATHS = {f"{_API}{endpoint}": endpoint for endpoint in POST_ENDPOINTS}
_NO_PARAMETERS: dict[str, str] = {}
_NOT_PARSED = object()


@dataclass(slots=True)
class CallRecord:
    """What is kept of a request, never its key.

    `email` is the person's where the call is about one; `body` the parsed JSON, None where it is
    none; `status` is None until it is answered, and for ever where nothing was sent; `at` is unix
    time; `fault` names the rule that decided the call's fate.
    """

    endpoint: str
    email: str | None
    body: Any
    at: float
    request_id: str
    status: int | None = None
    fault: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Give the record as GET /sandbox/calls shows it."""
        return {part.name: getattr(self, part.name) for part in fields(self)}


class Call:
    """One request; `parameters` are those of its query and path, `arrived_at` is monotonic."""

    __slots__ = ("_body", "api_key", "arrived_at", "endpoint", "parameters", "path", "raw")

    def __init__(
        self, method: str, target: str, *, api_key: str | None, raw: bytes, arrived_at: float
    ) -> None:
        self.path, _, query = target.partition("?")
        self.endpoint, self.parameters = _route(method, self.path, query)
        self.api_key = api_key
        self.raw = raw
        self.arrived_at = arrived_at
        self._body: Any = _NOT_PARSED

    @property
    def body(self) -> Any:
        """The JSON, parsed when first asked for; None where it is none."""
        if self._body is _NOT_PARSED:
            try:
                self._body = orjson.loads(self.raw)
            except orjson.JSONDecodeError:
                self._body = None
        return self._body

    @property
    def email(self) -> str | None:
        """Whom the call is about, where it is one person."""
        if self.endpoint not in _POST_PATHS.values():
            return self.parameters.get("email")
        email = self.body.get("email") if isinstance(self.body, dict) else None
        return email if isinstance(email, str) else None

    def emails(self) -> Collection[str]:
        """Give everyone whom the call mentions, lower-cased."""
        if self.endpoint not in _POST_PATHS.values():
            return {self.parameters.get("email", "").lower()}
        rows = rows_of(self.endpoint, self.body)
        emails = [row.get("email") for row in rows if isinstance(row, dict)]
        return {email.lower() for email in emails if isinstance(email, str)}


def _route(method: str, path: str, query: str) -> tuple[str, dict[str, str]]:
    endpoint = _POST_PATHS.get(path)
    if endpoint is not None and method == "POST":
        return endpoint, _NO_PARAMETERS
    if method != "GET" or not path.startswith(_API) or endpoint is not None:
        return UNKNOWN_ENDPOINT, _NO_PARAMETERS
    given = {name: values[-1] for name, values in parse_qs(query).items()}
    name = path[len(_API) :]
    if name in GET_ENDPOINTS:
        return name, given
    kind, _, email = name.partition("/")
    if kind not in ("users", "events") or not email:
        return UNKNOWN_ENDPOINT, _NO_PARAMETERS
    return f"{kind}/{{email}}", {**given, "email": unquote(email)}
