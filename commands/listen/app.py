"""The WSGI application that receives webhooks: token, method, size, JSON, then the disk.

What it answers: 200 once a webhook is on the disk; 401 without the token, 405 for another method
than POST, 413 for more than 256 kB, 400 for what is not a JSON object, 503 while nothing can be
written. Iterable repeats a call that gets another status than 200.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

from config.fields import DEFAULT_EVENT_NAME
from records.webhooks import Webhook, read_webhook

MAX_BODY_BYTES = 256 * 1024
_RETRY_AFTER_SECONDS = "60"

StartResponse = Callable[[str, list[tuple[str, str]]], Any]


class WebhookApp:
    """Checks each call and hands its webhook to `record`, which returns whether it is stored."""

    def __init__(
        self,
        token: str,
        record: Callable[[Webhook], bool],
        event_name: str = DEFAULT_EVENT_NAME,
    ) -> None:
        self._event_name = event_name
        self._token = token.encode()
        self._record = record

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        status, *headers = self._answer(environ)
        text = f"{status}\n".encode()
        start_response(
            status,
            [("Content-Type", "text/plain"), ("Content-Length", str(len(text))), *headers],
        )
        return [text]

    def _answer(self, environ: dict[str, Any]) -> tuple[Any, ...]:
        if not self._has_token(environ):
            return ("401 Unauthorized", ("WWW-Authenticate", "Bearer"))
        if environ["REQUEST_METHOD"] != "POST":
            return ("405 Method Not Allowed", ("Allow", "POST"))
        body = environ["wsgi.input"].read(MAX_BODY_BYTES + 1)
        if len(body) > MAX_BODY_BYTES:
            return ("413 Content Too Large",)
        try:
            webhook = read_webhook(body, self._event_name)
        except (ValueError, RecursionError):
            return ("400 Bad Request",)
        if not self._record(webhook):
            return ("503 Service Unavailable", ("Retry-After", _RETRY_AFTER_SECONDS))
        return ("200 OK",)

    def _has_token(self, environ: dict[str, Any]) -> bool:
        """Compare every place where the token may be, in a time that does not depend on it."""
        found = False
        for candidate in _candidates(environ):
            found |= hmac.compare_digest(candidate, self._token)
        return found


def _candidates(environ: dict[str, Any]) -> Iterator[bytes]:
    """Yield what may be the token: the header with and without a scheme, the end of the path.

    Iterable sends a token bare or behind its type (`Basic`, `OAuth2`); a journey's webhook sends
    HTTP Basic, whose password it then is.
    """
    header = environ.get("HTTP_AUTHORIZATION", "").strip()
    _scheme, _blank, rest = header.partition(" ")
    yield header.encode("latin-1", "replace")
    yield rest.strip().encode("latin-1", "replace")
    with suppress(binascii.Error, ValueError):
        yield base64.b64decode(rest.strip(), validate=True).rpartition(b":")[2]
    yield environ.get("PATH_INFO", "").rpartition("/")[2].encode("latin-1", "replace")
