"""Field-type guard: compare the profiles to send with the types of the project's fields.

Iterable fixes a field's type with the first value that it ever gets, and rejects every profile with
another one. So before a mapping's first delivery the types are asked for, once (`users/getFields`;
the API does not list the types of event fields), and compared with every profile that waits.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from config.settings import Settings
from errors import ConfigError
from iterable_api.responses import USERS_GET_FIELDS, ApiResponse
from records.field_types import advice, display_type, refuses, types_of

logger = logging.getLogger(__name__)

_SCALARS = frozenset({str, int, float, bool})
# The JSON type of a value, without looking at the value.
_TYPE_NAMES: Mapping[type, Sequence[str]] = {
    str: ("string", "date"),
    int: ("long",),
    float: ("double",),
    bool: ("boolean",),
}


class FieldTypesError(ConfigError):
    """Iterable would refuse every value of a field."""


class Clash(NamedTuple):
    """A field whose type in Iterable refuses values that would be sent."""

    field: str  # the members of an object have dotted names
    iterable_type: str
    our_type: str  # of the first such value
    rows: int  # with such a value
    example_user_id: int | str | None
    is_total: bool  # whether no value of the field fits


class Comparison(NamedTuple):
    """What a comparison of profiles with the fields of a project found."""

    clashes: Sequence[Clash]
    new_fields: Sequence[str]  # that the project does not have yet


def fields_in(response: ApiResponse) -> Mapping[str, str] | None:
    """Return the types of the project's fields; None if the response does not have them."""
    fields = response.body.get("fields") if isinstance(response.body, dict) else None
    if response.status != 200 or not isinstance(fields, dict):
        return None
    return {str(name): str(kind) for name, kind in fields.items()}


def compare(
    profiles: Iterable[tuple[int | str | None, bytes]], iterable_types: Mapping[str, str]
) -> Comparison:
    """Compare profiles, with their user ids, with the types of the project's fields.

    One pass of about a microsecond for a profile of five fields: a value whose JSON type alone says
    that it fits is not looked at.
    """
    fitting: dict[str, frozenset[type]] = {}  # by field: types of which every value fits
    fields_that_fit: set[str] = set()
    clashes: dict[str, Clash] = {}
    for user_id, profile in profiles:
        for name, value in orjson.loads(profile)["dataFields"].items():
            plain = fitting.get(name)
            if plain is None:
                plain = fitting[name] = _plain_types(iterable_types.get(name))
            if type(value) in plain:
                fields_that_fit.add(name)
            elif value is not None:
                for field, our_type in _clashing(name, value, iterable_types, fields_that_fit):
                    clashes[field] = _counted(
                        clashes.get(field), field, iterable_types[field], our_type, user_id
                    )
    return Comparison(
        [clash._replace(is_total=clash.field not in fields_that_fit) for clash in clashes.values()],
        sorted(fields_that_fit - iterable_types.keys()),
    )


def _plain_types(iterable_type: str | None) -> frozenset[type]:
    if iterable_type is None:
        return _SCALARS
    return frozenset(
        kind
        for kind, our_types in _TYPE_NAMES.items()
        if not any(refuses(iterable_type, our_type) for our_type in our_types)
    )


def _clashing(
    name: str, value: Any, iterable_types: Mapping[str, str], fields_that_fit: set[str]
) -> Iterable[tuple[str, str]]:
    """Return the clashing fields in one value; add the others to `fields_that_fit`."""
    clashing: dict[str, str] = {}
    for field, our_type in types_of(name, value):
        if field in iterable_types and refuses(iterable_types[field], our_type):
            clashing.setdefault(field, our_type)
        else:
            fields_that_fit.add(field)
    return clashing.items()


def _counted(
    clash: Clash | None,
    field: str,
    iterable_type: str,
    our_type: str,
    user_id: int | str | None,
) -> Clash:
    if clash is None:
        return Clash(field, iterable_type, our_type, 1, user_id, is_total=False)
    return clash._replace(rows=clash.rows + 1)


def report(comparison: Comparison, settings: Settings, *, is_ignored: bool) -> None:
    """Log what was found; raises FieldTypesError where no value of a field fits.

    With `is_ignored` (--ignore-guards) it warns instead.
    """
    problems = []
    for clash in comparison.clashes:
        sent = display_type(clash.our_type, clash.iterable_type)
        example = f"for example that of user {clash.example_user_id}"
        fix = advice(clash.field, clash.iterable_type, clash.our_type, settings)
        if clash.is_total and not is_ignored:
            problems.append(
                f"{clash.field} is {clash.iterable_type} in Iterable, but every value to send is "
                f"{sent} ({example}), so nothing was sent. To fix it: {fix}. To send it all the "
                "same, run once with --ignore-guards."
            )
        else:
            # One text: warnings of two fields must not pass for the same one (`reporting.news`).
            logger.warning(
                "%s",
                f"{clash.field} is {clash.iterable_type} in Iterable, but {clash.rows:,} of the "
                f"rows to send have a value that is {sent} ({example}): Iterable rejects such "
                f"rows. To fix it: {fix}.",
            )
    if problems:
        raise FieldTypesError(problems)
    if comparison.new_fields and settings.creates_new_fields is not False:
        logger.info(
            "Profile fields that are new to Iterable, where the first value fixes the type: %s",
            ", ".join(comparison.new_fields),
        )


class FieldTypesRequest:
    """The request for the types of the project's fields, which can be made ahead in a thread.

    `get` makes a GET of a path. Not thread-safe.
    """

    def __init__(self, get: Callable[[str], ApiResponse]) -> None:
        self._get = get
        self._thread: threading.Thread | None = None
        self._response = ApiResponse(None, problem="no response")

    def start(self) -> None:
        """Send the request, unless it was sent."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._ask, name="field types", daemon=True)
            self._thread.start()

    def fields(self) -> Mapping[str, str] | None:
        """Return the types; None, with a warning, if Iterable did not say them."""
        self.start()
        assert self._thread is not None  # noqa: S101 - `start` sets it
        self._thread.join()
        types = fields_in(self._response)
        if types is None:
            status, code = self._response.status, self._response.code
            logger.warning(
                "The types of the profile fields could not be compared with those in Iterable "
                "(%s: %s). The run goes on without that.",
                USERS_GET_FIELDS,
                code if status is None else f"HTTP {status} {code or ''}".strip(),
            )
        return types

    def _ask(self) -> None:
        self._response = self._get(USERS_GET_FIELDS)
