"""Iterable's webhooks: which event a call confirms. Pure.

Iterable has no webhook for a tracked event itself. But a journey that starts with the event can
call one, and a message that the event has triggered carries the event in its `transactionalData`.
Neither is known to carry the event's id. So the id is computed again from what does arrive: e-mail
or userId, event name, time and page. Sources: support.iterable.com, articles 208013936 (system
webhooks) and 205480275 (journey webhooks).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import orjson

from config.fields import DEFAULT_EVENT_NAME
from records.identity import (
    MAX_EVENT_ID_CHARACTERS,
    to_change_hash,
    to_comparable_email,
    to_event_id,
    to_key_of_user_id,
    to_stable_text,
)

JSON = Mapping[str, Any]
OTHER_KIND = "other"  # the kind of a webhook without a usual name
_KIND = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
# The events of system webhooks: emailClick, pushSend, inAppOpen, journeyExit and so on.
_SYSTEM_EVENT = re.compile(
    r"(email|push|inApp|sms|webPush|embedded|whatsApp|journey|hostedUnsubscribe)[A-Z]"
)
_ID_NAMES = ("id", "eventId", "event_id")
_EVENT_ID = re.compile(r"[A-Za-z0-9-]+")
_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")


class Webhook(NamedTuple):
    """A call, as it is counted and remembered: hashes and a kind, nothing personal."""

    body_hash: int  # of the body's JSON; a call that is repeated has the same one
    kind: str  # the name of the event: page_view, emailSend, ...
    event_hashes: tuple[int, ...]  # of the event ids that it may confirm; empty: it confirms none


def read_webhook(body: bytes, event_name: str = DEFAULT_EVENT_NAME) -> Webhook:
    """Read the body of a call; raises ValueError if it is not a JSON object.

    `event_name` is the setting. Since a row can have another name, a call about any event that is
    not Iterable's own may confirm one: the name is a part of the id.
    """
    content = orjson.loads(body)  # JSONDecodeError is a ValueError
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    name = content.get("eventName")
    kind = name if isinstance(name, str) and _KIND.fullmatch(name) else OTHER_KIND
    event = _our_event(content, event_name)
    ids = dict.fromkeys(_event_ids(event) if event is not None else ())
    try:
        body_hash = to_change_hash(content)
    except TypeError:  # orjson reads 1,024 levels and writes 254
        raise ValueError("nested too deep") from None
    return Webhook(body_hash, kind, tuple(map(to_event_hash, ids)))


def to_event_hash(event_id: str) -> int:
    """Return the hash under which a confirmed event is remembered."""
    return to_key_of_user_id(event_id)


def _our_event(content: JSON, event_name: str) -> JSON | None:
    """Return what the call says of an event of ours: its own fields, or those of the trigger."""
    fields = content.get("dataFields")
    fields = fields if isinstance(fields, dict) else {}
    if _is_ours(content.get("eventName"), event_name):
        return {**fields, **_set_values(content)}
    trigger = fields.get("transactionalData") or content.get("transactionalData")
    if isinstance(trigger, str):
        try:
            trigger = orjson.loads(trigger)
        except orjson.JSONDecodeError:  # cut off at 12,000 characters
            return None
    if not isinstance(trigger, dict) or not _is_ours(trigger.get("eventName"), event_name):
        return None
    inner = trigger.get("dataFields")
    inner = inner if isinstance(inner, dict) else {}
    identifiers = {name: content.get(name) or fields.get(name) for name in ("email", "userId")}
    return {**_set_values(identifiers), **inner, **_set_values(trigger)}


def _is_ours(name: Any, event_name: str) -> bool:
    """Return whether an event of this name may be one that this program has sent."""
    if not isinstance(name, str) or not name:
        return False
    return name == event_name or not _SYSTEM_EVENT.match(name)


def _set_values(content: JSON) -> dict[str, Any]:
    return {name: value for name, value in content.items() if value not in (None, "")}


def _event_ids(event: JSON) -> Iterator[str]:
    for name in _ID_NAMES:
        event_id = event.get(name)
        if (
            isinstance(event_id, str)
            and len(event_id) <= MAX_EVENT_ID_CHARACTERS
            and _EVENT_ID.fullmatch(event_id)
        ):
            yield event_id
    moment = event.get("timestamp")
    if not isinstance(moment, str) or not _TIME.fullmatch(moment):
        created_at = event.get("createdAt")  # the same where DB_TIMEZONE is UTC
        moment = created_at[:19] if isinstance(created_at, str) else ""
    if not _TIME.fullmatch(moment):
        return
    page = event.get("page")
    # A body that is a template has "page": "" for an event without a page, and `_set_values` leaves
    # out a page that is an empty text.
    # The id has no page where the query has none, and the field `page` is another column.
    pages = [None, "" if page is None else to_stable_text(page)]
    email, user_id, name = event.get("email"), event.get("userId"), event["eventName"]
    for page_text in pages:
        if isinstance(email, str):
            yield to_event_id(to_comparable_email(email), moment, page_text, name)
        if isinstance(user_id, (str, int)):
            yield to_event_id(str(user_id), moment, page_text, name)
