"""Reading back: a profile and an event as sent, compared with what Iterable's GET endpoints return.

The result names only values that differ, since values are personal data.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from enum import Enum
from typing import Any
from urllib.parse import quote

import orjson

from config.identity import IdentifyBy
from iterable_api.responses import UNKNOWN_USER_CODES, ApiResponse
from records.outcomes import JSON
from records.rows import RequestKind

GET_BY_EMAIL, GET_BY_USER_ID = "users/getByEmail", "users/byUserId"
GET_EVENTS, GET_EVENTS_BY_USER_ID = "events/{email}", "events/byUserId/{userId}"
MAX_EVENTS = 200  # `events/{email}` returns the newest 200
# Between readings. In total 60 s, the time that Iterable advises to wait until a call is applied.
WAITS_SECONDS = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
_IDENTIFIERS = ("email", "userId")
_UNKNOWN_USER_TEXT = "no user with that id exists"
_MAX_VALUE_CHARACTERS = 60
_MIN_MILLISECONDS = 10**11  # as seconds this is the year 5138
_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[ T](\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?(?: ?(?:Z|([+-])(\d\d):?(\d\d)))?)?"
)


class MissingError(Exception):
    """Iterable does not return the profile or event; the text completes "the event ..."."""


def lookup_of(
    kind: RequestKind, identifier: str, identify_by: IdentifyBy = IdentifyBy.EMAIL
) -> tuple[str, dict[str, str | int]]:
    """Return the path and query of the GET that reads a user's profile or events back."""
    in_path = quote(identifier, safe="")
    if identify_by is IdentifyBy.EMAIL:
        if kind is RequestKind.PROFILE:
            return GET_BY_EMAIL, {"email": identifier}
        return GET_EVENTS.format(email=in_path), {"limit": MAX_EVENTS}
    if kind is RequestKind.PROFILE:
        return GET_BY_USER_ID, {"userId": identifier}
    return GET_EVENTS_BY_USER_ID.format(userId=in_path), {"limit": MAX_EVENTS}


def is_unknown_user(response: ApiResponse) -> bool:
    """Return whether the response to the GET of a profile says that Iterable has no such user.

    Seen are a 200 without a user, a 404, a code of its own at any status, and a text.
    """
    status = response.status or 0
    if not response.is_from_api:
        text = response.content.decode("utf-8", "replace").lower()
        return 200 <= status < 500 and _UNKNOWN_USER_TEXT in text
    if response.code in UNKNOWN_USER_CODES or _UNKNOWN_USER_TEXT in response.message.lower():
        return True
    if status == 200:  # another code is an error, which says nothing about the user
        has_user = isinstance(response.body.get("user"), dict)
        return not has_user and response.code in (None, "Success")
    return status == 404


class Comparison(str, Enum):
    """How a profile or an event in Iterable compares with the one that was sent."""

    AS_SENT = "as sent"
    DIFFERENT = "different"
    MISSING = "missing"
    NOT_READ = "not read back"


def compare(kind: RequestKind, sent: bytes, response: ApiResponse) -> tuple[Comparison, list[str]]:
    """Compare a body that was sent with the response to its lookup; return the details, too.

    A detail completes "the event ...", and has values of fields that differ.
    """
    is_list = kind is RequestKind.EVENT and response.status == 200
    if not is_list and is_unknown_user(response):
        return Comparison.MISSING, ["is not in Iterable"]
    if response.status != 200 or not isinstance(response.body, dict):
        reason = f"HTTP {response.status}" if response.status else response.problem
        return Comparison.NOT_READ, [f"could not be read back ({reason})"]
    try:
        if kind is RequestKind.PROFILE:
            differences = profile_differences(sent, response.body)
        else:
            differences = event_differences(sent, response.body)
    except MissingError as missing:
        return Comparison.MISSING, [str(missing)]
    if differences:
        return Comparison.DIFFERENT, ["differs: " + differences[0], *differences[1:]]
    return Comparison.AS_SENT, []


def is_in_iterable(kind: RequestKind, sent: bytes, response: Any) -> bool:
    """Return whether a profile is as sent, or an event of this name and time exists."""
    if kind is RequestKind.PROFILE:
        try:
            return not profile_differences(sent, response)
        except MissingError:
            return False
    event: JSON = orjson.loads(sent)
    return any(
        each.get("eventName") == event["eventName"]
        and _to_moment(each.get("createdAt")) == _sent_at(event)
        for each in _events_in(response)
    )


def profile_differences(sent: bytes, response: Any) -> list[str]:
    """Compare the body of users/update with the response of users/getByEmail.

    Fields that were not sent are ignored. Raises MissingError for an unknown user.
    """
    user = response.get("user") if isinstance(response, dict) else None
    if not isinstance(user, dict):
        raise MissingError("is not in Iterable")
    fields = user.get("dataFields")
    # Iterable may return the other identifier beside the fields.
    found = {
        **{name: user[name] for name in _IDENTIFIERS if user.get(name) is not None},
        **(fields if isinstance(fields, dict) else {}),
    }
    return list(_differences(orjson.loads(sent)["dataFields"], found))


def event_differences(sent: bytes, response: Any) -> list[str]:
    """Compare the body of events/track with the response of events/{email}.

    Raises MissingError where the response does not have the event.
    """
    event: JSON = orjson.loads(sent)
    events = _events_in(response)
    candidates = [_differences_of(event, each) for each in _find(event, events)]
    if candidates:
        return min(candidates, key=len)
    if len(events) >= MAX_EVENTS:
        raise MissingError(f"is not among the newest {MAX_EVENTS}, and Iterable returns no more")
    raise MissingError("is not in Iterable")


def _events_in(response: Any) -> list[JSON]:
    listed = response.get("events") if isinstance(response, dict) else None
    return [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []


def _find(event: JSON, events: Sequence[JSON]) -> list[JSON]:
    """Find the event by its id or, where Iterable returns no ids, by its name and time."""
    named = [each for each in events if each.get("eventName") == event["eventName"]]
    with_id = [each for each in named if event["id"] in (each.get("id"), each.get("_id"))]
    if with_id or any("id" in each for each in named):
        return with_id
    at = _sent_at(event)
    return [each for each in named if _to_moment(each.get("createdAt")) == at]


def _differences_of(event: JSON, found: JSON) -> list[str]:
    differences = []
    created_at = _to_moment(found.get("createdAt"))
    if created_at is not None and created_at != _sent_at(event):
        differences.append(_difference("createdAt", event["createdAt"], found["createdAt"]))
    # Some kinds of events are returned with their fields at the top level.
    fields = found.get("dataFields")
    differences += _differences(event["dataFields"], found if fields is None else fields)
    return differences


def _sent_at(event: JSON) -> datetime:
    """Read our own `createdAt`, which is always in seconds."""
    return datetime.fromtimestamp(event["createdAt"], timezone.utc)


def _differences(sent: Mapping[str, Any], found: Any) -> Iterator[str]:
    fields = found if isinstance(found, dict) else {}
    for name, value in sent.items():
        current = fields.get(name)
        if name == "email" and isinstance(value, str) and isinstance(current, str):
            value, current = value.lower(), current.lower()
        if not is_same(value, current):
            yield _difference(name, value, fields.get(name))


def is_same(sent: Any, found: Any) -> bool:
    """Compare a value as sent with the one that Iterable returns.

    Dates may have another format, and a field that was sent as null is absent.
    """
    if isinstance(sent, bool) or isinstance(found, bool):
        return sent is found
    if isinstance(sent, dict) and isinstance(found, dict):
        names = sent.keys() | found.keys()
        return all(is_same(sent.get(name), found.get(name)) for name in names)
    if isinstance(sent, list) and isinstance(found, list):
        return len(sent) == len(found) and all(map(is_same, sent, found))
    if isinstance(sent, str) and isinstance(found, str):
        return sent == found or _is_same_moment(sent, found)
    return bool(sent == found)


def _is_same_moment(sent: str, found: str) -> bool:
    moment = _to_moment(sent)
    return moment is not None and moment == _to_moment(found)


def _to_moment(value: Any) -> datetime | None:
    """Read a time in one of Iterable's formats: seconds, milliseconds or text; None for others."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = value / 1000 if value >= _MIN_MILLISECONDS else value
        try:
            return datetime.fromtimestamp(seconds, timezone.utc)
        except (OverflowError, OSError, ValueError):
            return None
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return None
    day, clock, fraction, sign, hours, minutes = match.groups()
    try:
        moment = datetime.fromisoformat(f"{day} {clock or '00:00:00'}")
    except ValueError:
        return None
    moment = moment.replace(microsecond=int((fraction or "0").ljust(6, "0")), tzinfo=timezone.utc)
    offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    try:
        return moment + offset if sign == "-" else moment - offset
    except OverflowError:
        return None


def _difference(name: str, sent: Any, found: Any) -> str:
    current = "absent" if found is None else _to_short_json(found)
    return f"{name} was sent as {_to_short_json(sent)} and is {current}"


def _to_short_json(value: Any) -> str:
    text = orjson.dumps(value, default=str).decode()
    is_long = len(text) > _MAX_VALUE_CHARACTERS
    return text[:_MAX_VALUE_CHARACTERS] + "..." if is_long else text
