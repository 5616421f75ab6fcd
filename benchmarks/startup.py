"""Time until the first request of a run, and time of `--help`: medians, after one warm-up."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.certificates import Certificates
from benchmarks.figures import Section
from benchmarks.processes import BenchmarkError, Program, Sandbox, run_measured, sandbox
from benchmarks.required import required
from benchmarks.sources import Source

ROWS = 20  # a small table
_TRIES = 5


def measure_startup(source: Source, tls: Certificates | None) -> Section:
    """Start the program several times with a small table, and return the figures."""
    with TemporaryDirectory() as folder, sandbox(0, tls) as api:
        program = Program(Path(folder), source.settings, api)
        first_request = _median_of_tries(lambda: _first_request_seconds(program, api))
    return Section(
        "startup",
        f"{ROWS} rows, median of {_TRIES}, {source.name}",
        [
            required("first request", first_request),
            required("help", _median_of_tries(_help_seconds)),
        ],
    )


def _median_of_tries(measure: Callable[[], float]) -> float:
    measure()  # fills the file system's cache
    return median(measure() for _ in range(_TRIES))


def _first_request_seconds(program: Program, api: Sandbox) -> float:
    api.reset()
    run = program.run("--full-refresh")
    at: float = api.state()["first_call_at"]
    return at - run.process.started_at


def _help_seconds() -> float:
    ended = run_measured([sys.executable, "main.py", "--help"])
    if ended.exit_status != 0:
        raise BenchmarkError(f"--help ended with exit status {ended.exit_status}")
    return ended.wall_seconds
