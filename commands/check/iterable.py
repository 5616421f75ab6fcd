"""Iterable, for `--check`: address, data centre, key, and the types of the project's fields.

Owns the one harmless question (`GET users/getFields`, 3 a second allowed) and what its answers
mean in the operator's words. Changes nothing in the project.
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
    """Ask for the project's fields; returns their types by name, None where none came."""
    address = settings.iterable_api_base_url
    with closing(IterableHTTP(settings.iterable_api_key, address, connections=1)) as http:
        answer = http.get(GET_FIELDS)
    if answer.status == 429:
        yield warned(
            "Iterable",
            f"{address} is asked too often just now (HTTP 429), so nothing is known of the key: "
            "check again in a minute",
        )
        return None
    problem = explain_problem(GET_FIELDS, answer, address)
    types = answer.body.get("fields") if isinstance(answer.body, dict) else None
    if problem is None and not isinstance(types, dict):
        problem = explain_refusal(answer.status, NO_API_RESPONSE, "")
    if problem is not None or not isinstance(types, dict):
        yield failed("Iterable", problem or "")
        return None
    place = DATA_CENTRES.get(address, "not one of Iterable's own two addresses")
    yield passed("Iterable", f"{address} ({place}) accepts the key; {len(types):,} profile fields")
    return {str(name): str(kind) for name, kind in types.items()}


def check_field_types(ours: FieldTypes, iterable_types: Mapping[str, str]) -> Iterator[CheckLine]:
    """Compare the types of the profile fields; a clash is a row that Iterable would reject."""
    name = "field types"
    clashing = new = 0
    for field, kinds in sorted(ours.items()):
        expected = iterable_types.get(field)
        if expected is None:
            new += 1
            if len(kinds) > 1 and not _can_share_a_field(kinds):
                described = " and as ".join(sorted(display_type(kind, "") for kind in kinds))
                yield warned(
                    name,
                    f"{field} is new to Iterable and is sent as {described}: the first value that "
                    "arrives decides which of them is accepted from then on",
                )
            continue
        for kind in sorted(kinds):
            if not fits(expected, kind):
                clashing += 1
                yield failed(
                    name,
                    f"{field} is {expected} in Iterable, and we send "
                    f"{display_type(kind, expected)}: every such row would be rejected. "
                    f"{advice(field, expected, kind)}",
                )
    if not clashing:
        described = f"the {len(ours):,} profile fields fit, {new:,} of them new to Iterable"
        yield passed(name, f"{described} (those of events cannot be asked for)")


def _can_share_a_field(kinds: frozenset[str]) -> bool:
    """Say whether values of these types fit one field, whichever comes first."""
    return all(fits(_field_made_by(first), kind) for first in kinds for kind in kinds)


def _field_made_by(kind: str) -> str:
    """Return the type of the field that a first value of this type makes."""
    return "string" if kind in ("date", "text") else "double" if kind == "decimal" else kind
