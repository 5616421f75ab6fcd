"""What Iterable says: the JSON of every answer, word for word where it was recorded.

Owns codes, statuses, messages and the shape of bulk answers. Refuses to know the project and HTTP.
Sources: Iterable's OpenAPI document; messages and `validationErrors` as recorded from
api.iterable.com by public clients' test suites.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from sandbox.field_types import Clash, TooLong

PROJECT_ID = 10216


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: HTTP status and JSON, and how many rows it applied (and applied in vain)."""

    status: int
    body: dict[str, Any]
    applied_count: int = 0
    repeated_count: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)


class Refusal(enum.Enum):
    """Why a person's row is not taken; the value is its list in `failedUpdates`."""

    INVALID_EMAIL = "invalidEmails"
    FORGOTTEN = "forgottenEmails"
    INVALID_DATA = "invalidDataEmails"
    CONFLICT = "conflictEmails"


def error(status: int, code: str, message: str, params: object = None) -> Answer:
    """Give Iterable's error form."""
    return Answer(status, {"msg": message, "code": code, "params": params})


def bad_api_key(endpoint: str) -> Answer:
    """Missing, wrong, disabled, of the other data centre: always the same answer."""
    params = {"endpoint": f"/api/{endpoint}"}
    return error(401, "BadApiKey", "Invalid API key", params)


def not_found(path: str) -> Answer:
    """No such endpoint."""
    return error(404, "NotFound", f"Unknown endpoint {path}")


def bad_body(endpoint: str, problems: Mapping[str, str] | None) -> Answer:
    """The body is no JSON (no problems named), or does not fit the schema."""
    message = f"[/api/{endpoint}] Invalid JSON body"
    return error(400, "BadJsonBody", message, dict(problems) if problems else None)


def bad_params(message: str) -> Answer:
    """A value is out of its range."""
    return error(400, "BadParams", message)


def body_too_large(byte_count: int, limit_bytes: int) -> Answer:
    """The body is over the documented 4 MB."""
    message = f"Request body of {byte_count} bytes exceeds the limit of {limit_bytes} bytes"
    return error(413, "BatchTooLarge", message)


def rate_limited(
    *, limit: float, remaining: int, reset_seconds: float | None, retry_after: str | None
) -> Answer:
    """429; each of its two ways to name the wait may be missing."""
    params: dict[str, object] = {"rateLimitLimit": limit, "rateLimitRemaining": remaining}
    if reset_seconds is not None:
        params["rateLimitReset"] = reset_seconds
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    body = {"msg": "Rate limit exceeded", "code": "RateLimitExceeded", "params": params}
    return Answer(429, body, headers=headers)


def refused_user(email: str, refusal: Refusal) -> Answer:
    """Why users/update did not take this person."""
    if refusal is Refusal.INVALID_EMAIL:
        return error(400, "InvalidEmailAddressError", f"Invalid email: {email}")
    if refusal is Refusal.FORGOTTEN:
        return error(409, "ForgottenUserError", f"User with email {email} has been forgotten")
    if refusal is Refusal.CONFLICT:
        return error(409, "UserIdAlreadyExists", f"User with email {email} conflicts with another")
    return error(400, "BadParams", f"Invalid data fields for user with email {email}")


def refused_event(email: str, refusal: Refusal) -> Answer:
    """Why events/track did not take this person's event; it documents 400, no 409."""
    if refusal is Refusal.FORGOTTEN:
        return error(400, "ForgottenUserError", f"User with email {email} has been forgotten")
    return error(400, "InvalidEmailAddressError", f"Invalid email: {email}")


def disallowed_event(event_name: str) -> Answer:
    """Not an error to Iterable: HTTP 200 and Success, and nothing tracked."""
    message = f"Event {event_name} is disallowed from tracking."
    return Answer(200, {"msg": message, "code": "Success", "params": None})


def bad_fields(problems: Collection[tuple[str, Clash | TooLong]]) -> Answer:
    """Type clashes (category, clash), the first of each field; else the first text too long."""
    clashes = [(category, clash) for category, clash in problems if isinstance(clash, Clash)]
    if not clashes:
        too_long = next(problem for _, problem in problems if isinstance(problem, TooLong))
        return bad_params(
            f"Field '{too_long.field}' has a value of {too_long.character_count} characters,"
            " over the limit of 32000"
        )
    validation_errors: dict[str, object] = {}
    sentences: list[str] = []
    for category, clash in clashes:
        if clash.field in validation_errors:
            continue
        validation_errors[clash.field] = clash.to_validation_error(category)
        sentences.append(
            f" Field '{clash.field}' already exists for type '{category}' and has a data type of"
            f" '{clash.expected_type}' but possible types '{', '.join(clash.incoming_types)}'"
            " in the request."
        )
    message = (
        f"Project {PROJECT_ID}: The request does not have the same data types as the data"
        f" previously submitted.{''.join(sentences)}"
    )
    return error(
        400, "RequestFieldsTypesMismatched", message, {"validationErrors": validation_errors}
    )


def user_updated(created_fields: Collection[str], *, repeated: bool) -> Answer:
    """The profile is updated."""
    names = ", ".join(created_fields)
    message = f"User successfully created/updated. New fields created are: [{names}]"
    body = {"msg": message, "code": "Success", "params": None}
    return Answer(200, body, applied_count=1, repeated_count=int(repeated))


def event_tracked(event_id: str, *, repeated: bool) -> Answer:
    """The event is tracked, or updated where its id was known."""
    body = {
        "msg": f"Event with id: {event_id} tracked.",
        "code": "Success",
        "params": {"id": event_id},
    }
    return Answer(200, body, applied_count=1, repeated_count=int(repeated))


class BatchAnswer:
    """A bulk answer in the making. Failed rows are named by lower-cased e-mail, as Iterable does.

    `sparse` leaves out every key but the two counts: the document requires no other.
    """

    def __init__(self, *, of_users: bool, sparse: bool) -> None:
        self._of_users = of_users
        self._sparse = sparse
        self._failed: dict[Refusal, list[str]] = {}
        self._disallowed: dict[str, None] = {}
        self._fail_count = 0

    def fail(self, email: str, refusal: Refusal) -> None:
        """Count one row as failed."""
        self._fail_count += 1
        self._failed.setdefault(refusal, []).append(email.lower())

    def disallow(self, event_name: str) -> None:
        """Count one event as failed for its name."""
        self._fail_count += 1
        self._disallowed[event_name] = None

    def to_answer(
        self,
        *,
        applied_count: int,
        repeated_count: int,
        created_fields: Collection[str],
        filtered_out_fields: Collection[str],
    ) -> Answer:
        """Give the finished answer, HTTP 200 even when every row failed."""
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
            failed |= {refusal.value: list(emails) for refusal, emails in self._failed.items()}
            body |= {
                "invalidEmails": list(failed["invalidEmails"]),
                "invalidUserIds": [],
                "filteredOutFields": sorted(filtered_out_fields),
                "createdFields": list(created_fields),
                "failedUpdates": failed,
            }
            if not self._of_users:
                body["disallowedEventNames"] = list(self._disallowed)
        return Answer(200, body, applied_count, repeated_count)
