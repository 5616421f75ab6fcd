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
from iterable_api.http import IterableHTTP
from iterable_api.responses import ApiResponse

GET_FIELDS = "users/getFields"
DATA_CENTRES: Mapping[str, str] = {
    "https://api.iterable.com": "US data centre",
    "https://api.eu.iterable.com": "EU data centre",
}

_SERVER_SIDE_KEY = (
    "Make a key of type Server-side in Iterable (Integrations > API Keys) and put it into "
    "ITERABLE_API_KEY."
)


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
    trouble = explain_problem(answer, address)
    types = answer.body.get("fields") if isinstance(answer.body, dict) else None
    if trouble is None and not isinstance(types, dict):
        trouble = _not_iterable(address, "its answer is not that of the API")
    if trouble is not None or not isinstance(types, dict):
        yield failed("Iterable", trouble or "")
        return None
    place = DATA_CENTRES.get(address, "not one of Iterable's own two addresses")
    yield passed("Iterable", f"{address} ({place}) accepts the key; {len(types):,} profile fields")
    return {str(name): str(kind) for name, kind in types.items()}


def explain_problem(answer: ApiResponse, address: str) -> str | None:
    """Say what an answer to a harmless GET reveals about address and key; None for no trouble."""
    status = answer.status
    if answer.is_certificate_error:
        return (
            f"{address}: the server's certificate is not trusted, so no key is sent. Where a proxy "
            "of yours stands between, name its CA file in REQUESTS_CA_BUNDLE."
        )
    if status is None:
        return (
            f"{address} cannot be reached ({answer.trouble}): check the network of this machine, "
            "HTTPS_PROXY where it needs one, and ITERABLE_API_BASE_URL."
        )
    if 300 <= status < 400:
        return _not_iterable(address, f"it redirects (HTTP {status}), which is never followed")
    if status in (401, 403):
        return _key_trouble(answer, address)
    if status == 404:
        return _not_iterable(address, "it does not know the API (HTTP 404)")
    if status >= 500:
        return (
            f"{address} has trouble of its own (HTTP {status}): try again later; see "
            "status.iterable.com."
        )
    if not isinstance(answer.body, dict):
        return _not_iterable(address, f"its answer (HTTP {status}) is not that of the API")
    if status >= 400:
        return f"{address} does not take the question (HTTP {status} {answer.code})."
    return None


def _not_iterable(address: str, why: str) -> str:
    known = " or ".join(DATA_CENTRES)
    return f"{address} is not Iterable's API: {why}. Set ITERABLE_API_BASE_URL to {known}."


def _key_trouble(answer: ApiResponse, address: str) -> str:
    """Word a 401 or 403. Source: Iterable's articles "API Keys" and "JWT-Enabled API Keys"."""
    said = f"HTTP {answer.status} {answer.code or ''}".strip()
    code = (answer.code or "").lower()
    if "jwt" in code or code == "badauthorizationheader" or "jwt" in answer.message.lower():
        return (
            f"the key is JWT-enabled ({said}): such keys are for apps and web pages, which log "
            f"each person in. {_SERVER_SIDE_KEY}"
        )
    if answer.status == 403 or code in ("forbidden", "unauthorized"):
        return (
            f"the key may not do this ({said}): it is a client-side key, or its permissions are "
            f"limited. {_SERVER_SIDE_KEY}"
        )
    if not isinstance(answer.body, dict):
        return _not_iterable(address, f"it refuses with a page of its own ({said})")
    others = [f"{place}: {url}" for url, place in DATA_CENTRES.items() if url != address]
    return (
        f"{address} refuses the key ({said}): it is mistyped, disabled, not of type Server-side, "
        f"or of a project in another data centre ({', '.join(others)}: ITERABLE_API_BASE_URL)."
    )


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
