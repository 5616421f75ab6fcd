"""Delivery in per-user or bulk mode: speed, 429 responses, CPU time and memory.

The sandbox enforces the default rate limits in every sliding second. The sustained figure excludes
the first and the last tenth of the rows (start and tail).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.certificates import Certificates
from benchmarks.figures import MEGABYTE, Line, Section
from benchmarks.processes import BenchmarkError, Program, ProgramRun, sandbox
from benchmarks.required import required
from benchmarks.sources import Source
from config.settings import DEFAULTS

_SUSTAINED_SECONDS = 5.0  # in less time, the start of the run dominates
_BACK_SHARE = 0.95  # of the limit: the rate is back


@dataclass(frozen=True)
class Mode:
    """How a mode delivers, and the names of its required figures; the narrowest limit is first."""

    program_mode: str
    users_per_call: int
    limits: Mapping[str, str]  # endpoint -> setting with its rate limit
    exit: str
    sustained: str | None = None
    cpu: str | None = None
    cpu_unit_seconds: float = 1.0  # of the requirement
    memory: str | None = None


_SINGLE_LIMITS = {"users/update": "USERS_UPDATE_RPS", "events/track": "EVENTS_TRACK_RPS"}
_BULK_LIMITS = {"users/bulkUpdate": "BULK_UPDATE_RPS", "events/trackBulk": "TRACK_BULK_RPS"}
_BATCH = int(DEFAULTS["BULK_BATCH_SIZE"])
MODES = {
    "per-user": Mode(
        "per-user",
        1,
        _SINGLE_LIMITS,
        sustained="per-user sustained",
        exit="per-user exit",
        cpu="per-user CPU",
        cpu_unit_seconds=1e-3,
        memory="per-user memory",
    ),
    "per-user-1s": Mode(
        "per-user", 1, _SINGLE_LIMITS, exit="per-user 1 s exit", memory="per-user 1 s memory"
    ),
    "bulk": Mode(
        "bulk",
        _BATCH,
        _BULK_LIMITS,
        sustained="bulk sustained",
        exit="bulk exit",
        cpu="bulk CPU",
        cpu_unit_seconds=1e-6,
    ),
}


def default_limits(mode: Mode) -> dict[str, float]:
    """Return the limits of the program's settings, for the sandbox to enforce."""
    return {endpoint: float(DEFAULTS[setting]) for endpoint, setting in mode.limits.items()}


def measure_delivery(
    name: str, rows: int, latency_ms: float, source: Source, tls: Certificates | None
) -> Section:
    """Deliver all rows of `source` once with the default settings, and return the figures."""
    mode = MODES[name]
    limits = default_limits(mode)
    keep_calls = 3 * rows if mode.users_per_call == 1 else 0  # with times, to see the rate
    with (
        TemporaryDirectory() as folder,
        sandbox(latency_ms, tls, keep_calls=keep_calls, limits=limits) as api,
    ):
        run = Program(Path(folder), source.settings, api).run("--mode", mode.program_mode)
        state = api.state()
        calls = _calls_of(api.calls(), next(iter(limits))) if keep_calls else []
    if run.counts["successful"] != rows:
        raise BenchmarkError(f"only {run.counts['successful']:,} of {rows:,} rows were delivered")
    return Section(
        name,
        f"{rows:,} rows at {latency_ms:g} ms per call, {source.name}",
        [
            *_speed(mode, rows, run),
            *(_rate_limited(name, rows, limits, state, calls) if name == "per-user" else []),
            *_resources(mode, rows, run),
            *_traffic(limits, state),
            Line("calls", f"{run.counts['api_calls']:,}"),
        ],
    )


def sustained_per_second(settled: Mapping[str, int], calls_per_second: int = 1) -> float | None:
    """Return rows per second between the first and the last tenth; None if under five seconds.

    `settled` maps a time (ISO 8601) to the rows settled then. The rows of a batch are settled
    together, so whole batches are counted: including the first time, excluding the last. Few calls
    a second are not evenly spread, so `calls_per_second` times or a multiple of it are taken.
    """
    total = sum(settled.values())
    moments, rows_before, before = sorted(settled), [], 0
    for moment in moments:
        rows_before.append(before)
        before += settled[moment]
    middle = [i for i, rows in enumerate(rows_before) if 0.1 * total <= rows <= 0.9 * total]
    if not middle:
        return None
    first, last = middle[0], middle[-1]
    last -= (last - first) % calls_per_second
    span = datetime.fromisoformat(moments[last]) - datetime.fromisoformat(moments[first])
    seconds = span.total_seconds()
    rows = rows_before[last] - rows_before[first]
    return rows / seconds if seconds >= _SUSTAINED_SECONDS else None


def recovery_seconds(calls: Sequence[tuple[float, int]], limit: float) -> float | None:
    """Return the longest time from a 429 until a second with 95 % of the limit begins.

    `calls` are (unix time, HTTP status) in order. A rate that never came back counts until the
    last call; None if there was no 429, or if the calls ended within a second of it.
    """
    accepted = [at for at, status in calls if status != 429]
    longest = None
    for limited_at in (at for at, status in calls if status == 429):
        if calls[-1][0] - limited_at < 1.0:
            continue
        later = [at for at in accepted if at >= limited_at]
        count = int(_BACK_SHARE * limit)
        starts = (
            first
            for first, last in zip(later, later[count - 1 :], strict=False)
            if last < first + 1
        )
        seconds = next(starts, calls[-1][0]) - limited_at
        longest = seconds if longest is None else max(longest, seconds)
    return longest


def _calls_of(calls: Sequence[Mapping[str, Any]], endpoint: str) -> list[tuple[float, int]]:
    return [(call["at"], call["status"] or 0) for call in calls if call["endpoint"] == endpoint]


def _speed(mode: Mode, rows: int, run: ProgramRun) -> list[Line]:
    limit = float(DEFAULTS[next(iter(mode.limits.values()))])
    ceiling = limit * mode.users_per_call
    seconds = run.process.wall_seconds
    # Single calls are evenly spread.
    calls_per_second = int(limit) if mode.users_per_call > 1 else 1
    sustained = sustained_per_second(run.results.settled, calls_per_second)
    if mode.sustained is not None:
        lines = [required(mode.sustained, sustained, "too few rows")]
    else:
        text = "too few rows" if sustained is None else f"{sustained:,.1f}"
        lines = [Line("users/s, sustained", text)]
    return [
        *lines,
        required(mode.exit, 100 * rows / ceiling / seconds),
        Line("users/s, start to exit", f"{rows / seconds:,.1f}"),
        Line("start to exit", f"{seconds:.1f} s"),
    ]


def _rate_limited(
    name: str,
    rows: int,
    limits: Mapping[str, float],
    state: Mapping[str, Any],
    calls: Sequence[tuple[float, int]],
) -> list[Line]:
    count = sum(state["endpoints"][endpoint]["rate_limited"] for endpoint in limits)
    recovery = recovery_seconds(calls, next(iter(limits.values())))
    return [
        required(f"{name} 429", count * 10_000 / rows if rows > 10_000 else count),
        required(f"{name} recovery", recovery, "no 429" if not count else "at the end"),
    ]


def _resources(mode: Mode, rows: int, run: ProgramRun) -> list[Line]:
    cpu, peak = run.process.cpu_seconds / rows, run.process.peak_bytes / MEGABYTE
    return [
        required(mode.cpu, cpu / mode.cpu_unit_seconds)
        if mode.cpu is not None
        else Line("CPU per user", f"{cpu * 1e3:.3f} ms"),
        required(mode.memory, peak)
        if mode.memory is not None
        else Line("peak memory", f"{peak:.1f} MB"),
    ]


def _traffic(limits: Mapping[str, float], state: Mapping[str, Any]) -> list[Line]:
    lines = []
    for endpoint, limit in limits.items():
        traffic = state["endpoints"][endpoint]
        lines.append(
            Line(
                f"requests in the busiest second, {endpoint}",
                f"{traffic['max_in_one_second']:,}, 429: {traffic['rate_limited']:,}",
                f"limit {limit:,.0f}",
            )
        )
    return [
        *lines,
        Line("connections opened", f"{state['connections']:,}"),
        Line("TLS handshakes, resumed", f"{state['handshakes']:,}, {state['resumed']:,}"),
    ]
