"""Mapping of a row to the JSON bodies of its two requests, or to an `InvalidRow` with the reason.

Pure: no network, no disk. An invalid row is returned, not raised.

`RowMapping.key` is called for every row. At 50,000 rows/s a row has 20 microseconds, MySQL and
SQLite included. So the results are named tuples (a frozen dataclass takes three times as long to
create), and payloads are built only for the rows that need a request.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime, timezone, tzinfo
from decimal import Decimal
from typing import Any, NamedTuple

import orjson

from config.fields import (
    DEFAULT_EVENT_NAME,
    DEFAULT_PROFILE_FLAG,
    EVENT_FIELDS,
    USER_FIELDS,
    USER_ID_FIELD,
    AnyField,
    Constant,
    columns_of,
)
from config.identity import IdentifyBy
from records.identity import (
    MAX_EMAIL_CHARACTERS,
    RowKey,
    is_email,
    to_change_hash,
    to_comparable_email,
    to_event_id,
    to_key_of_user_id,
    to_named_event_id,
    to_stable_text,
    to_tie_breaker,
    to_time_text,
    to_user_key,
    to_valid_event_name,
    to_valid_user_id,
)
from records.json_values import MAX_TEXT_CHARACTERS, cast_value, to_json_value
from records.rows import RequestKind

EVENT_TIME, EVENT_TIME_UTC = "event_time", "event_time_utc"
_USER_ID_CAST = "userId"  # how the field `userId` is converted, whatever its column

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_OLDEST = -(2**63)  # microseconds; before every time that MySQL has
_EPOCH_NAIVE = _EPOCH.replace(tzinfo=None)
# ISO 8601 with a blank or a T. Read by this pattern, since `datetime.fromisoformat` accepts more
# forms in every release of Python.
_TIME_TEXT = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[ T](\d\d:\d\d)(:\d\d)?(?:[.,](\d{1,9}))?)?"
    r" ?(?:(Z)|([+-]\d\d):?(\d\d)?)?",
    re.ASCII,
)


class SyncRecord(NamedTuple):
    """A valid row and its request bodies; single and bulk calls use the same JSON bytes."""

    user_id: int | str | None
    email: str | None
    profile: bytes | None  # None: profiles are not sent
    event: bytes | None  # None: events are not sent
    event_id: str | None
    identifier: str  # what names the user in both bodies: the e-mail or the userId


class InvalidRow(NamedTuple):
    """A row that cannot be sent. The reason contains no personal data."""

    user_id: int | str | None
    email: str | None
    reason: str


class RowMapping:
    """The mapping for a query result with these columns.

    Rows are sequences in the order of `columns`, whose names are matched without regard to case.
    Check `missing_columns` and `ambiguous_columns` first; to map a row all the same, append one
    value to it, which is used for each missing column.
    `zone` is the time zone of naive datetimes, except in `timestamp_columns` (indexes of columns
    of type TIMESTAMP) and in a column `event_time_utc`, which are in UTC.
    With `send_nulls` a NULL clears the profile field. `profile_flag` is set to true in each
    profile; empty: there is none. A column `event_name` wins over the setting, row by row. What is
    not sent (`sends_profiles`, `sends_events`) needs no columns, and no value of its columns makes
    a row invalid. `profile_options` and `event_options` are further members of the bodies.
    `identify_by` says what names a user, `user_id_column` which column has the user id. A user who
    is named by user id may have no e-mail, and the result no column `email`.
    """

    def __init__(
        self,
        columns: Sequence[str],
        *,
        user_fields: Sequence[AnyField] = USER_FIELDS,
        event_fields: Sequence[AnyField] = EVENT_FIELDS,
        event_name: str = DEFAULT_EVENT_NAME,
        profile_flag: str = DEFAULT_PROFILE_FLAG,
        sends_profiles: bool = True,
        sends_events: bool = True,
        zone: tzinfo = timezone.utc,
        send_nulls: bool = False,
        timestamp_columns: Collection[int] = (),
        identify_by: IdentifyBy = IdentifyBy.EMAIL,
        user_id_column: str = "id",
        profile_options: Mapping[str, bool] | None = None,
        event_options: Mapping[str, bool] | None = None,
    ) -> None:
        names = [column.lower() for column in columns]
        needed = needed_columns(
            columns,
            user_fields if sends_profiles else (),
            event_fields if sends_events else (),
            sends_events=sends_events,
            identify_by=identify_by,
            user_id_column=user_id_column,
        )
        used = {column.lower() for column in needed}
        used |= {"email", event_time_column(columns)}  # where the result has them
        used |= {"event_id", "event_name", "page"} if sends_events else set()
        counts = Counter(name for name in names if name in used)
        self.missing_columns = [column for column in needed if column.lower() not in counts]
        self.ambiguous_columns = [name for name, count in counts.items() if count > 1]
        position = {name: index for index, name in enumerate(names)}
        # The appended value.
        position |= {column.lower(): len(columns) for column in self.missing_columns}
        self._zone = zone
        self._send_nulls = send_nulls
        self.identify_by = identify_by
        self.profile_flag = profile_flag
        self.sends_profiles, self.sends_events = sends_profiles, sends_events
        is_sent = {RequestKind.PROFILE: sends_profiles, RequestKind.EVENT: sends_events}
        self.kinds = tuple(kind for kind in RequestKind if is_sent[kind])
        self._is_by_email = identify_by is IdentifyBy.EMAIL
        # An event by an unknown userId creates a user without a profile.
        self.event_needs_profile = sends_profiles and (
            not self._is_by_email or any(field.target == USER_ID_FIELD for field in user_fields)
        )
        self.user_id_column = user_id_column.lower()
        self._id = position[self.user_id_column]
        self._email = position.get("email")  # None only if the userId names the user
        # None only if no events are sent.
        self._event_time = position.get(event_time_column(columns))
        utc_columns = {*timestamp_columns, position.get(EVENT_TIME_UTC)}
        self._event_zone = timezone.utc if self._event_time in utc_columns else zone
        self.event_name = event_name
        self._event_name = position.get("event_name") if sends_events else None
        self.has_event_ids = sends_events and "event_id" in position
        # Also where no events are sent: it decides between rows with equal times.
        self._page_or_event_id = position.get("event_id" if "event_id" in position else "page")
        self._profile_options = dict(profile_options or {})
        self._event_options = dict(event_options or {})

        def located(fields: Sequence[AnyField]) -> list[_LocatedField]:
            found = [(field, position[field.column.lower()]) for field in columns_of(fields)]
            return [
                (
                    field.target,
                    index,
                    _USER_ID_CAST if field.target == USER_ID_FIELD else field.cast,
                    timezone.utc if index in utc_columns else zone,
                )
                for field, index in found
            ]

        self._user_fields = located(user_fields if sends_profiles else ())
        self._event_fields = located(event_fields if sends_events else ())
        self._user_constants = _constants(user_fields, keep_nulls=send_nulls)
        if profile_flag:
            self._user_constants[profile_flag] = True
        self._event_constants = _constants(event_fields, keep_nulls=False)
        self._parsed_row: Sequence[Any] | None = None
        self._parsed: _Parsed
        # What the settings contribute to the payloads; see `state.delivered`. Settings that came
        # later than version 1.1.0 count where they are not at their default, since no hash may
        # change by an upgrade.
        user_list, event_list = sorted(map(list, user_fields)), sorted(map(list, event_fields))
        of_flag = [] if profile_flag == DEFAULT_PROFILE_FLAG else [profile_flag]
        self.profile_settings = to_change_hash([user_list, str(zone), send_nulls, *of_flag])
        self.event_settings = to_change_hash([event_list, str(zone)])
        # The same for each of them, to tell which one has changed; absent: at its default.
        self.hash_of_setting = {
            "USER_FIELDS": to_change_hash(user_list),
            "EVENT_FIELDS": to_change_hash(event_list),
            "SEND_NULLS": to_change_hash(send_nulls),
            "DB_TIMEZONE": to_change_hash(str(zone)),
        }
        if profile_flag != DEFAULT_PROFILE_FLAG:
            self.hash_of_setting["PROFILE_FLAG"] = to_change_hash(profile_flag)
        if event_name != DEFAULT_EVENT_NAME:
            self.hash_of_setting["EVENT_NAME"] = to_change_hash(event_name)

    def key(self, row: Sequence[Any]) -> RowKey | None:
        """Return the row's key for change detection, None for a row that `to_record` rejects."""
        try:
            email = None if self._email is None else row[self._email]
            if self._is_by_email:
                if type(email) is not str:
                    return None
                email = identifier = email.strip()
                user_key = to_user_key(identifier)
            else:
                email = _to_optional_email(email)
                identifier = to_valid_user_id(row[self._id])
                user_key = to_key_of_user_id(identifier)
            event_time, event_at, profile_fields, event_fields = self._parse(row)
            page_or_event_id = self._page_or_event_id_of(row)
            profile_hash = event_hash = None
            if self.sends_profiles:
                profile_hash = to_change_hash((identifier, profile_fields))
            if self.sends_events:
                name = self.event_name
                if self._event_name is not None:
                    name = self._event_name_of(row)
                # orjson writes the datetime itself, in a tenth of the time of `to_time_text`.
                event = (identifier, name, event_time, page_or_event_id, event_at, event_fields)
                event_hash = to_change_hash(event)
            return RowKey(
                _to_user_id(row[self._id]),
                email,
                user_key,
                event_at,
                to_tie_breaker(page_or_event_id, profile_hash, event_hash),
                profile_hash,
                event_hash,
            )
        except (ValueError, TypeError):  # TypeError: text that is not Unicode
            return None

    def names_of(self, row: Sequence[Any]) -> tuple[Any, Any]:
        """Return the values of user id and e-mail as they are; None where there is no e-mail."""
        return row[self._id], None if self._email is None else row[self._email]

    def user_key_of(self, row: Sequence[Any]) -> int | None:
        """Return the user key alone, in a tenth of the time.

        None where the e-mail is no text, or the user id is none that Iterable accepts.
        """
        if self._is_by_email and self._email is not None:
            email = row[self._email]
            return to_user_key(email) if type(email) is str else None
        with suppress(ValueError):
            return to_key_of_user_id(to_valid_user_id(row[self._id]))
        return None

    def with_email(self, row: Sequence[Any], email: str) -> Sequence[Any]:
        """Return a copy of the row with another e-mail."""
        copy = list(row)
        if self._email is not None:
            copy[self._email] = email
        return copy

    def to_record(self, row: Sequence[Any]) -> SyncRecord | InvalidRow:
        """Validate one row and build its payloads."""
        user_id = _to_user_id(row[self._id])
        email = None if self._email is None else row[self._email]
        try:
            if self._is_by_email:
                email = identifier = _to_valid_email(email)
            else:
                identifier = self._to_valid_identifier(row)
                email = _to_checked_optional_email(email)
            name = "email" if self._is_by_email else "userId"
            moment, event_at, profile_fields, event_fields = self._parse(row)
            profile = event = event_id = None
            if self.sends_profiles:
                body = {name: identifier, "dataFields": profile_fields, **self._profile_options}
                profile = orjson.dumps(body)
            if self.sends_events and moment is not None:
                event_time = to_time_text(moment)
                event_name = self._event_name_of(row)
                event_id = self._to_event_id(row, identifier, event_name, event_time)
                event = orjson.dumps(
                    {
                        name: identifier,
                        "eventName": event_name,
                        "id": event_id,
                        "createdAt": event_at // 1_000_000,
                        "dataFields": {**event_fields, "timestamp": event_time[:19]},
                        **self._event_options,
                    }
                )
        except ValueError as error:
            return InvalidRow(user_id, _to_reported_email(email), str(error))
        except TypeError:  # from orjson: text that is not Unicode
            return InvalidRow(user_id, _to_reported_email(email), "a text is not valid Unicode")
        return SyncRecord(user_id, email, profile, event, event_id, identifier)

    def invalid_column(self, row: Sequence[Any]) -> int | None:
        """Return the index of the first column whose value makes the row invalid, None if unknown.

        The columns are tried in the order of `to_record`.
        """
        readers: list[tuple[int | None, Callable[[object], object]]] = [
            (self._email, _to_valid_email if self._is_by_email else _to_checked_optional_email),
        ]
        if self.sends_events:
            readers.append((self._event_time, _to_datetime))
            readers.append((self._event_name, lambda value: to_valid_event_name(value, "")))
        if not self._is_by_email:
            readers.insert(0, (self._id, to_valid_user_id))
        for index, read in readers:
            try:
                if index is not None:
                    read(row[index])
            except ValueError:
                return index
        if self.has_event_ids and not (self._page_or_event_id_of(row) or "").strip():
            return self._page_or_event_id
        for field in (*self._user_fields, *self._event_fields):
            try:
                self._to_fields(row, [field], False)
            except ValueError:
                return field[1]
        return None

    def _to_valid_identifier(self, row: Sequence[Any]) -> str:
        try:
            return to_valid_user_id(row[self._id])
        except ValueError as error:
            raise ValueError(f"the user id {error}") from None

    def _page_or_event_id_of(self, row: Sequence[Any]) -> str | None:
        index = self._page_or_event_id
        return None if index is None else to_stable_text(row[index])

    def _event_name_of(self, row: Sequence[Any]) -> str:
        if self._event_name is None:
            return self.event_name
        try:
            return to_valid_event_name(row[self._event_name], self.event_name)
        except ValueError as error:
            raise ValueError(f"the event name {error}") from None

    def _to_event_id(
        self, row: Sequence[Any], identifier: str, event_name: str, event_time: str
    ) -> str:
        page_or_event_id = self._page_or_event_id_of(row)
        if self.has_event_ids:
            return to_named_event_id(page_or_event_id or "", event_name)
        if self._is_by_email:
            identifier = to_comparable_email(identifier)
        return to_event_id(identifier, event_time, page_or_event_id, event_name)

    def _parse(self, row: Sequence[Any]) -> _Parsed:
        """Return what both the key and the payloads are made of; kept for the last row."""
        if row is not self._parsed_row:
            moment, event_at = (
                self._to_event_time(row[self._event_time])
                if self.sends_events and self._event_time is not None
                else self._event_time_if_any(row)
            )
            profile_fields = self._to_profile_fields(row)
            event_fields = self._to_fields(row, self._event_fields, False)
            if self._event_constants:
                event_fields.update(self._event_constants)
            self._parsed = moment, event_at, profile_fields, event_fields
            self._parsed_row = row
        return self._parsed

    def _event_time_if_any(self, row: Sequence[Any]) -> tuple[datetime | None, int]:
        """Return what `_to_event_time` does, where no events are sent.

        The time then only decides which of a user's rows is used: a row without one counts as the
        oldest.
        """
        with suppress(ValueError):
            if self._event_time is not None:
                return self._to_event_time(row[self._event_time])
        return None, _OLDEST

    def _to_event_time(self, value: object) -> tuple[datetime, int]:
        """Return the time without a zone, and its microseconds since 1970, UTC.

        The time has the digits that are stored, of a text with a zone those of its time in UTC. A
        time that `zone` skips or repeats is read as `zoneinfo` does with fold=0.
        """
        moment = value if type(value) is datetime else _to_datetime(value)
        zone = self._event_zone
        if moment.tzinfo is not None:
            zone = timezone.utc
            try:
                moment = moment.astimezone(zone).replace(tzinfo=None)
            except OverflowError:  # the offset moves it out of the years 1 to 9999
                raise ValueError("the event time is not a date and time") from None
        since = (
            moment - _EPOCH_NAIVE  # the usual case; three times as fast
            if zone is timezone.utc
            else moment.replace(tzinfo=zone) - _EPOCH
        )
        event_at = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
        return moment, event_at

    def _to_profile_fields(self, row: Sequence[Any]) -> dict[str, Any]:
        if not self.sends_profiles:
            return {}
        fields = self._to_fields(row, self._user_fields, self._send_nulls)
        fields.update(self._user_constants)
        if self._is_by_email or self._email is None:
            return fields
        email = _to_optional_email(row[self._email])
        return fields if email is None else {"email": email, **fields}

    def _to_fields(
        self, row: Sequence[Any], fields: list[_LocatedField], keep_nulls: bool
    ) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for target, index, cast, zone in fields:
            value = row[index]
            if type(value) is str and not cast and len(value) <= MAX_TEXT_CHARACTERS:
                values[target] = value
                continue
            try:
                if cast == _USER_ID_CAST:  # a NULL is left out, since null is no userId
                    if value is not None:
                        values[target] = to_valid_user_id(value)
                    continue
                converted = to_json_value(cast_value(value, cast), zone)
            except ValueError as error:
                raise ValueError(f"field {target!r} {error}") from None
            if converted is not None or keep_nulls:
                values[target] = converted
        return values


# The event time with the digits that are stored, the same in microseconds since 1970, the fields of
# the profile, those of the event.
_Parsed = tuple[datetime | None, int, dict[str, Any], dict[str, Any]]
# Name of the field, index of its column, cast, time zone of a naive datetime.
_LocatedField = tuple[str, int, str, tzinfo]


def event_time_column(columns: Sequence[str]) -> str:
    """Return `event_time`, or `event_time_utc` where the result has only that."""
    names = {column.lower() for column in columns}
    is_utc = EVENT_TIME_UTC in names and EVENT_TIME not in names
    return EVENT_TIME_UTC if is_utc else EVENT_TIME


def needed_columns(
    columns: Sequence[str],
    user_fields: Sequence[AnyField] = USER_FIELDS,
    event_fields: Sequence[AnyField] = EVENT_FIELDS,
    *,
    sends_events: bool = True,
    identify_by: IdentifyBy = IdentifyBy.EMAIL,
    user_id_column: str = "id",
) -> list[str]:
    """Return the columns that the query must return; the fields are those that are sent."""
    always = [user_id_column, *(["email"] if identify_by is IdentifyBy.EMAIL else [])]
    always += [event_time_column(columns)] if sends_events else []
    mapped = [field.column for field in columns_of((*user_fields, *event_fields))]
    needed: dict[str, str] = {}
    for column in (*always, *mapped):
        needed.setdefault(column.lower(), column)
    return list(needed.values())


def _constants(fields: Sequence[AnyField], *, keep_nulls: bool) -> dict[str, Any]:
    constants = (field for field in fields if isinstance(field, Constant))
    return {each.target: each.value for each in constants if keep_nulls or each.value is not None}


def _to_user_id(value: object) -> int | str | None:
    if type(value) is int and -(2**63) <= value < 2**63:  # the range of SQLite's integers
        return value
    text = to_stable_text(value)
    return None if text is None else text.encode("utf-8", "backslashreplace").decode()


def _to_valid_email(value: object) -> str:
    if value is None:
        raise ValueError("no e-mail address")
    if isinstance(value, (bytes, bytearray)):
        raise ValueError("the e-mail address is binary: select CONVERT(... USING utf8mb4)")
    if not isinstance(value, str):
        raise ValueError("the e-mail address is not text")
    email = value.strip()
    if not email:
        raise ValueError("no e-mail address")
    if not is_email(email):
        raise ValueError("malformed e-mail address")
    return email


def _to_optional_email(value: object) -> str | None:
    """Return an e-mail that may be missing, without outer spaces; its syntax is not checked."""
    if type(value) is str:
        return value.strip() or None
    if value is None:
        return None
    return _to_valid_email(value)  # raises the ValueError for its type


def _to_checked_optional_email(value: object) -> str | None:
    email = _to_optional_email(value)
    return None if email is None else _to_valid_email(email)


def _to_reported_email(value: object) -> str | None:
    """Return the e-mail to report for an invalid row: any text, as valid Unicode."""
    if not isinstance(value, str):
        return None
    return value[:MAX_EMAIL_CHARACTERS].encode("utf-8", "replace").decode()


def _to_datetime(value: object) -> datetime:
    """Return the time of a DATETIME, DATE or text; with a zone where the text has one."""
    if value is None or value == "":
        raise ValueError("no event time")
    if isinstance(value, datetime):
        return value
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day)  # noqa: DTZ001 - as stored, without a zone
    if isinstance(value, (int, float, Decimal)):
        raise ValueError(
            "the event time is a number: select FROM_UNIXTIME(...) AS event_time_utc instead"
        )
    if isinstance(value, (bytes, bytearray)):
        raise ValueError("the event time is binary: select CONVERT(... USING utf8mb4)")
    match = _TIME_TEXT.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("the event time is not a date and time")
    day, clock, seconds, fraction, is_utc, hours, minutes = match.groups()
    text = f"{day} {clock or '00:00'}{seconds or ':00'}.{(fraction or '0')[:6].ljust(6, '0')}"
    offset = "+00:00" if is_utc else f"{hours}:{minutes or '00'}" if hours else ""
    try:
        return datetime.fromisoformat(text + offset)
    except ValueError:
        raise ValueError("the event time is not a date and time") from None
