"""Delivery speed in per-user or bulk mode, and the CPU time per user.

The sustained figure excludes the first and the last tenth of the rows (start and tail).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.baselines import Loop
from benchmarks.figures import Line, Section, at_least, at_most
from benchmarks.processes import BenchmarkError, Program, ProgramRun, sandbox
from benchmarks.sources import Source
from config.settings import DEFAULTS

MEGABYTE = 1_000_000
PEAK_MEGABYTES = 150
_SUSTAINED_SECONDS = 5.0  # in less time, the start of the run dominates
_OVER_LIMIT = 1.05  # tolerated in any one-second window: 5 % above the limit


@dataclass(frozen=True)
class Mode:
    """Highest possible speed of a mode, and the required figures."""

    ceiling_per_second: float  # users
    required_share: float
    cpu_ms_per_user: float
    limits: Mapping[str, str]  # endpoint -> setting with its rate limit


MODES = {
    "per-user": Mode(
        float(DEFAULTS["USERS_UPDATE_RPS"]),
        0.95,
        2.0,
        {"users/update": "USERS_UPDATE_RPS", "events/track": "EVENTS_TRACK_RPS"},
    ),
    "bulk": Mode(
        float(DEFAULTS["BULK_UPDATE_RPS"]) * float(DEFAULTS["BULK_BATCH_SIZE"]),
        0.95,
        0.12,
        {"users/bulkUpdate": "BULK_UPDATE_RPS", "events/trackBulk": "TRACK_BULK_RPS"},
    ),
}


def measure_delivery(
    name: str, rows: int, latency_ms: float, source: Source, loops: tuple[Loop, Loop] | None
) -> Section:
    """Deliver all rows of `source` once with the default settings, and return the figures."""
    with TemporaryDirectory() as folder, sandbox(latency_ms) as api:
        settings = {**source.settings, "ITERABLE_API_BASE_URL": api.url}
        run = Program(Path(folder), settings).run("--mode", name)
        endpoints = api.endpoints()
    mode = MODES[name]
    _check_delivered(run, rows)
    lines = [
        *_speed(mode, rows, run),
        at_most(
            "CPU per user",
            run.process.cpu_seconds / rows * 1_000,
            mode.cpu_ms_per_user,
            " ms",
            digits=3,
        ),
        at_most("peak memory", run.process.peak_bytes / MEGABYTE, PEAK_MEGABYTES, " MB"),
        *(
            _busiest(endpoint, endpoints[endpoint], float(DEFAULTS[setting]))
            for endpoint, setting in mode.limits.items()
        ),
        Line("calls", f"{run.counts['api_calls']:,}"),
        Line("wall time", f"{run.process.wall_seconds:.1f} s"),
    ]
    if loops is not None:
        lines = [_with_baselines(line, loops) for line in lines]
    return Section(name, f"{rows:,} rows at {latency_ms:g} ms per call, {source.name}", lines)


def sustained_per_second(settled: Mapping[str, int]) -> float | None:
    """Return rows per second between the first and the last tenth; None if under five seconds.

    `settled` maps a time (ISO 8601) to the rows settled then. The rows of a batch are settled
    together, so whole batches are counted: including the first time, excluding the last.
    """
    total = sum(settled.values())
    before, first, last = 0, None, None
    for moment, rows in sorted(settled.items()):
        if first is None and before >= 0.1 * total:
            first = (moment, before)
        if before <= 0.9 * total:
            last = (moment, before)
        before += rows
    if first is None or last is None:
        return None
    span = datetime.fromisoformat(last[0]) - datetime.fromisoformat(first[0])
    seconds = span.total_seconds()
    return (last[1] - first[1]) / seconds if seconds >= _SUSTAINED_SECONDS else None


def _speed(mode: Mode, rows: int, run: ProgramRun) -> list[Line]:
    required = mode.ceiling_per_second * mode.required_share
    whole = Line("users/s, whole run", f"{rows / run.process.wall_seconds:,.1f}")
    sustained = sustained_per_second(run.settled)
    if sustained is None:
        return [Line("users/s, sustained", "too few rows"), whole]
    share = sustained / mode.ceiling_per_second
    return [
        at_least("users/s, sustained", sustained, required),
        Line(f"share of the ceiling, {mode.ceiling_per_second:,.0f} users/s", f"{share:.1%}"),
        whole,
    ]


def _busiest(endpoint: str, traffic: Mapping[str, Any], limit: float) -> Line:
    busiest = traffic["max_in_one_second"]
    return Line(
        f"requests in the busiest second, {endpoint}",
        f"{busiest:,}",
        f"<= {limit:,.0f} + 5 %",
        busiest <= limit * _OVER_LIMIT,
    )


def _with_baselines(line: Line, loops: tuple[Loop, Loop]) -> Line:
    """Add the figures of the baselines to a line that has them."""
    if line.what == "users/s, sustained":
        plain, session = (f"{loop.users_per_second:,.2f}" for loop in loops)
    elif line.what == "CPU per user":
        plain, session = (f"{loop.cpu_seconds_per_user * 1_000:.3f} ms" for loop in loops)
    else:
        return line
    return replace(line, plain=plain, session=session)


def _check_delivered(run: ProgramRun, rows: int) -> None:
    if run.counts["successful"] != rows:
        raise BenchmarkError(f"only {run.counts['successful']:,} of {rows:,} rows were delivered")
