"""Iterable checks of `--check`: address, data centre, API key, types of the project's fields.

All of them come from one read-only request, `GET users/getFields` (rate limit: 3 a second).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import closing

from commands.check.field_types import FieldTypes, advice, display_type, fits
from commands.check.line import CheckLine, failed, passed, warned
from config.settings import Settings
from iterable_api.advice import DATA_CENTRES, explain_problem, explain_refusal
from iterable_api.http import IterableHTTP
from iterable_api.responses import NO_API_RESPONSE

GET_FIELDS = "users/getFields"


def check_iterable(
    settings: Settings,
) -> Generator[CheckLine, None, Mapping[str, str] | None]:
    """Yield the line; return the types of the project's fields, None where they are unknown."""
    address = settings.iterable_api_base_url
    with closing(IterableHTTP(settings.iterable_api_key, address, connections=1)) as http:
        response = http.get(GET_FIELDS)
    if response.status == 429:
        yield warned(
            "Iterable",
            f"{address} is rate limiting requests (HTTP 429), so the key was not checked: try "
            "again in a minute",
        )
        return None
    problem = explain_problem(GET_FIELDS, response, address)
    types = response.body.get("fields") if isinstance(response.body, dict) else None
    if problem is None and not isinstance(types, dict):
        problem = explain_refusal(response.status, NO_API_RESPONSE, "")
    if problem is not None or not isinstance(types, dict):
        yield failed("Iterable", problem or "")
        return None
    place = DATA_CENTRES.get(address, "neither of Iterable's two addresses")
    yield passed("Iterable", f"{address} ({place}) accepts the key; {len(types):,} profile fields")
    return {str(name): str(kind) for name, kind in types.items()}


def check_field_types(
    sent_types: FieldTypes, iterable_types: Mapping[str, str]
) -> Iterator[CheckLine]:
    """Compare the types of the profile fields; Iterable would reject rows of another type."""
    name = "field types"
    clashing = new = 0
    for field, kinds in sorted(sent_types.items()):
        expected = iterable_types.get(field)
        if expected is None:
            new += 1
            if len(kinds) > 1 and not _can_share_a_field(kinds):
                types = " and as ".join(sorted(display_type(kind, "") for kind in kinds))
                yield warned(
                    name,
                    f"{field} is new to Iterable and is sent as {types}: the first value that "
                    "Iterable receives fixes the type, and the other type is rejected",
                )
            continue
        for kind in sorted(kinds):
            if not fits(expected, kind):
                clashing += 1
                sent = display_type(kind, expected)
                yield failed(
                    name,
                    f"{field} is {expected} in Iterable but sent as {sent}: "
                    f"such rows would be rejected. To fix it: {advice(field, expected, kind)}",
                )
    if not clashing:
        yield passed(
            name,
            f"the {len(sent_types):,} profile fields match, {new:,} of them new to Iterable (event "
            "fields are not checked: the API does not list them)",
        )


def _can_share_a_field(kinds: frozenset[str]) -> bool:
    """Return whether one field can take values of all these types, whichever comes first."""
    return all(fits(_type_of_new_field(first), kind) for first in kinds for kind in kinds)


def _type_of_new_field(kind: str) -> str:
    """Return the type that a new field gets from a first value of this type."""
    return "string" if kind in ("date", "text") else "double" if kind == "decimal" else kind
