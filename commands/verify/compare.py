"""What Iterable shows of a profile and an event, held against what was sent.

Owns the shapes of Iterable's two answers (`users/getByEmail`, `events/{email}`) and what counts as
the same value. Pure functions; sends nothing, and words no value that is as it was sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

import orjson

from records.outcomes import JSON

MAX_EVENTS = 200  # that `events/{email}` gives, the newest
_MOST_SHOWN_CHARACTERS = 60
_MILLISECONDS_FROM = 10**11  # as seconds that would be the year 5138
_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[ T](\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?(?: ?(?:Z|([+-])(\d\d):?(\d\d)))?)?"
)


class NotThere(Exception):
    """Iterable does not show it; the text completes "the profile ..." or "the event ..."."""


def profile_differences(sent: bytes, answer: Any) -> list[str]:
    """Compare the body of a users/update with the answer of users/getByEmail.

    Fields that were not sent are nobody's business. Raises NotThere for an unknown person.
    """
    user = answer.get("user") if isinstance(answer, dict) else None
    if not isinstance(user, dict):
        raise NotThere("is not in Iterable")
    shown = user.get("dataFields")
    return list(_differences(orjson.loads(sent)["dataFields"], shown))


def event_differences(sent: bytes, answer: Any) -> list[str]:
    """Compare the body of an events/track with the answer of events/{email}.

    Raises NotThere where no event of the list is the one.
    """
    event: JSON = orjson.loads(sent)
    listed = answer.get("events") if isinstance(answer, dict) else None
    events = [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
    candidates = [_differences_of(event, each) for each in _find(event, events)]
    if candidates:
        return min(candidates, key=len)
    if len(events) >= MAX_EVENTS:
        raise NotThere(f"is not among the newest {MAX_EVENTS}, and Iterable shows no more")
    raise NotThere("is not in Iterable")


def _find(event: JSON, events: Sequence[JSON]) -> list[JSON]:
    """Find the event by its id or, where Iterable shows none, by its name and time."""
    named = [each for each in events if each.get("eventName") == event["eventName"]]
    with_id = [each for each in named if event["id"] in (each.get("id"), each.get("_id"))]
    if with_id or any("id" in each for each in named):
        return with_id
    at = _sent_at(event)
    return [each for each in named if _to_moment(each.get("createdAt")) == at]


def _differences_of(event: JSON, shown: JSON) -> list[str]:
    differences = []
    created_at = _to_moment(shown.get("createdAt"))
    if created_at is not None and created_at != _sent_at(event):
        differences.append(_described("createdAt", event["createdAt"], shown["createdAt"]))
    # Some kinds of events are shown with their fields beside the name.
    fields = shown.get("dataFields")
    differences += _differences(event["dataFields"], shown if fields is None else fields)
    return differences


def _sent_at(event: JSON) -> datetime:
    """Read our own `createdAt`: always seconds, whatever the year."""
    return datetime.fromtimestamp(event["createdAt"], timezone.utc)


def _differences(sent: Mapping[str, Any], shown: Any) -> Iterator[str]:
    fields = shown if isinstance(shown, dict) else {}
    for name, value in sent.items():
        if not is_same(value, fields.get(name)):
            yield _described(name, value, fields.get(name))


def is_same(sent: Any, shown: Any) -> bool:
    """Say whether Iterable shows what was sent; it shows dates in a form of its own.

    A field that was sent as null is absent afterwards.
    """
    if isinstance(sent, bool) or isinstance(shown, bool):
        return sent is shown
    if isinstance(sent, dict) and isinstance(shown, dict):
        names = sent.keys() | shown.keys()
        return all(is_same(sent.get(name), shown.get(name)) for name in names)
    if isinstance(sent, list) and isinstance(shown, list):
        return len(sent) == len(shown) and all(map(is_same, sent, shown))
    if isinstance(sent, str) and isinstance(shown, str):
        return sent == shown or _is_same_moment(sent, shown)
    return bool(sent == shown)


def _is_same_moment(sent: str, shown: str) -> bool:
    moment = _to_moment(sent)
    return moment is not None and moment == _to_moment(shown)


def _to_moment(value: Any) -> datetime | None:
    """Read a time of Iterable's: unix seconds, milliseconds, or a text; None for no time."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = value / 1000 if value >= _MILLISECONDS_FROM else value
        try:
            return datetime.fromtimestamp(seconds, timezone.utc)
        except (OverflowError, OSError, ValueError):
            return None
    found = _TIME.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return None
    day, clock, fraction, sign, hours, minutes = found.groups()
    try:
        moment = datetime.fromisoformat(f"{day} {clock or '00:00:00'}")
    except ValueError:
        return None
    moment = moment.replace(microsecond=int((fraction or "0").ljust(6, "0")), tzinfo=timezone.utc)
    ahead = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    try:
        return moment + ahead if sign == "-" else moment - ahead
    except OverflowError:
        return None


def _described(name: str, sent: Any, shown: Any) -> str:
    is_now = "absent" if shown is None else _shown(shown)
    return f"{name} was sent as {_shown(sent)} and is {is_now}"


def _shown(value: Any) -> str:
    text = orjson.dumps(value, default=str).decode()
    is_long = len(text) > _MOST_SHOWN_CHARACTERS
    return text[:_MOST_SHOWN_CHARACTERS] + "..." if is_long else text
