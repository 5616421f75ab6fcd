"""Health check pings in the convention of healthchecks.io: `URL/start`, `URL`, `URL/fail`.

A failed ping is a warning in the log and never affects the run. The address works like a key, so
it is not logged.
"""

from __future__ import annotations

import logging
import threading
import time
from urllib.parse import urlsplit, urlunsplit

from config.version import USER_AGENT

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = (3.0, 5.0)  # to connect, and between two bytes of the response
FINISH_SECONDS = 20.0  # how long the end of a run waits for its pings
INTERRUPTED_FINISH_SECONDS = 1.0
RETRY_AFTER_SECONDS = 0.5
MAX_BODY_BYTES = 100_000  # healthchecks.io stores no more
_THREAD_NAME = "health check"


class Healthcheck:
    """Pings of one run; with an empty `url` it sends nothing.

    Their bodies begin with `sync`, the name of the sync, if it has one.

    `started` returns at once; `succeeded` and `failed` wait for the response, 20 seconds at most.
    """

    def __init__(
        self,
        url: str,
        *,
        sync: str = "",
        timeout_seconds: tuple[float, float] = TIMEOUT_SECONDS,
        finish_seconds: float = FINISH_SECONDS,
        retry_after_seconds: float = RETRY_AFTER_SECONDS,
    ) -> None:
        self._url = url
        self._sync = sync
        self._timeout_seconds = timeout_seconds
        self._finish_seconds = finish_seconds
        self._retry_after_seconds = retry_after_seconds
        self._latest: threading.Thread | None = None

    def started(self) -> None:
        """Ping `/start`, so that the service notices a run that never ends."""
        self._send_in_thread("start", "", attempts=1)

    def succeeded(self, body: str) -> None:
        """Report success; the service stores `body` with the ping."""
        self._send_in_thread("", body, attempts=2)
        self._wait(self._finish_seconds)

    def failed(self, body: str, *, is_hurried: bool = False) -> None:
        """Report a failure. `is_hurried`: after a stop signal, wait for one second only."""
        self._send_in_thread("fail", body, attempts=2)
        self._wait(INTERRUPTED_FINISH_SECONDS if is_hurried else self._finish_seconds)

    def _send_in_thread(self, signal: str, body: str, *, attempts: int) -> None:
        """Ping after the previous ping; in a thread, because a response may never end."""
        if not self._url:
            return
        text = f"{self._sync}\n{body}" if self._sync else body
        content = text.encode("utf-8", "replace")[:MAX_BODY_BYTES]
        self._latest = threading.Thread(
            target=self._send,
            args=(self._latest, signal, content, attempts),
            name=_THREAD_NAME,
            daemon=True,
        )
        self._latest.start()

    def _wait(self, seconds: float) -> None:
        if self._latest is None:
            return
        self._latest.join(seconds)
        if self._latest.is_alive():
            logger.warning("The health check service did not respond in time")

    def _send(
        self, previous: threading.Thread | None, signal: str, content: bytes, attempts: int
    ) -> None:
        if previous is not None:
            previous.join()
        problem: str | None = None
        for attempt in range(attempts):
            if attempt:
                time.sleep(self._retry_after_seconds)
            problem, is_transient = self._post(signal, content)
            if not is_transient:
                break
        if problem:
            event = {"": "success", "fail": "failure"}.get(signal, signal)
            logger.warning("The %s was not reported to the health check: %s", event, problem)

    def _post(self, signal: str, content: bytes) -> tuple[str | None, bool]:
        """Ping once; return the problem, without the address, and whether to retry."""
        import requests  # takes 60 ms to import

        _silence_urllib3()
        try:
            with requests.post(
                _url_with_signal(self._url, signal),
                data=content,
                headers={
                    "Content-Type": "text/plain; charset=utf-8",
                    "User-Agent": USER_AGENT,
                },
                timeout=self._timeout_seconds,
                allow_redirects=False,
                stream=True,
            ) as response:
                status = response.status_code
                # "OK", or "OK (not found)" for a check that does not exist.
                text = response.raw.read(100).decode("utf-8", "replace").lower()
        except Exception as error:  # noqa: BLE001 - a ping must not fail a run
            is_bad_url = isinstance(error, ValueError)
            return type(error).__name__, not is_bad_url
        if status >= 300:
            return f"HTTP status {status}", status >= 500 or status in (408, 429)
        return ("the check does not exist" if "not found" in text else None), False


def _url_with_signal(url: str, signal: str) -> str:
    parts = urlsplit(url)
    path = f"{parts.path.rstrip('/')}/{signal}" if signal else parts.path
    return urlunsplit(parts._replace(path=path))


class _OtherThreadsOnly(logging.Filter):
    """Drops log records of the pinging thread."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.threadName != _THREAD_NAME


_other_threads_only = _OtherThreadsOnly()


def _silence_urllib3() -> None:
    """Drop urllib3's records of pings: debug lines and some warnings contain the address."""
    for name in ("connection", "connectionpool", "poolmanager", "response", "util.retry"):
        logging.getLogger(f"urllib3.{name}").addFilter(_other_threads_only)
