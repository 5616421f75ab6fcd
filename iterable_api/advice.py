"""Advice for the operator: why Iterable refuses the API key, or why the base URL does not work.

Used by the run, `--check` and `--verify`. Sources: Iterable's articles "API Keys" and
"JWT-Enabled API Keys".
"""

from __future__ import annotations

from collections.abc import Mapping

from iterable_api.responses import NO_API_RESPONSE, ApiResponse, verdict_of
from records.outcomes import Verdict

DATA_CENTRES: Mapping[str, str] = {
    "https://api.iterable.com": "US data centre",
    "https://api.eu.iterable.com": "EU data centre",
}
_CREATE_A_KEY = (
    "Create a key of type Server-side in Iterable (Integrations > API Keys) and set "
    "ITERABLE_API_KEY to it."
)


def explain_refusal(
    status: int | None, code: str | None, message: str, *, api_has_answered: bool = False
) -> str:
    """Explain a verdict `refused` and say what to do.

    The arguments are fields of `CallResult`. A status of None means that there was no connection:
    the server's certificate was not accepted, or the proxy cannot be used. `api_has_answered` means
    that the address was right for other requests.
    """
    if status is None and "proxy" in message:
        return (
            f"{message}, so nothing was sent: correct HTTPS_PROXY, or unset it if this machine "
            "needs no proxy."
        )
    if status is None:
        return (
            f"{message}, so the API key was not sent: check ITERABLE_API_BASE_URL. If your network "
            "has a proxy that reads TLS traffic, set REQUESTS_CA_BUNDLE to its CA file."
        )
    if api_has_answered and 300 <= status < 400:
        return (
            f"A proxy or firewall between this machine and Iterable redirected a request (HTTP "
            f"{status}), although others were answered: have it let requests to Iterable's API "
            "through."
        )
    if code == NO_API_RESPONSE and 400 <= status < 500 and status not in (401, 404):
        return (
            f"A proxy or firewall between this machine and Iterable blocks the requests (HTTP "
            f"{status} without Iterable's JSON), so the API key was not checked: have it let "
            "requests to Iterable's API through, and check HTTPS_PROXY and ITERABLE_API_BASE_URL."
        )
    if status not in (401, 403) or code == NO_API_RESPONSE:
        return (
            f"ITERABLE_API_BASE_URL does not lead to Iterable's API (HTTP {status}): set it to "
            f"{' or '.join(DATA_CENTRES)}."
        )
    refused = f"Iterable refused the API key (HTTP {status}{f' {code}' if code else ''})"
    lower_code = (code or "").lower()
    if "jwt" in lower_code or lower_code == "badauthorizationheader" or "jwt" in message.lower():
        return f"{refused}: the key is JWT-enabled, which is for apps and websites. {_CREATE_A_KEY}"
    if status == 403 or lower_code in ("forbidden", "unauthorized"):
        return (
            f"{refused}: it is a client-side key, or its permissions are limited. {_CREATE_A_KEY}"
        )
    centres = ", ".join(f"{name}: {url}" for url, name in DATA_CENTRES.items())
    return (
        f"{refused}: it is mistyped, disabled, not of type Server-side, or belongs to a project "
        f"in another data centre. Check ITERABLE_API_KEY and ITERABLE_API_BASE_URL ({centres})."
    )


def explain_problem(endpoint: str, response: ApiResponse, address: str) -> str | None:
    """Explain what a response to a GET shows to be wrong; None if address and key work."""
    status = response.status
    if status == 403 and response.is_blocked:
        return explain_refusal(status, NO_API_RESPONSE, "")
    if verdict_of(endpoint, response) is Verdict.REFUSED:
        return explain_refusal(status, response.code, response.message)
    if status is None:
        return (
            f"{address} cannot be reached ({response.problem}): check this machine's network, "
            "HTTPS_PROXY if it needs a proxy, and ITERABLE_API_BASE_URL."
        )
    if status >= 500:
        return (
            f"{address} has a server error (HTTP {status}): see status.iterable.com and try again "
            "later."
        )
    if not isinstance(response.body, dict):
        return explain_refusal(status, NO_API_RESPONSE, "")
    if status >= 400:
        return f"{address} rejected the request (HTTP {status} {response.code})."
    return None
