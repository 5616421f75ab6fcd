"""Control endpoints under `/sandbox/`, by which tests inspect and change a running sandbox.

Iterable has no such endpoints. GET: state, users, events, calls. POST: faults, limits, reset.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

import orjson

from sandbox.api_service import ApiService
from sandbox.fault_effects import REDIRECT_TARGET
from sandbox.users_and_events import Event, User
from sandbox.wire_response import WireResponse

CONTROL_PATH = "/sandbox/"


def control(service: ApiService, method: str, target: str, raw: bytes) -> WireResponse:
    """Handle one control call; a bad fault script or limit gets a 400 whose `error` says why."""
    path, _, query = target.partition("?")
    if path == REDIRECT_TARGET:
        service.redirect_followed_count += 1
        return _json({"msg": "A redirect was followed", "code": "Success", "params": None})
    try:
        if method == "GET":
            return _json(_read(service, path, query))
        if method == "POST":
            return _json(_change(service, path, raw))
    except LookupError:
        pass
    except ValueError as error:
        return _json({"error": str(error)}, status=400)
    return _json({"error": f"no endpoint {method} {path}"}, status=404)


def _read(service: ApiService, path: str, query: str) -> Mapping[str, Any]:
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
    value = orjson.loads(raw)  # raises ValueError if it is not JSON
    if not isinstance(value, expected):
        raise ValueError(f"the body must be a JSON {'list' if expected is list else 'object'}")
    return value


def _json(content: Mapping[str, Any], status: int = 200) -> WireResponse:
    return WireResponse(status, orjson.dumps(content))


def _user(user: User) -> dict[str, Any]:
    return {
        "email": user.email,
        "userId": user.user_id,
        "isBare": user.is_bare,
        "dataFields": user.data_fields,
        "appliedCount": user.applied_count,
    }


def _event(event: Event) -> dict[str, Any]:
    return {
        "id": event.id,
        "email": event.email,
        "userId": event.user_id,
        "isOfNobody": event.user is None,
        "eventName": event.event_name,
        "createdAt": event.created_at,
        "dataFields": event.data_fields,
        "appliedCount": event.applied_count,
    }
