"""What goes over the wire: an answer as it is, or spoilt the way a fault rule says.

Owns the bytes of every reply and how its connection ends. Refuses to know sockets and when a rule
fires.
"""

from __future__ import annotations

import enum
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from sandbox import answers
from sandbox.answers import Answer
from sandbox.faults import FaultRule

JSON = "application/json"
HTML = "text/html"
REDIRECT_TARGET = "/sandbox/redirected"

_SUCCESS = answers.error(200, "Success", "")
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


class Ending(enum.Enum):
    """How a reply ends; the value names it in the counts."""

    WHOLE = "whole"
    HALF = "half_body"
    DROP = "dropped"
    HANG = "hung"


@dataclass(frozen=True, slots=True)
class Reply:
    """What is sent, and how it ends; DROP and HANG send nothing."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = JSON
    ending: Ending = Ending.WHOLE


@dataclass(frozen=True, slots=True)
class _Spoiling:
    """A call about to be spoilt: the rule's parameters, and the answer it would have got."""

    wanted: Mapping[str, Any]
    answer: Answer
    request_text: Callable[[], str]
    rng: random.Random

    def status(self, default: int | None = None) -> int:
        status: int = self.wanted.get("status", self.answer.status if default is None else default)
        return status


def to_reply(answer: Answer) -> Reply:
    """Give the answer as it is."""
    return Reply(answer.status, orjson.dumps(answer.body), dict(answer.headers))


def spoil(
    rule: FaultRule,
    serve: Callable[[], Answer],
    request_text: Callable[[], str],
    rng: random.Random,
) -> Reply:
    """Give what the rule makes of a call; `serve` is called where the rule applies it first."""
    answer = serve() if rule.applies_first else _SUCCESS
    return _SPOILERS[rule.fault](_Spoiling(rule.parameters, answer, request_text, rng))


def _status(call: _Spoiling) -> Reply:
    status = call.wanted["status"]
    if status == "any":
        status = call.rng.choice((500, 502, 503, 504))
    code = call.wanted.get(
        "code", _CODES.get(status, "BadParams" if status < 500 else "GenericError")
    )
    message = call.wanted.get("msg", f"Status {status} by fault script")
    reply = to_reply(answers.error(status, code, message))
    if "retry_after" in call.wanted:
        reply.headers["Retry-After"] = _retry_after(call.wanted) or ""
    return reply


def _rate_limited(call: _Spoiling) -> Reply:
    return to_reply(
        answers.rate_limited(
            limit=500,
            remaining=0,
            reset_seconds=call.wanted.get("reset", 1),
            retry_after=_retry_after(call.wanted),
        )
    )


def _retry_after(wanted: Mapping[str, Any]) -> str | None:
    value = wanted.get("retry_after")
    return f"{value:g}" if isinstance(value, (int, float)) else value


def _malformed_json(call: _Spoiling) -> Reply:
    body = orjson.dumps(call.answer.body)
    return Reply(call.status(), body[: len(body) * 2 // 3])


def _html_body(call: _Spoiling) -> Reply:
    title = "Bad Gateway" if call.status() >= 500 else "Welcome"
    return Reply(call.status(), _PAGE.format(title=title).encode(), content_type=HTML)


def _half_body(call: _Spoiling) -> Reply:
    return replace(to_reply(call.answer), status=call.status(), ending=Ending.HALF)


def _redirect(call: _Spoiling) -> Reply:
    location = call.wanted.get("location", REDIRECT_TARGET)
    return Reply(call.status(302), headers={"Location": location}, content_type=HTML)


def _miscount(call: _Spoiling) -> Reply:
    body = call.answer.body
    if "successCount" not in body:  # refused whole: there is nothing to count wrongly
        return to_reply(call.answer)
    counted = body["successCount"] + call.wanted.get("by", -1)
    return to_reply(replace(call.answer, body={**body, "successCount": counted}))


def _error_code_on_200(call: _Spoiling) -> Reply:
    message = call.wanted.get("msg", "An error occurred")
    return to_reply(answers.error(200, call.wanted.get("code", "GenericError"), message))


def _echo_request(call: _Spoiling) -> Reply:
    message = f"Could not process the request {call.request_text()}"
    return to_reply(answers.error(call.status(400), "GenericError", message))


def _huge_body(call: _Spoiling) -> Reply:
    # Valid JSON all the same: only its size is wrong.
    padding = "x" * call.wanted.get("bytes", 5_000_000)
    return Reply(call.status(), orjson.dumps({**call.answer.body, "padding": padding}))


_SPOILERS: dict[str, Callable[[_Spoiling], Reply]] = {
    "status": _status,
    "rate_limited": _rate_limited,
    "malformed_json": _malformed_json,
    "html_body": _html_body,
    "half_body": _half_body,
    "empty_body": lambda call: Reply(call.status()),
    "hang": lambda _: Reply(0, ending=Ending.HANG),
    "drop_before": lambda _: Reply(0, ending=Ending.DROP),
    "drop_after": lambda _: Reply(0, ending=Ending.DROP),
    "redirect": _redirect,
    "miscount": _miscount,
    "success_code_on_error": lambda call: Reply(call.status(500), orjson.dumps(_SUCCESS.body)),
    "error_code_on_200": _error_code_on_200,
    "echo_request": _echo_request,
    "huge_body": _huge_body,
}
