"""Prometheus metrics of the last run, a file for node_exporter's textfile collector."""

from __future__ import annotations

import errno
import logging
import math
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from records.outcomes import Outcome
from reporting.atomic_file import replace_file
from reporting.summary import RunSummary

logger = logging.getLogger(__name__)

STATUSES = ("completed", "completed_with_failures", "interrupted", "aborted")
SUCCESS_METRIC = "iterable_sync_last_success_timestamp_seconds"
MAX_FORMER_BYTES = 100_000


def write_metrics(path: Path, summary: RunSummary) -> None:
    """Write the run as Prometheus text for node_exporter's textfile collector, atomically.

    Anyone may read the file (mode 0644): node_exporter runs as a user of its own, and there are
    only numbers in it. A dry run leaves it as it is. Never raises.
    """
    if summary.dry_run:
        return
    try:
        if path.exists() and not path.is_file():  # /dev/null would be gone, for everybody
            raise OSError(errno.EINVAL, "it is no file")
        text = "".join(_exposition(summary, _former_success(path)))
        with replace_file(path, 0o644) as file:
            file.write(text.encode())
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
        {f'{{outcome="{outcome.value}"}}': summary.counts[outcome] for outcome in Outcome},
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
