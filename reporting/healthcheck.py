"""What watches over the runs from outside: a health check that is pinged, metrics that are read.

Owns the pings (the convention of healthchecks.io: `URL/start`, `URL`, `URL/fail`) and the file
for node_exporter's textfile collector. Neither can break a run: trouble is a line in the log.
The address of a health check is a key to it, and stands in no line.
"""

from __future__ import annotations

import logging
import threading
import time
from urllib.parse import urlsplit, urlunsplit

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = (3.0, 5.0)  # to connect, and between two bytes of the answer
SETTLE_SECONDS = 20.0  # at the end of a run, for the pings under way
HURRIED_SETTLE_SECONDS = 1.0
RETRY_AFTER_SECONDS = 0.5
MAX_BODY_BYTES = 100_000  # healthchecks.io keeps that much
_THREAD_NAME = "health check"


class Healthcheck:
    """Tells one check how a run goes; with an empty `url` it does nothing.

    `started` does not wait for an answer; the two others do, for 20 seconds at most.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_seconds: tuple[float, float] = TIMEOUT_SECONDS,
        settle_seconds: float = SETTLE_SECONDS,
        retry_after_seconds: float = RETRY_AFTER_SECONDS,
    ) -> None:
        self._url = url
        self._timeout_seconds = timeout_seconds
        self._settle_seconds = settle_seconds
        self._retry_after_seconds = retry_after_seconds
        self._latest: threading.Thread | None = None

    def started(self) -> None:
        """Say that a run began: from now on its silence is noticed."""
        self._begin("start", "", attempts=1)

    def succeeded(self, body: str) -> None:
        """Say that the run came to its end; `body` is kept with the ping."""
        self._begin("", body, attempts=2)
        self._settle(self._settle_seconds)

    def failed(self, body: str, *, is_hurried: bool = False) -> None:
        """Say that the run broke off; `is_hurried` after a stop signal, which has seconds."""
        self._begin("fail", body, attempts=2)
        self._settle(HURRIED_SETTLE_SECONDS if is_hurried else self._settle_seconds)

    def _begin(self, signal: str, body: str, *, attempts: int) -> None:
        """Ping in a thread, after the former ping: an answer that never ends holds nothing up."""
        if not self._url:
            return
        former = self._latest
        content = body.encode("utf-8", "replace")[:MAX_BODY_BYTES]
        self._latest = threading.Thread(
            target=self._ping,
            args=(former, signal, content, attempts),
            name=_THREAD_NAME,
            daemon=True,
        )
        self._latest.start()

    def _settle(self, seconds: float) -> None:
        if self._latest is None:
            return
        self._latest.join(seconds)
        if self._latest.is_alive():
            logger.warning("The health check does not answer")

    def _ping(
        self, former: threading.Thread | None, signal: str, content: bytes, attempts: int
    ) -> None:
        if former is not None:
            former.join()
        trouble: str | None = None
        for attempt in range(attempts):
            if attempt:
                time.sleep(self._retry_after_seconds)
            trouble, may_pass = self._post(signal, content)
            if not may_pass:
                break
        if trouble:
            what = {"": "success", "fail": "failure"}.get(signal, signal)
            logger.warning("The health check could not be told of the %s: %s", what, trouble)

    def _post(self, signal: str, content: bytes) -> tuple[str | None, bool]:
        """Ping once; return what was wrong, without the address, and whether it may pass."""
        import requests  # 60 ms that a run without a health check need not spend twice

        _keep_quiet()
        try:
            with requests.post(
                _with_path(self._url, signal),
                data=content,
                headers={"Content-Type": "text/plain; charset=utf-8"},
                timeout=self._timeout_seconds,
                allow_redirects=False,
                stream=True,
            ) as response:
                status = response.status_code
                # "OK", or "OK (not found)" where the check does not exist (any more).
                said = response.raw.read(100).decode("utf-8", "replace").lower()
        except Exception as error:  # noqa: BLE001 - whatever it is, the run goes on
            is_bad_address = isinstance(error, ValueError)
            return type(error).__name__, not is_bad_address
        if status >= 300:
            return f"it answered HTTP {status}", status >= 500 or status in (408, 429)
        return ("it does not exist" if "not found" in said else None), False


def _with_path(url: str, signal: str) -> str:
    parts = urlsplit(url)
    path = f"{parts.path.rstrip('/')}/{signal}" if signal else parts.path
    return urlunsplit(parts._replace(path=path))


class _NotOurs(logging.Filter):
    """Keeps back what is logged while a health check is pinged."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.threadName != _THREAD_NAME


_not_ours = _NotOurs()


def _keep_quiet() -> None:
    """Have urllib3, whose debug lines and some of whose warnings hold the address, keep it."""
    for name in ("connection", "connectionpool", "poolmanager", "response", "util.retry"):
        logging.getLogger(f"urllib3.{name}").addFilter(_not_ours)
