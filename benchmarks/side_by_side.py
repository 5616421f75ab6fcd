"""Several projects on one machine: each has its own program, state file and sandbox."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.certificates import Certificates
from benchmarks.delivery import MODES, default_limits, sustained_per_second
from benchmarks.figures import Line, Section
from benchmarks.processes import BenchmarkError, Program, ProgramRun, sandbox
from benchmarks.required import required
from benchmarks.sources import Source

_NAMES = {2: "two projects", 3: "three projects"}


def measure_side_by_side(
    rows: int, latency_ms: float, source: Source, tls: Certificates | None
) -> Section:
    """Deliver the rows in two, then in three programs at the same time (per-user)."""
    lines: list[Line] = []
    for count, name in _NAMES.items():
        runs = _run(count, rows, latency_ms, source, tls)
        sustained = [sustained_per_second(run.results.settled) for run in runs]
        known = [speed for speed in sustained if speed is not None]
        lines += [
            required(name, min(known) if len(known) == count else None, "too few rows"),
            Line(f"{name}: users/s each, sustained", ", ".join(f"{speed:,.1f}" for speed in known)),
            Line(
                f"{name}: users/s each, start to exit",
                ", ".join(f"{rows / run.process.wall_seconds:,.1f}" for run in runs),
            ),
            Line(
                f"{name}: CPU per user",
                ", ".join(f"{run.process.cpu_seconds / rows * 1e3:.3f}" for run in runs) + " ms",
            ),
        ]
    return Section(
        "side-by-side", f"{rows:,} rows each at {latency_ms:g} ms per call, {source.name}", lines
    )


def _run(
    count: int, rows: int, latency_ms: float, source: Source, tls: Certificates | None
) -> list[ProgramRun]:
    with ExitStack() as stack:
        programs = []
        for _ in range(count):
            folder = Path(stack.enter_context(TemporaryDirectory()))
            limits = default_limits(MODES["per-user"])
            api = stack.enter_context(sandbox(latency_ms, tls, limits=limits))
            programs.append(Program(folder, source.settings, api))
        with ThreadPoolExecutor(count) as pool:  # each thread waits for its process
            runs = list(pool.map(lambda program: program.run("--mode", "per-user"), programs))
    for run in runs:
        if run.counts["successful"] != rows:
            raise BenchmarkError(f"unexpected counts: {run.counts}")
    return runs
