"""Iterable checks of `--check`: address, data centre, API key, types of the project's fields.

All of them come from one read-only request, `GET users/getFields` (rate limit: 3 a second).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import closing

from commands.check.field_types import FieldTypes, advice, fits, shown_type
from commands.check.line import CheckLine, failed, passed, warned
from config.settings import Settings
from iterable_api.http import IterableHTTP
from iterable_api.responses import ApiResponse

GET_FIELDS = "users/getFields"
DATA_CENTRES: Mapping[str, str] = {
    "https://api.iterable.com": "US data centre",
    "https://api.eu.iterable.com": "EU data centre",
}

_SERVER_SIDE_KEY = (
    "Create a key of type Server-side in Iterable (Integrations > API Keys) and set "
    "ITERABLE_API_KEY to it."
)


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
            f"{address} is rate limiting requests (HTTP 429), so the key is not checked: try "
            "again in a minute",
        )
        return None
    problem = explain_problem(response, address)
    types = response.body.get("fields") if isinstance(response.body, dict) else None
    if problem is None and not isinstance(types, dict):
        problem = _not_iterable(address, "its response is not one of the API")
    if problem is not None or not isinstance(types, dict):
        yield failed("Iterable", problem or "")
        return None
    place = DATA_CENTRES.get(address, "neither of Iterable's two addresses")
    yield passed("Iterable", f"{address} ({place}) accepts the key; {len(types):,} profile fields")
    return {str(name): str(kind) for name, kind in types.items()}


def explain_problem(response: ApiResponse, address: str) -> str | None:
    """Explain what a response to a GET says about address and key; None where both are right."""
    status = response.status
    if response.is_certificate_error:
        return (
            f"{address}: the server's certificate is not trusted, so the key is not sent. If your "
            "company's proxy is in between, set REQUESTS_CA_BUNDLE to its CA file."
        )
    if status is None:
        return (
            f"{address} cannot be reached ({response.trouble}): check the network of this machine, "
            "HTTPS_PROXY if it needs a proxy, and ITERABLE_API_BASE_URL."
        )
    if 300 <= status < 400:
        return _not_iterable(
            address, f"it redirects (HTTP {status}), and redirects are not followed"
        )
    if status in (401, 403):
        return _explain_refused_key(response, address)
    if status == 404:
        return _not_iterable(address, "it does not have the API (HTTP 404)")
    if status >= 500:
        return (
            f"{address} has a server error (HTTP {status}): try again later, and see "
            "status.iterable.com."
        )
    if not isinstance(response.body, dict):
        return _not_iterable(address, f"its response (HTTP {status}) is not one of the API")
    if status >= 400:
        return f"{address} rejects the request (HTTP {status} {response.code})."
    return None


def _not_iterable(address: str, why: str) -> str:
    known = " or ".join(DATA_CENTRES)
    return f"{address} is not Iterable's API: {why}. Set ITERABLE_API_BASE_URL to {known}."


def _explain_refused_key(response: ApiResponse, address: str) -> str:
    """Explain a 401 or 403. Source: Iterable's articles "API Keys" and "JWT-Enabled API Keys"."""
    reason = f"HTTP {response.status} {response.code or ''}".strip()
    code = (response.code or "").lower()
    if "jwt" in code or code == "badauthorizationheader" or "jwt" in response.message.lower():
        return (
            f"the key is JWT-enabled ({reason}): such keys are for apps and web pages whose "
            f"users log in. {_SERVER_SIDE_KEY}"
        )
    if response.status == 403 or code in ("forbidden", "unauthorized"):
        return (
            f"the key has no permission for this ({reason}): it is a client-side key, or its "
            f"permissions are limited. {_SERVER_SIDE_KEY}"
        )
    if not isinstance(response.body, dict):
        return _not_iterable(address, f"it returns an error page ({reason})")
    others = [f"{url} ({place})" for url, place in DATA_CENTRES.items() if url != address]
    return (
        f"{address} refuses the key ({reason}): it is mistyped, disabled, not of type Server-side, "
        f"or its project is in another data centre: set ITERABLE_API_BASE_URL to "
        f"{' or '.join(others)}."
    )


def check_field_types(
    sent_types: FieldTypes, iterable_types: Mapping[str, str]
) -> Iterator[CheckLine]:
    """Compare the types of the profile fields; Iterable would reject the rows that clash."""
    name = "field types"
    clashing = new = 0
    for field, kinds in sorted(sent_types.items()):
        expected = iterable_types.get(field)
        if expected is None:
            new += 1
            if len(kinds) > 1 and not _can_share_a_field(kinds):
                types = " and as ".join(sorted(shown_type(kind, "") for kind in kinds))
                yield warned(
                    name,
                    f"{field} is new to Iterable and is sent as {types}: the first value that "
                    "Iterable receives fixes the type, and it rejects the other",
                )
            continue
        for kind in sorted(kinds):
            if not fits(expected, kind):
                clashing += 1
                yield failed(
                    name,
                    f"{field} is {expected} in Iterable but sent as {shown_type(kind, expected)}: "
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
