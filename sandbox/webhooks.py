"""Webhooks of the sandbox: each event that is tracked is posted to a URL, as a journey would.

Iterable guarantees neither order nor exactly-once (support.iterable.com, article 208013936), so by
chance an event is posted twice, late, never, or without its id.
"""

from __future__ import annotations

import http.client
import random
import threading
import time
from dataclasses import dataclass
from heapq import heappop, heappush
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import orjson

from sandbox.users_and_events import Event

_TIMEOUT_SECONDS = 10.0
_MAX_ATTEMPTS = 5
_RETRY_SECONDS = 1.0


@dataclass(frozen=True)
class WebhookMix:
    """Shares (0 to 1) of the events that are posted in an unusual way; late ones after a while."""

    twice: float = 0.0
    late: float = 0.0
    never: float = 0.0
    without_id: float = 0.0
    late_seconds: float = 2.0


class WebhookSender:
    """Posts events in a thread of its own. `token` is sent behind `Bearer`.

    Raises ValueError for another address than http:// on this machine.
    """

    def __init__(
        self, url: str, token: str = "", mix: WebhookMix | None = None, *, seed: int = 1
    ) -> None:
        self._host, self._port, self._path = _to_place(url)
        self._headers = {"Content-Type": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._mix = mix or WebhookMix()
        # Repeatable randomness, not a secret.
        self._random = random.Random(seed)  # noqa: S311
        self._waiting: list[tuple[float, int, int, bytes]] = []  # due, number, attempts, body
        self._changed = threading.Condition()
        self._count = 0
        self._is_closed = False
        self.posted_count = 0  # answered with 200
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)
        self._thread.start()

    def __call__(self, event: Event) -> None:
        """Post an event soon, or as the mix has it."""
        chance = self._random.random
        if chance() < self._mix.never:
            return
        has_id = chance() >= self._mix.without_id
        delay_seconds = self._mix.late_seconds if chance() < self._mix.late else 0.0
        body = orjson.dumps(to_webhook(event, with_id=has_id))
        for _copy in range(1 + (chance() < self._mix.twice)):
            self._put(time.monotonic() + delay_seconds, 0, body)

    def close(self, patience_seconds: float = 30.0) -> None:
        """Post what waits, and end the thread."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join(patience_seconds)

    def _put(self, due_at: float, attempts: int, body: bytes) -> None:
        with self._changed:
            self._count += 1
            heappush(self._waiting, (due_at, self._count, attempts, body))
            self._changed.notify()

    def _run(self) -> None:
        connection: http.client.HTTPConnection | None = None
        while True:
            with self._changed:
                while not self._waiting and not self._is_closed:
                    self._changed.wait()
                if not self._waiting:
                    return
                wait_seconds = self._waiting[0][0] - time.monotonic()
                if wait_seconds > 0:
                    self._changed.wait(wait_seconds)
                    continue
                _due_at, _number, attempts, body = heappop(self._waiting)
            connection, is_posted = self._post(connection, body)
            if not is_posted and attempts + 1 < _MAX_ATTEMPTS:
                self._put(time.monotonic() + _RETRY_SECONDS, attempts + 1, body)

    def _post(
        self, connection: http.client.HTTPConnection | None, body: bytes
    ) -> tuple[http.client.HTTPConnection | None, bool]:
        try:
            connection = connection or http.client.HTTPConnection(
                self._host, self._port, timeout=_TIMEOUT_SECONDS
            )
            connection.request("POST", self._path, body, self._headers)
            response = connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException):
            if connection is not None:
                connection.close()
            return None, False
        self.posted_count += response.status == 200
        return connection, response.status == 200


def _to_place(url: str) -> tuple[str, int, str]:
    """Return host, port and path of a URL. Raises ValueError."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 80
        is_here = host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        is_here = False
    if not is_here or parts.scheme != "http":
        raise ValueError(
            f"webhooks are posted to this machine only, as to http://127.0.0.1:8080/, not to {url}"
        )
    return host, port, parts.path or "/"


def to_webhook(event: Event, *, with_id: bool = True) -> dict[str, Any]:
    """Return the body of a journey's webhook with all fields of the event that triggered it."""
    named = {"email": event.email} if event.user_id is None else {"userId": event.user_id}
    if isinstance(named.get("email"), str):
        named["email"] = str(named["email"]).lower()
    moment = time.strftime("%Y-%m-%d %H:%M:%S +00:00", time.gmtime(event.created_at))
    body = {**named, "eventName": event.event_name, "createdAt": moment, "workflowId": 9001}
    return {**event.data_fields, **body, **({"id": event.id} if with_id else {})}
