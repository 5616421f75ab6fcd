"""Time until the first request of a run, and time of `--help`: medians, after one warm-up."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.figures import Section, at_most
from benchmarks.processes import BenchmarkError, Program, Sandbox, run_measured, sandbox
from benchmarks.sources import Source

ROWS = 20  # a small table
_TRIES = 5


def measure_startup(source: Source) -> Section:
    """Start the program several times with a small table, and return the figures."""
    with TemporaryDirectory() as folder, sandbox(0, keep_calls=100) as api:
        program = Program(Path(folder), {**source.settings, "ITERABLE_API_BASE_URL": api.url})
        first_request = _median_of_tries(lambda: _first_request_seconds(program, api))
    return Section(
        "startup",
        f"{ROWS} rows, median of {_TRIES}, {source.name}",
        [
            at_most("start to first request", first_request, 1.0, " s", digits=2),
            at_most("--help", _median_of_tries(_help_seconds), 0.3, " s", digits=2),
        ],
    )


def _median_of_tries(measure: Callable[[], float]) -> float:
    measure()  # fills the file system's cache
    return median(measure() for _ in range(_TRIES))


def _first_request_seconds(program: Program, api: Sandbox) -> float:
    api.reset()
    run = program.run("--full-refresh")
    at: float = api.calls()[0]["at"]
    return at - run.process.started_at


def _help_seconds() -> float:
    ended = run_measured([sys.executable, "main.py", "--help"])
    if ended.exit_status != 0:
        raise BenchmarkError(f"--help ended with exit status {ended.exit_status}")
    return ended.wall_seconds
