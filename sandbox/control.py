"""The `/sandbox/` calls: what tests ask of the sandbox and tell it. Iterable has none of them.

Owns their paths and JSON. Refuses to know sockets and how the API decides anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

import orjson

from sandbox.profiles import Event, User
from sandbox.replies import REDIRECT_TARGET, Reply
from sandbox.service import ApiService

CONTROL_PATH = "/sandbox/"


def control(service: ApiService, method: str, target: str, raw: bytes) -> Reply:
    """Answer one control call; a bad script or limit is a 400 with `error` saying why."""
    path, _, query = target.partition("?")
    if path == REDIRECT_TARGET:
        service.redirect_followed_count += 1
        return _json({"msg": "A redirect was followed", "code": "Success", "params": None})
    try:
        if method == "GET":
            return _json(_look(service, path, query))
        if method == "POST":
            return _json(_change(service, path, raw))
    except LookupError:
        pass
    except ValueError as error:
        return _json({"error": str(error)}, status=400)
    return _json({"error": f"no {method} {path} here"}, status=404)


def _look(service: ApiService, path: str, query: str) -> Mapping[str, Any]:
    if path == "/sandbox/state":
        return service.state()
    if path == "/sandbox/users":
        return {"users": [_user(user) for user in service.project.users.values()]}
    if path == "/sandbox/events":
        return {"events": [_event(event) for event in service.project.events.values()]}
    if path == "/sandbox/calls":
        limit = parse_qs(query).get("limit", ["100"])[-1]
        if not limit.isdecimal():
            raise ValueError("limit must be a number")
        calls = list(service.calls)
        return {"calls": [call.to_dict() for call in calls[max(0, len(calls) - int(limit)) :]]}
    raise LookupError(path)


def _change(service: ApiService, path: str, raw: bytes) -> Mapping[str, Any]:
    if path == "/sandbox/faults":
        service.set_faults(_parsed(raw, list))
        return {"faults": service.faults.to_list()}
    if path == "/sandbox/limits":
        service.set_limits(_parsed(raw, dict))
        return {"ok": True}
    if path == "/sandbox/reset":
        service.reset()
        return {"ok": True}
    raise LookupError(path)


def _parsed(raw: bytes, expected: type) -> Any:
    value = orjson.loads(raw)  # its error is a ValueError
    if not isinstance(value, expected):
        raise ValueError(f"the body must be a JSON {'list' if expected is list else 'object'}")
    return value


def _json(content: Mapping[str, Any], status: int = 200) -> Reply:
    return Reply(status, orjson.dumps(content))


def _user(user: User) -> dict[str, Any]:
    return {
        "email": user.email,
        "dataFields": user.data_fields,
        "appliedCount": user.applied_count,
    }


def _event(event: Event) -> dict[str, Any]:
    return {
        "id": event.id,
        "email": event.email,
        "eventName": event.event_name,
        "createdAt": event.created_at,
        "dataFields": event.data_fields,
        "appliedCount": event.applied_count,
    }
