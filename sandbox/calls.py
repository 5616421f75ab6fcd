"""An API call received by the sandbox: endpoint, users concerned, and the record kept of it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import parse_qs, unquote

import orjson

from sandbox.request_schemas import rows_of

POST_ENDPOINTS = (
    *("users/update", "events/track", "users/bulkUpdate", "events/trackBulk"),
    "users/updateEmail",
)
GET_ENDPOINTS = (
    *("users/getByEmail", "users/getFields", "users/{email}", "events/{email}"),
    *("users/byUserId", "users/byUserId/{userId}", "events/byUserId/{userId}"),
    *("users/forgotten", "users/forgottenUserIds"),
)
UNKNOWN_ENDPOINT = "unknown"
ENDPOINTS = (*POST_ENDPOINTS, *GET_ENDPOINTS)

_API = "/api/"
_POST_PATHS = {f"{_API}{endpoint}": endpoint for endpoint in POST_ENDPOINTS}
_IDENTIFIERS = ("email", "userId", "currentEmail", "newEmail")
_NO_PARAMETERS: dict[str, str] = {}
_NOT_PARSED = object()


@dataclass(slots=True)
class CallRecord:
    """Record of a call for tests; it never contains the API key.

    `email` and `user_id` are those of the user of a single call, if it names one; `body` is the
    parsed JSON, None if the body is not JSON; `status` is None until the response is sent, and
    stays None if none is; `at` is unix time; `fault` names the fault rule that decided the
    response.
    """

    endpoint: str
    email: str | None
    body: Any
    at: float
    request_id: str
    status: int | None = None
    fault: str | None = None
    user_id: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the record in the form of GET /sandbox/calls."""
        return {part.name: getattr(self, part.name) for part in fields(self)}


class Call:
    """A received call; `parameters` come from query and path, `arrived_at` is monotonic."""

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
        """Parsed JSON body, parsed at first access; None if the body is not JSON."""
        if self._body is _NOT_PARSED:
            try:
                self._body = orjson.loads(self.raw)
            except orjson.JSONDecodeError:
                self._body = None
        return self._body

    @property
    def email(self) -> str | None:
        """E-mail of the user of a single call; None for a bulk call."""
        return self._named("email") or self._named("currentEmail")

    @property
    def user_id(self) -> str | None:
        """userId of the user of a single call; None for a bulk call."""
        return self._named("userId")

    def _named(self, key: str) -> str | None:
        if self.endpoint not in _POST_PATHS.values():
            return self.parameters.get(key)
        text = self.body.get(key) if isinstance(self.body, dict) else None
        return text if isinstance(text, str) else None

    def identifiers(self) -> Collection[str]:
        """Return the lower-cased e-mails and userIds that name the users in the call."""
        if self.endpoint not in _POST_PATHS.values():
            return {self.parameters.get(key, "").lower() for key in ("email", "userId")}
        rows = [row for row in rows_of(self.endpoint, self.body) if isinstance(row, dict)]
        texts = [row.get(key) for row in rows for key in _IDENTIFIERS if key in row]
        return {text.lower() for text in texts if isinstance(text, str)}


def _route(method: str, path: str, query: str) -> tuple[str, dict[str, str]]:
    endpoint = _POST_PATHS.get(path)
    if endpoint is not None and method == "POST":
        return endpoint, _NO_PARAMETERS
    if method != "GET" or not path.startswith(_API) or endpoint is not None:
        return UNKNOWN_ENDPOINT, _NO_PARAMETERS
    query_parameters = {name: values[-1] for name, values in parse_qs(query).items()}
    name = path[len(_API) :]
    if name in GET_ENDPOINTS:
        return name, query_parameters
    for endpoint in ("users/byUserId/{userId}", "events/byUserId/{userId}"):
        prefix = endpoint.partition("{")[0]
        if name.startswith(prefix) and len(name) > len(prefix):
            return endpoint, {**query_parameters, "userId": unquote(name[len(prefix) :])}
    kind, _, email = name.partition("/")
    if kind not in ("users", "events") or not email:
        return UNKNOWN_ENDPOINT, _NO_PARAMETERS
    return f"{kind}/{{email}}", {**query_parameters, "email": unquote(email)}
