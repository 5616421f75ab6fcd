"""JSON responses of the Iterable API: statuses, codes, messages and the bulk result.

Sources: Iterable's OpenAPI document for the shapes; the messages and `validationErrors` were
recorded from api.iterable.com by the test suites of public clients.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sandbox.field_types import TextTooLong, TypeMismatch

PROJECT_ID = 10216


@dataclass(frozen=True, slots=True)
class ApiResponse:
    """Status and JSON body of one API call.

    `applied_count` is the number of rows applied; `repeated_count` is how many of them changed
    nothing.
    """

    status: int
    body: dict[str, Any]
    applied_count: int = 0
    repeated_count: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)


class Rejection(enum.Enum):
    """Reason why a user's row is rejected; its list in `failedUpdates` begins with the value."""

    INVALID = "invalid"  # the identifier is malformed
    FORGOTTEN = "forgotten"
    INVALID_DATA = "invalidData"
    CONFLICT = "conflict"
    NOT_FOUND = "notFound"


class Rejected(NamedTuple):
    """A row that is rejected because of this identifier, one that it carries."""

    why: Rejection
    field: str  # "email" or "userId"
    text: str

    @property
    def list_name(self) -> str:
        """The list in `failedUpdates` that names the row."""
        return f"{self.why.value}{'Emails' if self.field == 'email' else 'UserIds'}"


class UnknownUserResponse(enum.Enum):
    """The ways in which users/byUserId was seen to answer for an unknown user."""

    EMPTY = "empty"  # 200 without a user
    NOT_FOUND = "404"
    CODE = "code"  # 400 with a code of its own
    TEXT = "text"  # 400 with a text that says so


def error(status: int, code: str, message: str, params: object = None) -> ApiResponse:
    """Return a response in the form of an Iterable error."""
    return ApiResponse(status, {"msg": message, "code": code, "params": params})


def bad_api_key(endpoint: str) -> ApiResponse:
    """Return the 401 for a key that is missing, wrong, disabled or of the other data centre."""
    params = {"endpoint": f"/api/{endpoint}"}
    return error(401, "BadApiKey", "Invalid API key", params)


def not_found(path: str) -> ApiResponse:
    """Return the response to an unknown endpoint."""
    return error(404, "NotFound", f"Unknown endpoint {path}")


def bad_body(endpoint: str, problems: Mapping[str, str] | None) -> ApiResponse:
    """Return the response to a body that does not fit the schema; None: the body is not JSON."""
    message = f"[/api/{endpoint}] Invalid JSON body"
    return error(400, "BadJsonBody", message, dict(problems) if problems else None)


def bad_params(message: str) -> ApiResponse:
    """Return the response to a value out of range."""
    return error(400, "BadParams", message)


def body_too_large(byte_count: int, limit_bytes: int) -> ApiResponse:
    """Return the response to a body over the documented 4 MB."""
    message = f"Request body of {byte_count} bytes exceeds the limit of {limit_bytes} bytes"
    return error(413, "BatchTooLarge", message)


def rate_limited(
    *, limit: float, remaining: int, reset_seconds: float | None, retry_after: str | None
) -> ApiResponse:
    """Return a 429; None leaves out that hint of how long to wait."""
    params: dict[str, object] = {"rateLimitLimit": limit, "rateLimitRemaining": remaining}
    if reset_seconds is not None:
        params["rateLimitReset"] = reset_seconds
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    body = {"msg": "Rate limit exceeded", "code": "RateLimitExceeded", "params": params}
    return ApiResponse(429, body, headers=headers)


def rejected_user(rejected: Rejected) -> ApiResponse:
    """Return the error of users/update for a rejected user.

    The OpenAPI document lists conflicts at 400 and at 409.
    """
    why, name, text = rejected
    if why is Rejection.INVALID and name == "email":
        return error(400, "InvalidEmailAddressError", f"Invalid email: {text}")
    if why is Rejection.INVALID:
        return error(400, "InvalidUserIdError", f"Invalid userId: {text}")
    if why is Rejection.FORGOTTEN:
        return error(409, "ForgottenUserError", f"User with {name} {text} has been forgotten")
    if why is Rejection.CONFLICT and name == "email":
        return error(400, "EmailAlreadyExists", f"A user with email {text} already exists")
    if why is Rejection.CONFLICT:
        return error(409, "UserIdAlreadyExists", f"User with userId {text} conflicts with another")
    if why is Rejection.NOT_FOUND and name == "userId":
        return error(400, "UnknownUserIdError", f"No user with userId {text} exists")
    if why is Rejection.NOT_FOUND:
        return error(400, "BadParams", "This project identifies users by userId")
    return error(400, "BadParams", f"Invalid data fields for user with {name} {text}")


def rejected_event(rejected: Rejected) -> ApiResponse:
    """Return the error of events/track for a rejected user; this endpoint documents no 409."""
    if rejected.why is Rejection.FORGOTTEN:
        message = f"User with {rejected.field} {rejected.text} has been forgotten"
        return error(400, "ForgottenUserError", message)
    return rejected_user(rejected)


def unknown_user_id(how: UnknownUserResponse) -> ApiResponse:
    """Return the response of users/byUserId for an unknown user."""
    message = "No user with that id exists"
    if how is UnknownUserResponse.EMPTY:
        return ApiResponse(200, {})
    if how is UnknownUserResponse.NOT_FOUND:
        return error(404, "NotFound", "Not found")
    if how is UnknownUserResponse.CODE:
        return error(400, "error.users.noUserWithIdExists", message)
    return error(400, "BadParams", message)


def unknown_email(email: str, *, says_bad_params: bool) -> ApiResponse:
    """Return the error of users/updateEmail for an unknown address, in one of its two forms."""
    code = "BadParams" if says_bad_params else "UnknownEmailError"
    return error(400, code, f"No user with email {email} exists")


def forgotten_new_email(email: str) -> ApiResponse:
    """Return the error of users/updateEmail for a new address that was forgotten (GDPR)."""
    return error(409, "EmailAlreadyExists", f"The email {email} has been forgotten")


def email_updated() -> ApiResponse:
    """Return the success response of users/updateEmail."""
    body = {"msg": "Email successfully updated", "code": "Success", "params": None}
    return ApiResponse(200, body, applied_count=1)


def disallowed_event(event_name: str) -> ApiResponse:
    """Return the response to a disallowed event name: 200 and Success, but nothing is tracked."""
    message = f"Event {event_name} is disallowed from tracking."
    return ApiResponse(200, {"msg": message, "code": "Success", "params": None})


def bad_fields(problems: Collection[tuple[str, TypeMismatch | TextTooLong]]) -> ApiResponse:
    """Return the error for (category, problem) pairs.

    Type mismatches take precedence, the first one of each field; without any, the first text that
    is too long.
    """
    mismatches = [
        (category, problem) for category, problem in problems if isinstance(problem, TypeMismatch)
    ]
    if not mismatches:
        too_long = next(problem for _, problem in problems if isinstance(problem, TextTooLong))
        return bad_params(
            f"Field '{too_long.field}' has a value of {too_long.character_count} characters,"
            " over the limit of 32000"
        )
    validation_errors: dict[str, object] = {}
    sentences: list[str] = []
    for category, mismatch in mismatches:
        if mismatch.field in validation_errors:
            continue
        validation_errors[mismatch.field] = mismatch.to_validation_error(category)
        sentences.append(
            f" Field '{mismatch.field}' already exists for type '{category}' and has a data type of"
            f" '{mismatch.expected_type}' but possible types '{', '.join(mismatch.incoming_types)}'"
            " in the request."
        )
    message = (
        f"Project {PROJECT_ID}: The request does not have the same data types as the data"
        f" previously submitted.{''.join(sentences)}"
    )
    return error(
        400, "RequestFieldsTypesMismatched", message, {"validationErrors": validation_errors}
    )


def user_updated(created_fields: Collection[str], *, repeated: bool) -> ApiResponse:
    """Return the success response of users/update."""
    names = ", ".join(created_fields)
    message = f"User successfully created/updated. New fields created are: [{names}]"
    body = {"msg": message, "code": "Success", "params": None}
    return ApiResponse(200, body, applied_count=1, repeated_count=int(repeated))


def event_tracked(event_id: str, *, repeated: bool) -> ApiResponse:
    """Return the success response of events/track."""
    body = {
        "msg": f"Event with id: {event_id} tracked.",
        "code": "Success",
        "params": {"id": event_id},
    }
    return ApiResponse(200, body, applied_count=1, repeated_count=int(repeated))


class BatchResponse:
    """Builder of a bulk response. E-mails of failed rows are in lower case, as Iterable does.

    `sparse` leaves out every key but the two counts: the OpenAPI document requires no other.
    """

    def __init__(self, *, of_users: bool, sparse: bool) -> None:
        self._of_users = of_users
        self._sparse = sparse
        self._failed: dict[str, list[str]] = {}
        self._disallowed: dict[str, None] = {}
        self._fail_count = 0

    def fail(self, rejected: Rejected) -> None:
        """Count one row as failed."""
        self._fail_count += 1
        text = rejected.text.lower() if rejected.field == "email" else rejected.text
        self._failed.setdefault(rejected.list_name, []).append(text)

    def disallow(self, event_name: str) -> None:
        """Count one event as failed because its name is disallowed."""
        self._fail_count += 1
        self._disallowed[event_name] = None

    def to_response(
        self,
        *,
        applied_count: int,
        repeated_count: int,
        created_fields: Collection[str],
        filtered_out_fields: Collection[str],
    ) -> ApiResponse:
        """Return the finished response: HTTP 200 even when every row failed."""
        body: dict[str, Any] = {"successCount": applied_count, "failCount": self._fail_count}
        if not self._sparse:
            failed: dict[str, list[str]] = {
                f"{kind}{which}": []
                for kind in ("invalid", "notFound", "forgotten")
                for which in ("Emails", "UserIds")
            }
            if self._of_users:
                for kind in ("invalidData", "conflict"):
                    failed[f"{kind}Emails"] = []
                    failed[f"{kind}UserIds"] = []
            failed |= {name: list(texts) for name, texts in self._failed.items()}
            body |= {
                "invalidEmails": list(failed["invalidEmails"]),
                "invalidUserIds": list(failed["invalidUserIds"]),
                "filteredOutFields": sorted(filtered_out_fields),
                "createdFields": list(created_fields),
                "failedUpdates": failed,
            }
            if not self._of_users:
                body["disallowedEventNames"] = list(self._disallowed)
        return ApiResponse(200, body, applied_count, repeated_count)
