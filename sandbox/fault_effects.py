"""Effects of fault rules: the response that a call gets when a rule fires."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from sandbox import responses
from sandbox.faults import FaultRule
from sandbox.responses import ApiResponse
from sandbox.wire_response import Ending, WireResponse, to_wire

HTML = "text/html"
REDIRECT_TARGET = "/sandbox/redirected"

_SUCCESS = responses.error(200, "Success", "")
_CODES = {
    200: "Success",
    401: "BadApiKey",
    403: "Forbidden",
    404: "NotFound",
    409: "ForgottenUserError",
    413: "BatchTooLarge",
    429: "RateLimitExceeded",
}
_PAGE = (
    "<html>\r\n<head><title>{title}</title></head>\r\n"
    "<body><center><h1>{title}</h1></center><hr><center>nginx</center></body>\r\n</html>\r\n"
)


@dataclass(frozen=True, slots=True)
class _FaultyCall:
    """A call that a rule fires for: the rule's parameters, and the response without the fault."""

    parameters: Mapping[str, Any]
    normal: ApiResponse
    request_text: Callable[[], str]
    rng: random.Random

    def status(self, default: int | None = None) -> int:
        status: int = self.parameters.get(
            "status", self.normal.status if default is None else default
        )
        return status


def apply_fault(
    rule: FaultRule,
    serve: Callable[[], ApiResponse],
    request_text: Callable[[], str],
    rng: random.Random,
) -> WireResponse:
    """Return the response that the rule gives a call; `serve` runs if the rule applies it first."""
    normal = serve() if rule.applies_first else _SUCCESS
    return _EFFECTS[rule.fault](_FaultyCall(rule.parameters, normal, request_text, rng))


def _status(call: _FaultyCall) -> WireResponse:
    status = call.parameters["status"]
    if status == "any":
        status = call.rng.choice((500, 502, 503, 504))
    code = call.parameters.get(
        "code", _CODES.get(status, "BadParams" if status < 500 else "GenericError")
    )
    message = call.parameters.get("msg", f"Status {status} by fault script")
    response = to_wire(responses.error(status, code, message))
    if "retry_after" in call.parameters:
        response.headers["Retry-After"] = _retry_after(call.parameters) or ""
    return response


def _rate_limited(call: _FaultyCall) -> WireResponse:
    return to_wire(
        responses.rate_limited(
            limit=500,
            remaining=0,
            reset_seconds=call.parameters.get("reset", 1),
            retry_after=_retry_after(call.parameters),
        )
    )


def _retry_after(parameters: Mapping[str, Any]) -> str | None:
    value = parameters.get("retry_after")
    return f"{value:g}" if isinstance(value, (int, float)) else value


def _malformed_json(call: _FaultyCall) -> WireResponse:
    body = orjson.dumps(call.normal.body)
    return WireResponse(call.status(), body[: len(body) * 2 // 3])


def _html_body(call: _FaultyCall) -> WireResponse:
    title = "Bad Gateway" if call.status() >= 500 else "Welcome"
    return WireResponse(call.status(), _PAGE.format(title=title).encode(), content_type=HTML)


def _half_body(call: _FaultyCall) -> WireResponse:
    return replace(to_wire(call.normal), status=call.status(), ending=Ending.HALF)


def _redirect(call: _FaultyCall) -> WireResponse:
    location = call.parameters.get("location", REDIRECT_TARGET)
    return WireResponse(call.status(302), headers={"Location": location}, content_type=HTML)


def _miscount(call: _FaultyCall) -> WireResponse:
    body = call.normal.body
    if "successCount" not in body:  # the batch was rejected: there is no count to falsify
        return to_wire(call.normal)
    counted = body["successCount"] + call.parameters.get("by", -1)
    return to_wire(replace(call.normal, body={**body, "successCount": counted}))


def _error_code_on_200(call: _FaultyCall) -> WireResponse:
    message = call.parameters.get("msg", "An error occurred")
    return to_wire(responses.error(200, call.parameters.get("code", "GenericError"), message))


def _echo_request(call: _FaultyCall) -> WireResponse:
    message = f"Could not process the request {call.request_text()}"
    return to_wire(responses.error(call.status(400), "GenericError", message))


def _huge_body(call: _FaultyCall) -> WireResponse:
    # Still valid JSON: only its size is wrong.
    padding = "x" * call.parameters.get("bytes", 5_000_000)
    return WireResponse(call.status(), orjson.dumps({**call.normal.body, "padding": padding}))


def _early_hints(call: _FaultyCall) -> WireResponse:
    return replace(to_wire(call.normal), interim_count=call.parameters.get("count", 1))


def _compressed(call: _FaultyCall) -> WireResponse:
    response = to_wire(call.normal)
    headers = {**response.headers, "Content-Encoding": "gzip"}
    return replace(response, body=gzip.compress(response.body), headers=headers)


_EFFECTS: dict[str, Callable[[_FaultyCall], WireResponse]] = {
    "status": _status,
    "rate_limited": _rate_limited,
    "malformed_json": _malformed_json,
    "html_body": _html_body,
    "half_body": _half_body,
    "empty_body": lambda call: WireResponse(call.status()),
    "hang": lambda _: WireResponse(0, ending=Ending.HANG),
    "drop_before": lambda _: WireResponse(0, ending=Ending.DROP),
    "drop_after": lambda _: WireResponse(0, ending=Ending.DROP),
    "redirect": _redirect,
    "miscount": _miscount,
    "success_code_on_error": lambda call: WireResponse(
        call.status(500), orjson.dumps(_SUCCESS.body)
    ),
    "error_code_on_200": _error_code_on_200,
    "echo_request": _echo_request,
    "huge_body": _huge_body,
    "early_hints": _early_hints,
    "compressed": _compressed,
}
