"""Iterable checks of `--check`: address, data centre, API key.

They need one read-only request, `GET users/getFields` (rate limit: 3 a second).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import closing

from commands.check.line import CheckLine, failed, passed, warned
from config.settings import Settings
from iterable_api.advice import DATA_CENTRES, explain_problem, explain_refusal
from iterable_api.http import IterableHTTP
from iterable_api.responses import NO_API_RESPONSE, USERS_GET_FIELDS
from sync.field_types import fields_in


def check_iterable(
    settings: Settings,
) -> Generator[CheckLine, None, Mapping[str, str] | None]:
    """Yield the line; return the types of the project's fields, None where they are unknown."""
    address = settings.iterable_api_base_url
    with closing(IterableHTTP(settings.iterable_api_key, address, connections=1)) as http:
        response = http.get(USERS_GET_FIELDS)
    if response.status == 429:
        yield warned(
            "Iterable",
            f"{address} is rate limiting requests (HTTP 429), so the key was not checked: try "
            "again in a minute",
        )
        return None
    problem = explain_problem(USERS_GET_FIELDS, response, address)
    types = fields_in(response)
    if problem is None and types is None:
        problem = explain_refusal(response.status, NO_API_RESPONSE, "")
    if problem is not None or types is None:
        yield failed("Iterable", problem or "")
        return None
    place = DATA_CENTRES.get(address, "neither of Iterable's two addresses")
    yield passed("Iterable", f"{address} ({place}) accepts the key; {len(types):,} profile fields")
    return types
