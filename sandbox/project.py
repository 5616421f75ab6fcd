"""Iterable project in memory: users, events, field types, and the effect of each API call on them.

Bodies must have passed `request_schemas`; `responses` builds the response texts. A project has one
of three types (see `ProjectType`), which decides what names a user and what is unique.

Simplifications: a type mismatch anywhere in a batch rejects the batch; everything is applied at
once, in order of arrival; an event by an unknown e-mail is an event of nobody in every project.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from hashlib import sha256
from typing import Any, NamedTuple
from uuid import uuid4

import orjson

from sandbox import responses
from sandbox.field_types import FieldTypeCheck, FieldTypes
from sandbox.responses import ApiResponse, BatchResponse, Rejected, Rejection, UnknownUserResponse
from sandbox.users_and_events import Event, Fields, User

_PLAUSIBLE_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s.]+")
# FailedUserUpdates.invalidUserIds: "empty, too long, or containing non-ASCII or non-printable
# characters or a trailing space".
_USER_ID = re.compile(r"[ -~]{0,51}[!-~]")
# TrackRequest.id: "cannot be longer than 512 bytes"; letters, digits and hyphens.
_EVENT_ID = re.compile(r"[A-Za-z0-9-]{1,512}")

Body = Mapping[str, Any]


class ProjectType(str, Enum):
    """How a project identifies its users; chosen when it is created."""

    EMAIL = "email"  # the e-mail is unique
    USER_ID = "userid"  # the userId is unique, the e-mail is not
    HYBRID = "hybrid"  # both are unique, and a user has at least one of them


class _Named(NamedTuple):
    """The identifier that names a user in a body."""

    field: str  # "email" or "userId"
    text: str

    @property
    def comparable(self) -> str:
        """The text in the form in which two names of one user are equal."""
        return self.text.lower() if self.field == "email" else self.text


class Project:
    """Users and events of one project; not thread-safe.

    E-mails are compared in lower case, userIds exactly. `users` is keyed by the identifier that
    named a user first. `field_types` are presets (see `FieldTypes`). `forgotten` and
    `invalid_data_emails` name users by either identifier.
    """

    def __init__(
        self,
        *,
        project_type: ProjectType | str = ProjectType.EMAIL,
        forgotten: Iterable[str] = (),
        invalid_emails: Iterable[str] = (),
        invalid_data_emails: Iterable[str] = (),
        conflict_emails: Iterable[str] = (),
        disallowed_events: Iterable[str] = (),
        field_types: Mapping[str, str] | None = None,
        drop_unknown_fields: bool = False,
        sparse_bulk_responses: bool = False,
        unknown_user_response: UnknownUserResponse | str = UnknownUserResponse.EMPTY,
        says_bad_params: bool = False,
        on_event: Callable[[Event], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._on_event = on_event  # called for each event that is new or changed
        self.type = ProjectType(project_type)
        self._rejections: dict[str, Rejection] = {}
        for identifiers, rejection in (
            (conflict_emails, Rejection.CONFLICT),
            (invalid_data_emails, Rejection.INVALID_DATA),
            (forgotten, Rejection.FORGOTTEN),
            (invalid_emails, Rejection.INVALID),
        ):
            self._rejections.update((text.lower(), rejection) for text in identifiers)
        self._disallowed_events = frozenset(disallowed_events)
        self._type_presets = dict(field_types or {})
        self._drops_unknown_fields = drop_unknown_fields
        self._has_sparse_bulk_responses = sparse_bulk_responses
        self._unknown_user_response = UnknownUserResponse(unknown_user_response)
        self._says_bad_params = says_bad_params
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        """Remove all users, events, learned types and counts; keep the presets."""
        self.users: dict[str, User] = {}
        self.events: dict[str, Event] = {}
        # Where `users` is not keyed by it. In userID-based projects an e-mail leads to the newest
        # of its users.
        self._others: dict[str, dict[str, User]] = {"email": {}, "userId": {}}
        # Rebuilt at the first read after a change, so that writes stay cheap.
        self._events_by_user: dict[str, list[Event]] | None = None
        self.types = FieldTypes(self._type_presets)
        self.unchanged_update_count = 0
        self.repeated_event_count = 0
        self.event_id_collision_count = 0
        self._email_changed_at: dict[str, float] = {}  # of the former and of the new address
        # Calls for a user need some time after users/updateEmail; None: there was no such call.
        self.shortest_wait_after_email_change: float | None = None

    @property
    def _by_email(self) -> dict[str, User]:
        return self.users if self.type is ProjectType.EMAIL else self._others["email"]

    @property
    def _by_user_id(self) -> dict[str, User]:
        return self.users if self.type is ProjectType.USER_ID else self._others["userId"]

    def update_user(self, body: Body) -> ApiResponse:
        """Handle POST users/update."""
        rejected = self._reject_update(body, {})
        if rejected is not None:
            return responses.rejected_user(rejected)
        check = FieldTypeCheck(self._creates_fields(body))
        fields = check.accept("user", self.types.of_users, body)
        if check.problems:
            return responses.bad_fields(check.problems)
        created_fields = check.commit()
        repeated = not self._apply_user(body, fields)
        return responses.user_updated(created_fields, repeated=repeated)

    def track_event(self, body: Body) -> ApiResponse:
        """Handle POST events/track."""
        rejected = self._reject_event(body)
        if rejected is not None:
            return responses.rejected_event(rejected)
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
        claimed: dict[tuple[str, str], str] = {}
        for user in body["users"]:
            rejected = self._reject_update(user, claimed)
            if rejected is not None:
                batch.fail(rejected)
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
            rejected = self._reject_event(event)
            if rejected is not None:
                batch.fail(rejected)
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

    def update_email(self, body: Body) -> ApiResponse:
        """Handle POST users/updateEmail: the user's profile and events get the new address."""
        if self.type is not ProjectType.EMAIL:
            return responses.bad_params("updateEmail works in email-based projects only")
        current, new = body.get("currentEmail"), body["newEmail"]
        if current is not None:
            user = self._by_email.get(current.lower())
        else:
            user = self._by_user_id.get(body.get("currentUserId", ""))
        if self._syntax_problem(_Named("email", new)):
            return responses.rejected_user(Rejected(Rejection.INVALID, "email", new))
        if user is None:
            name = current if current is not None else body.get("currentUserId", "")
            return responses.unknown_email(name, says_bad_params=self._says_bad_params)
        if self._rejections.get(new.lower()) is Rejection.FORGOTTEN:
            return responses.forgotten_new_email(new)
        if new.lower() in self._by_email:
            return responses.rejected_user(Rejected(Rejection.CONFLICT, "email", new))
        former = (user.email or "").lower()
        now = self._clock()
        self._email_changed_at[former] = self._email_changed_at[new.lower()] = now
        for event in self.events.values():
            if event.user is user and event.email is not None:
                event.email = new
        del self.users[former]
        user.key, user.email, user.updated_at = new.lower(), new, now
        self.users[user.key] = user
        self._events_by_user = None
        return responses.email_updated()

    def user_by_email(self, email: str) -> Fields:
        """Handle GET users/getByEmail and users/{email}: `{}` for an unknown user."""
        user = self._by_email.get(email.lower())
        return {} if user is None else {"user": user.to_profile()}

    def user_by_user_id(self, user_id: str) -> ApiResponse:
        """Handle GET users/byUserId and users/byUserId/{userId}."""
        user = self._by_user_id.get(user_id)
        if user is None:
            return responses.unknown_user_id(self._unknown_user_response)
        return ApiResponse(200, {"user": user.to_profile()})

    def events_of(self, identifier: str, limit: int, field: str = "email") -> Fields:
        """Handle GET events/{email} and events/byUserId/{userId}, newest first."""
        if self._events_by_user is None:
            self._events_by_user = {}
            for event in self.events.values():
                if event.user is not None:
                    self._events_by_user.setdefault(event.user.key, []).append(event)
        user = self._find(_Named(field, identifier))
        events = [] if user is None else self._events_by_user.get(user.key, [])
        newest = sorted(events, key=lambda event: event.created_at, reverse=True)
        return {"events": [event.to_listed() for event in newest[:limit]]}

    def user_fields(self) -> Fields:
        """Handle GET users/getFields."""
        return {"fields": dict(self.types.of_users)}

    def forgotten_users(self, field: str) -> ApiResponse:
        """Handle GET users/forgotten (`field` is "email") and users/forgottenUserIds ("userId").

        Each is an error in the type of project that knows no such identifier.
        """
        refuses = ProjectType.USER_ID if field == "email" else ProjectType.EMAIL
        if self.type is refuses:
            return responses.bad_params(f"not available in {self.type.value}-based projects")
        forgotten = [text for text, each in self._rejections.items() if each is Rejection.FORGOTTEN]
        hashes = [
            sha256(text.encode()).hexdigest()
            for text in forgotten
            if ("@" in text) == (field == "email")
        ]
        return ApiResponse(200, {"hashedEmails" if field == "email" else "hashedUserIds": hashes})

    def _reject_update(self, body: Body, claimed: dict[tuple[str, str], str]) -> Rejected | None:
        """Return why a user's update is rejected, None if it is not.

        `claimed` has the identifiers that other users of the batch take, and is extended.
        """
        named = _named(body)
        if named is None:
            return Rejected(Rejection.INVALID_DATA, *_first_named(body))
        rejected = self._rejected_name(named)
        if rejected is not None:
            return rejected
        user = self._find(named)
        if self._is_foreign(named) or (
            user is None
            and self.type is ProjectType.EMAIL
            and named.field == "userId"
            and not body.get("preferUserId")
        ):
            return Rejected(Rejection.NOT_FOUND, *named)
        for field in ("email", "userId"):
            text = body.get("dataFields", {}).get(field)
            if isinstance(text, str):
                given = _Named(field, text)
                rejected = self._rejected_identifier(given, user, named, claimed)
                if rejected is not None:
                    return rejected
        return None

    def _rejected_identifier(
        self,
        given: _Named,
        user: User | None,
        named: _Named,
        claimed: dict[tuple[str, str], str],
    ) -> Rejected | None:
        """Return why the user may not get this identifier from its fields, None if it may."""
        if self.type is ProjectType.EMAIL and given.field == "email":
            return None  # ignored: see `_change_identifiers`
        if self._syntax_problem(given):
            return Rejected(Rejection.INVALID, *given)
        if self._rejections.get(given.text.lower()) is Rejection.FORGOTTEN:
            return Rejected(Rejection.FORGOTTEN, *given)
        is_unique = self.type is ProjectType.HYBRID or (
            self.type is ProjectType.USER_ID and given.field == "userId"
        )
        if not is_unique or (given.field, given.comparable) == (named.field, named.comparable):
            return None
        owner = self._find(given)
        claimant = claimed.setdefault((given.field, given.comparable), named.comparable)
        if (owner is not None and owner is not user) or claimant != named.comparable:
            return Rejected(Rejection.CONFLICT, *given)
        return None

    def _reject_event(self, body: Body) -> Rejected | None:
        named = _named(body)
        if named is None:
            return Rejected(Rejection.INVALID_DATA, *_first_named(body))
        rejected = self._rejected_name(named)
        # For events the OpenAPI document lists no invalidDataEmails and no conflictEmails.
        if rejected is not None and rejected.why not in (
            Rejection.INVALID_DATA,
            Rejection.CONFLICT,
        ):
            return rejected
        is_unknown_id = named.field == "userId" and self._find(named) is None
        if self._is_foreign(named) or (self.type is ProjectType.EMAIL and is_unknown_id):
            return Rejected(Rejection.NOT_FOUND, *named)
        return None

    def _is_foreign(self, named: _Named) -> bool:
        """Return whether the project cannot tell its users by this identifier."""
        return self.type is ProjectType.USER_ID and named.field == "email"

    def _rejected_name(self, named: _Named) -> Rejected | None:
        rejection = self._rejections.get(named.text.lower())
        if rejection is None and self._syntax_problem(named):
            rejection = Rejection.INVALID
        return None if rejection is None else Rejected(rejection, *named)

    def _syntax_problem(self, named: _Named) -> bool:
        pattern = _PLAUSIBLE_EMAIL if named.field == "email" else _USER_ID
        return pattern.fullmatch(named.text) is None

    def _find(self, named: _Named) -> User | None:
        users = self._by_email if named.field == "email" else self._by_user_id
        return users.get(named.comparable)

    def _creates_fields(self, body: Body) -> bool:
        requested: bool | None = body.get("createNewFields")
        return not self._drops_unknown_fields if requested is None else requested

    def _create(self, named: _Named, now: float) -> User:
        is_email = named.field == "email"
        email, user_id = (named.text, None) if is_email else (None, named.text)
        user = self.users[named.comparable] = User(named.comparable, email, user_id, now, now)
        (self._by_email if is_email else self._by_user_id)[named.comparable] = user
        return user

    def _apply_user(self, body: Body, fields: Fields) -> bool:
        """Merge the fields into the profile; null removes one. Return whether anything changed."""
        now = self._clock()
        named = _first_named(body)
        if named.field == "email":
            self._note_wait(named.comparable, now)
        user = self._find(named)
        changed = user is None
        profile: Fields = {}
        if user is None:
            user = self._create(named, now)
        else:
            profile = user.data_fields
            if body.get("mergeNestedObjects"):
                fields = _merge_objects(profile, fields)
        if "email" in fields or "userId" in fields:
            fields = dict(fields)
            changed |= self._change_identifiers(user, fields)
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

    def _change_identifiers(self, user: User, fields: Fields) -> bool:
        """Take the other identifier out of the fields and give it to the user.

        In an e-mail-based project only users/updateEmail changes an address.
        """
        former = user.email, user.user_id
        email, user_id = fields.pop("email", None), fields.pop("userId", None)
        if self.type is ProjectType.EMAIL:
            email = None
        if isinstance(email, str) and (user.email or "").lower() != email.lower():
            if user.email is not None and self._by_email.get(user.email.lower()) is user:
                del self._by_email[user.email.lower()]
            self._rekey(user, user.email and user.email.lower(), email.lower())
            user.email = email
            self._by_email[email.lower()] = user
        if isinstance(user_id, str) and user.user_id != user_id:
            if user.user_id is not None and self._by_user_id.get(user.user_id) is user:
                del self._by_user_id[user.user_id]
            self._rekey(user, user.user_id, user_id)
            user.user_id = user_id
            self._by_user_id[user_id] = user
        return (user.email, user.user_id) != former

    def _rekey(self, user: User, former: str | None, new: str) -> None:
        """Keep `users` keyed by what names the user now, so that a given-up name is free."""
        if user.key == former:
            self.users.pop(former, None)
            user.key = new
            self.users[new] = user
            self._events_by_user = None

    def _apply_event(self, event_id: str, body: Body, fields: Fields) -> bool:
        """Add the event, or replace the one with its id. Return whether anything changed.

        By an unknown userId it creates a user without a profile; by an unknown e-mail it is an
        event of nobody.
        """
        named = _first_named(body)
        now = self._clock()
        email, user_id = body.get("email"), body.get("userId")
        if named.field == "email":
            self._note_wait(named.comparable, now)
        user = self._find(named)
        if user is None and named.field == "userId":
            user = self._create(named, now)
        event_name: str = body["eventName"]
        created_at: int | None = body.get("createdAt")
        fields_json = orjson.dumps(fields).decode()
        known = self.events.get(event_id)
        if known is None:
            at = int(now) if created_at is None else created_at
            known = Event(event_id, email, user_id, user, event_name, at, fields_json)
            self.events[event_id] = known
            self._note_event(known)
            return True
        known.applied_count += 1
        at = known.created_at if created_at is None else created_at
        if (
            known.fields_json == fields_json
            and known.created_at == at
            and known.event_name == event_name
            and known.email == email
            and known.user_id == user_id
            and known.user is user
        ):
            self.repeated_event_count += 1
            return False
        # Event ids are unique in a project: another user's event with this id is a collision.
        is_other = (known.email or "").lower() != (email or "").lower() or known.user_id != user_id
        self.event_id_collision_count += is_other
        known.email, known.user_id, known.user = email, user_id, user
        known.event_name, known.created_at, known.fields_json = event_name, at, fields_json
        self._note_event(known)
        return True

    def _note_event(self, event: Event) -> None:
        self._events_by_user = None
        if self._on_event is not None:
            self._on_event(event)

    def _note_wait(self, email: str, now: float) -> None:
        changed_at = self._email_changed_at.get(email) if self._email_changed_at else None
        if changed_at is not None:
            waited = now - changed_at
            shortest = self.shortest_wait_after_email_change
            self.shortest_wait_after_email_change = (
                waited if shortest is None else min(shortest, waited)
            )


def _first_named(body: Body) -> _Named:
    email = body.get("email")
    return _Named("userId", body["userId"]) if email is None else _Named("email", email)


def _named(body: Body) -> _Named | None:
    """Return what names the user; None where both identifiers do ("but not both")."""
    return None if "email" in body and "userId" in body else _first_named(body)


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
