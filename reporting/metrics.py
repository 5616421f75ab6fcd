"""Prometheus metrics of the last run, written for node_exporter's textfile collector."""

from __future__ import annotations

import errno
import logging
import math
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path

from records.outcomes import Outcome
from reporting.atomic_file import replace_file
from reporting.summary import RunSummary

logger = logging.getLogger(__name__)

STATUSES = ("completed", "completed_with_failures", "interrupted", "aborted")
SUCCESS_METRIC = "iterable_sync_last_success_timestamp_seconds"
MAX_READ_BYTES = 100_000
_Labels = tuple[tuple[str, str], ...]
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def write_metrics(path: Path, summary: RunSummary) -> None:
    """Write the run's metrics as Prometheus text, with the label `sync` where the sync has a name.

    Mode 0644, because node_exporter runs as another user; the file contains only numbers and that
    name. A dry run does not change it. Never raises: a failure is a warning in the log.
    """
    if summary.dry_run:
        return
    try:
        if path.exists() and not path.is_file():  # as root, /dev/null would be replaced
            raise OSError(errno.EINVAL, "not a regular file")
        text = "".join(_exposition(summary, _previous_success(path, summary.sync)))
        with replace_file(path, 0o644) as file:
            file.write(text.encode())
    except Exception as error:  # noqa: BLE001 - metrics must not fail a run
        reason = getattr(error, "strerror", None) or type(error).__name__
        logger.warning("METRICS_FILE %s cannot be written: %s", path, reason)


def _exposition(summary: RunSummary, previous_success: float | None) -> Iterator[str]:
    gauge = partial(_gauge, sync=summary.sync)
    finished_at = datetime.fromisoformat(summary.finished_at).timestamp()
    # A run with rejected rows is a success: otherwise one bad row would keep an alert on, and
    # nobody would notice a run that really fails.
    is_complete = summary.status in ("completed", "completed_with_failures")
    success_at: float | None = finished_at
    if not is_complete:  # min(): a time from a clock that was ahead would hide failures for years
        success_at = None if previous_success is None else min(previous_success, finished_at)
    yield from gauge(
        "iterable_sync_last_run_start_timestamp_seconds",
        "Unix time when the last run started.",
        {(): datetime.fromisoformat(summary.started_at).timestamp()},
    )
    yield from gauge(
        "iterable_sync_last_run_end_timestamp_seconds",
        "Unix time when the last run ended.",
        {(): finished_at},
    )
    if success_at is not None:
        yield from gauge(
            SUCCESS_METRIC,
            "Unix time when a run last ended as completed or completed_with_failures.",
            {(): success_at},
        )
    yield from gauge(
        "iterable_sync_last_run_duration_seconds",
        "Duration of the last run.",
        {(): summary.duration_seconds},
    )
    yield from gauge(
        "iterable_sync_last_run_status",
        "1 for the status of the last run, 0 for the others.",
        {(("status", status),): int(status == summary.status) for status in STATUSES},
    )
    yield from gauge(
        "iterable_sync_last_run_users",
        "Users of the last run by outcome.",
        {(("outcome", outcome.value),): summary.counts[outcome] for outcome in Outcome},
    )
    yield from gauge(
        "iterable_sync_last_run_failures",
        "Failed users of the last run that were new or known, and those resolved by it.",
        {(("state", state),): count for state, count in summary.failures.items()},
    )
    yield from gauge(
        "iterable_sync_last_run_api_calls",
        "API calls of the last run, including retries.",
        {(): summary.api_calls},
    )
    yield from gauge(
        "iterable_sync_last_run_retries",
        "Retries of the last run.",
        {(): summary.retries},
    )


def _gauge(
    name: str, help_text: str, values: Mapping[_Labels, float], sync: str | None
) -> Iterator[str]:
    yield f"# HELP {name} {help_text}\n# TYPE {name} gauge\n"
    for labels, value in values.items():
        yield f"{name}{_labels_text(sync, labels)} {value!r}\n"


def _labels_text(sync: str | None, labels: _Labels = ()) -> str:
    """Write labels in braces, first the name of the sync; without any the text is empty."""
    named = ((("sync", sync),) if sync else ()) + labels
    pairs = (f'{name}="{value.translate(_ESCAPES)}"' for name, value in named)
    return f"{{{','.join(pairs)}}}" if named else ""


def _previous_success(path: Path, sync: str | None) -> float | None:
    """Return the time of the last success in the existing file, None if it has none.

    The file may be from before the sync had a name, but not of a sync with another name.
    """
    ours = (SUCCESS_METRIC, SUCCESS_METRIC + _labels_text(sync))
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file.read(MAX_READ_BYTES).splitlines():
                sample, _space, value = line.rpartition(" ")  # a label may have spaces
                if sample in ours:
                    at = float(value)
                    return at if math.isfinite(at) else None
    except (OSError, ValueError):
        pass
    return None
