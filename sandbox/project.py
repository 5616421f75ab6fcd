"""Iterable project in memory: users, events, field types, and the effect of each API call on them.

Bodies must have passed `request_schemas`; `responses` builds the response texts.

Simplifications: users are keyed by lower-cased e-mail; an event does not create its user; a type
mismatch anywhere in a batch rejects the batch; everything is applied at once, in order of arrival.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from uuid import uuid4

import orjson

from sandbox import responses
from sandbox.field_types import FieldTypeCheck, FieldTypes
from sandbox.responses import ApiResponse, BatchResponse, Rejection
from sandbox.users_and_events import Event, Fields, User

_PLAUSIBLE_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s.]+")
# TrackRequest.id: "cannot be longer than 512 bytes"; letters, digits and hyphens.
_EVENT_ID = re.compile(r"[A-Za-z0-9-]{1,512}")

Body = Mapping[str, Any]


class Project:
    """Users and events of one project; not thread-safe.

    E-mails are compared in lower case; `field_types` are presets (see `FieldTypes`).
    """

    def __init__(
        self,
        *,
        forgotten: Iterable[str] = (),
        invalid_emails: Iterable[str] = (),
        invalid_data_emails: Iterable[str] = (),
        conflict_emails: Iterable[str] = (),
        disallowed_events: Iterable[str] = (),
        field_types: Mapping[str, str] | None = None,
        drop_unknown_fields: bool = False,
        sparse_bulk_responses: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._rejections: dict[str, Rejection] = {}
        for emails, rejection in (
            (conflict_emails, Rejection.CONFLICT),
            (invalid_data_emails, Rejection.INVALID_DATA),
            (forgotten, Rejection.FORGOTTEN),
            (invalid_emails, Rejection.INVALID_EMAIL),
        ):
            self._rejections.update((email.lower(), rejection) for email in emails)
        self._disallowed_events = frozenset(disallowed_events)
        self._type_presets = dict(field_types or {})
        self._drops_unknown_fields = drop_unknown_fields
        self._has_sparse_bulk_responses = sparse_bulk_responses
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        """Remove all users, events, learned types and counts; keep the presets."""
        self.users: dict[str, User] = {}
        self.events: dict[str, Event] = {}
        # Rebuilt at the first read after a change, so that writes stay cheap.
        self._events_by_email: dict[str, list[Event]] = {}
        self.types = FieldTypes(self._type_presets)
        self.unchanged_update_count = 0
        self.repeated_event_count = 0
        self.event_id_collision_count = 0

    def update_user(self, body: Body) -> ApiResponse:
        """Handle POST users/update."""
        rejection = self._rejection_of(body["email"])
        if rejection is not None:
            return responses.rejected_user(body["email"], rejection)
        check = FieldTypeCheck(self._creates_fields(body))
        fields = check.accept("user", self.types.of_users, body)
        if check.problems:
            return responses.bad_fields(check.problems)
        created_fields = check.commit()
        repeated = not self._apply_user(body, fields)
        return responses.user_updated(created_fields, repeated=repeated)

    def track_event(self, body: Body) -> ApiResponse:
        """Handle POST events/track."""
        rejection = self._event_rejection_of(body["email"])
        if rejection is not None:
            return responses.rejected_event(body["email"], rejection)
        event_name = body["eventName"]
        if event_name in self._disallowed_events:
            return responses.disallowed_event(event_name)
        if not _has_valid_id(body):
            return responses.bad_params("Event id must be 1-512 letters, digits and hyphens")
        check = FieldTypeCheck(self._creates_fields(body))
        fields = check.accept(event_name, self.types.of_events(event_name), body)
        if check.problems:
            return responses.bad_fields(check.problems)
        check.commit()
        event_id = body.get("id") or uuid4().hex
        repeated = not self._apply_event(event_id, body, fields)
        return responses.event_tracked(event_id, repeated=repeated)

    def bulk_update_users(self, body: Body) -> ApiResponse:
        """Handle POST users/bulkUpdate."""
        if not body["users"]:
            return responses.bad_params("users must not be empty")
        batch = BatchResponse(of_users=True, sparse=self._has_sparse_bulk_responses)
        check = FieldTypeCheck(self._creates_fields(body))
        accepted: list[tuple[Body, Fields]] = []
        for user in body["users"]:
            rejection = self._rejection_of(user["email"])
            if rejection is not None:
                batch.fail(user["email"], rejection)
            else:
                fields = check.accept("user", self.types.of_users, user)
                accepted.append((user, fields))
        if check.problems:
            return responses.bad_fields(check.problems)
        created_fields = check.commit()
        changed_count = sum(self._apply_user(user, fields) for user, fields in accepted)
        return batch.to_response(
            applied_count=len(accepted),
            repeated_count=len(accepted) - changed_count,
            created_fields=created_fields,
            filtered_out_fields=check.filtered_out_fields,
        )

    def track_events(self, body: Body) -> ApiResponse:
        """Handle POST events/trackBulk."""
        batch = BatchResponse(of_users=False, sparse=self._has_sparse_bulk_responses)
        check = FieldTypeCheck(not self._drops_unknown_fields)
        accepted: list[tuple[Body, Fields]] = []
        for event in body["events"]:
            event_name = event["eventName"]
            rejection = self._event_rejection_of(event["email"])
            if rejection is not None:
                batch.fail(event["email"], rejection)
            elif event_name in self._disallowed_events:
                batch.disallow(event_name)
            elif not _has_valid_id(event):
                return responses.bad_params("Event id must be 1-512 letters, digits and hyphens")
            else:
                check.creates_fields = self._creates_fields(event)
                fields = check.accept(event_name, self.types.of_events(event_name), event)
                accepted.append((event, fields))
        if check.problems:
            return responses.bad_fields(check.problems)
        created_fields = check.commit()
        changed_count = sum(
            self._apply_event(event.get("id") or uuid4().hex, event, fields)
            for event, fields in accepted
        )
        return batch.to_response(
            applied_count=len(accepted),
            repeated_count=len(accepted) - changed_count,
            created_fields=created_fields,
            filtered_out_fields=check.filtered_out_fields,
        )

    def user_by_email(self, email: str) -> Fields:
        """Handle GET users/getByEmail and users/{email}: `{}` for an unknown user."""
        user = self.users.get(email.lower())
        return {} if user is None else {"user": user.to_profile()}

    def events_of(self, email: str, limit: int) -> Fields:
        """Handle GET events/{email}, newest first."""
        if not self._events_by_email:
            for event in self.events.values():
                self._events_by_email.setdefault(event.email.lower(), []).append(event)
        events = self._events_by_email.get(email.lower(), [])
        newest = sorted(events, key=lambda event: event.created_at, reverse=True)
        return {"events": [event.to_listed() for event in newest[:limit]]}

    def user_fields(self) -> Fields:
        """Handle GET users/getFields."""
        return {"fields": dict(self.types.of_users)}

    def _rejection_of(self, email: str) -> Rejection | None:
        rejection = self._rejections.get(email.lower())
        if rejection is None and _PLAUSIBLE_EMAIL.fullmatch(email) is None:
            return Rejection.INVALID_EMAIL
        return rejection

    def _event_rejection_of(self, email: str) -> Rejection | None:
        # For events the OpenAPI document lists no invalidDataEmails and no conflictEmails.
        rejection = self._rejection_of(email)
        if rejection is Rejection.INVALID_DATA or rejection is Rejection.CONFLICT:
            return None
        return rejection

    def _creates_fields(self, body: Body) -> bool:
        requested: bool | None = body.get("createNewFields")
        return not self._drops_unknown_fields if requested is None else requested

    def _apply_user(self, body: Body, fields: Fields) -> bool:
        """Merge the fields into the profile; null removes one. Return whether anything changed."""
        now = self._clock()
        email: str = body["email"]
        user = self.users.get(email.lower())
        changed = user is None
        profile: Fields = {}
        if user is None:
            user = self.users[email.lower()] = User(email, now, now)
        else:
            profile = user.data_fields
            if body.get("mergeNestedObjects"):
                fields = _merge_objects(profile, fields)
        profile.update(fields)
        if None in profile.values():
            profile = {name: value for name, value in profile.items() if value is not None}
        fields_json = orjson.dumps(profile).decode()
        if fields_json != user.fields_json:
            user.fields_json = fields_json
            changed = True
        user.applied_count += 1
        user.updated_at = now
        self.unchanged_update_count += not changed
        return changed

    def _apply_event(self, event_id: str, body: Body, fields: Fields) -> bool:
        """Add the event, or replace the one with its id. Return whether anything changed."""
        email: str = body["email"]
        event_name: str = body["eventName"]
        created_at: int | None = body.get("createdAt")
        fields_json = orjson.dumps(fields).decode()
        known = self.events.get(event_id)
        if known is None:
            at = int(self._clock()) if created_at is None else created_at
            self.events[event_id] = Event(event_id, email, event_name, at, fields_json)
            self._events_by_email = {}
            return True
        known.applied_count += 1
        at = known.created_at if created_at is None else created_at
        if (
            known.fields_json == fields_json
            and known.created_at == at
            and known.event_name == event_name
            and known.email == email
        ):
            self.repeated_event_count += 1
            return False
        # Event ids are unique in a project: another user's event with this id is a collision.
        self.event_id_collision_count += known.email.lower() != email.lower()
        known.email, known.event_name = email, event_name
        known.created_at, known.fields_json = at, fields_json
        self._events_by_email = {}
        return True


def _merge_objects(profile: Fields, fields: Fields) -> Fields:
    """Return `fields` with its top-level objects merged into those of the profile."""
    return {
        name: {**profile[name], **value}
        if isinstance(value, dict) and isinstance(profile.get(name), dict)
        else value
        for name, value in fields.items()
    }


def _has_valid_id(event: Body) -> bool:
    event_id = event.get("id")
    return event_id is None or _EVENT_ID.fullmatch(event_id) is not None
