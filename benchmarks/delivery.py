"""How fast rows are delivered, one by one or in bulk, and what a user costs.

Owns the figures of these two modes and the limits that they are held against. The sustained
figure leaves out the first and the last tenth of the rows: start and tail.
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
_SUSTAINED_SECONDS = 5.0  # a shorter time says more of the start than of the pace
_OVER_LIMIT = 1.05  # in no one-second window more than 5 % over the limit


@dataclass(frozen=True)
class Mode:
    """What a mode can reach at most, and what it must."""

    ceiling_per_second: float  # users
    required_share: float
    cpu_ms_per_user: float
    limits: Mapping[str, str]  # endpoint -> the setting that is its limit


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
    """Deliver all rows of `source` once, with the default settings."""
    with TemporaryDirectory() as folder, sandbox(latency_ms) as api:
        settings = {**source.settings, "ITERABLE_API_BASE_URL": api.url}
        run = Program(Path(folder), settings).run("--mode", name)
        endpoints = api.endpoints()
    mode = MODES[name]
    _check_delivered(run, rows)
    lines = [
        *_speed(mode, rows, run),
        at_most(
            "CPU a user",
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
        lines = [_beside(line, loops) for line in lines]
    return Section(name, f"{rows:,} rows at {latency_ms:g} ms a call, {source.name}", lines)


def sustained_per_second(settled: Mapping[str, int]) -> float | None:
    """Return rows a second between the first and the last tenth, None for under five seconds.

    `settled` is when rows were settled, and how many then. Rows of a batch are settled at the
    same time: whole batches are counted, from the first moment to before the last.
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


def _beside(line: Line, loops: tuple[Loop, Loop]) -> Line:
    """Put what the baselines came to beside the program's figure."""
    if line.what == "users/s, sustained":
        plain, session = (f"{loop.users_per_second:,.2f}" for loop in loops)
    elif line.what == "CPU a user":
        plain, session = (f"{loop.cpu_seconds_per_user * 1_000:.3f} ms" for loop in loops)
    else:
        return line
    return replace(line, plain=plain, session=session)


def _check_delivered(run: ProgramRun, rows: int) -> None:
    if run.counts["successful"] != rows:
        raise BenchmarkError(f"{run.counts['successful']:,} of {rows:,} rows were delivered")
