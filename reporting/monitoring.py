"""What watches over the runs from outside: a health check that is pinged, metrics that are read.

Owns the pings (the convention of healthchecks.io: `URL/start`, `URL`, `URL/fail`) and the file
for node_exporter's textfile collector. Neither can break a run: trouble is a line in the log.
The address of a health check is a key to it, and stands in no line.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from records.outcomes import Outcome
from reporting.atomic_file import atomic_file, flush_to_disk
from reporting.results_file import RunSummary

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = (3.0, 5.0)  # to connect, and between two bytes of the answer
SETTLE_SECONDS = 20.0  # at the end of a run, for the pings under way
HURRIED_SETTLE_SECONDS = 1.0
RETRY_AFTER_SECONDS = 0.5
MAX_BODY_BYTES = 100_000  # healthchecks.io keeps that much
_THREAD_NAME = "health check"

STATUSES = ("completed", "completed_with_failures", "interrupted", "aborted")
SUCCESS_METRIC = "iterable_sync_last_success_timestamp_seconds"
MAX_FORMER_BYTES = 100_000


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


def write_metrics(path: Path, summary: RunSummary) -> None:
    """Write the run as Prometheus text for node_exporter's textfile collector, atomically.

    Anyone may read the file (mode 0644): node_exporter runs as a user of its own, and there are
    only numbers in it. A dry run leaves it as it is. Never raises.
    """
    if summary.dry_run:
        return
    # Not *.prom: node_exporter reads every file of that name.
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        if path.exists() and not path.is_file():  # /dev/null would be gone, for everybody
            raise OSError(errno.EINVAL, "it is no file")
        text = "".join(_exposition(summary, _former_success(path)))
        with atomic_file(part, 0o644) as file:
            file.write(text.encode())
            flush_to_disk(file)
            part.replace(path)
    except Exception as error:  # noqa: BLE001 - whatever it is, the run has ended well without
        reason = getattr(error, "strerror", None) or type(error).__name__
        logger.warning("METRICS_FILE %s cannot be written: %s", path, reason)


def _exposition(summary: RunSummary, former_success: float | None) -> Iterator[str]:
    finished_at = datetime.fromisoformat(summary.finished_at).timestamp()
    # A row that Iterable rejects is no broken run: it would hide the ones that are.
    came_to_its_end = summary.status in ("completed", "completed_with_failures")
    success_at: float | None = finished_at
    if not came_to_its_end:  # a former clock that was ahead must not hide failures for years
        success_at = None if former_success is None else min(former_success, finished_at)
    yield from _gauge(
        "iterable_sync_last_run_start_timestamp_seconds",
        "When the last run began, in unix time.",
        {"": datetime.fromisoformat(summary.started_at).timestamp()},
    )
    yield from _gauge(
        "iterable_sync_last_run_end_timestamp_seconds",
        "When the last run ended, in unix time.",
        {"": finished_at},
    )
    if success_at is not None:
        yield from _gauge(
            SUCCESS_METRIC,
            "When a run last came to its end (completed or completed_with_failures), in unix time.",
            {"": success_at},
        )
    yield from _gauge(
        "iterable_sync_last_run_duration_seconds",
        "How long the last run took.",
        {"": summary.duration_seconds},
    )
    yield from _gauge(
        "iterable_sync_last_run_status",
        "1 for the status that the last run ended with, 0 for the others.",
        {f'{{status="{status}"}}': int(status == summary.status) for status in STATUSES},
    )
    yield from _gauge(
        "iterable_sync_last_run_users",
        "Users of the last run, by what became of them.",
        {f'{{outcome="{name}"}}': count for name, count in _users(summary).items()},
    )
    yield from _gauge(
        "iterable_sync_last_run_api_calls",
        "API calls of the last run, retries included.",
        {"": summary.api_calls},
    )
    yield from _gauge(
        "iterable_sync_last_run_retries",
        "API calls of the last run that were retries.",
        {"": summary.retries},
    )


def _users(summary: RunSummary) -> dict[str, int]:
    return {
        Outcome.SUCCESSFUL.value: summary.successful,
        Outcome.PARTIAL_FAILURE.value: summary.partial_failures,
        Outcome.TOTAL_FAILURE.value: summary.total_failures,
        Outcome.UNCHANGED.value: summary.unchanged,
        Outcome.INVALID.value: summary.invalid,
        Outcome.DUPLICATE.value: summary.duplicates,
        Outcome.NOT_ATTEMPTED.value: summary.not_attempted,
    }


def _gauge(name: str, what: str, values: dict[str, float]) -> Iterator[str]:
    yield f"# HELP {name} {what}\n# TYPE {name} gauge\n"
    for labels, value in values.items():
        yield f"{name}{labels} {value!r}\n"


def _former_success(path: Path) -> float | None:
    """Return the time of the last success that the former file knew, None where it knew none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file.read(MAX_FORMER_BYTES).splitlines():
                name, _space, value = line.partition(" ")
                if name == SUCCESS_METRIC:
                    at = float(value)
                    return at if math.isfinite(at) else None
    except (OSError, ValueError):
        pass
    return None
