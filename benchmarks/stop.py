"""SIGTERM: seconds until the program has ended, and whether its results file is complete.

The signal comes right after the first request, with all rows waiting, or in the middle: in bulk
when half of the users are in Iterable, in per-user mode after some seconds.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.certificates import Certificates
from benchmarks.figures import MEGABYTE, Line, Section
from benchmarks.processes import BenchmarkError, Program, ProgramRun, Sandbox, sandbox
from benchmarks.required import required
from benchmarks.sources import Source

_PER_USER_SECONDS = 10.0
_POLL_SECONDS = 0.02
_TIMEOUT_SECONDS = 1_800.0
# Half of a million rows at 5 requests/s would take 100 seconds.
_BULK_SETTINGS = {"BULK_UPDATE_RPS": "20", "TRACK_BULK_RPS": "40"}


def measure_stop(rows: int, latency_ms: float, source: Source, tls: Certificates | None) -> Section:
    """Stop four runs, and return the figures."""
    lines: list[Line] = []
    for mode in ("bulk", "per-user"):
        for moment in ("waiting", "half"):
            run, seconds = _stop(mode, moment, rows, latency_ms, source, tls)
            what = f"{mode}, {moment}"
            lines += [
                required(f"stop {mode} {moment}", seconds),
                Line(
                    f"{what}: results file",
                    "complete" if run.results.is_complete else "NOT COMPLETE",
                    "complete",
                    run.results.is_complete,
                ),
                Line(
                    f"{what}: delivered, not attempted",
                    f"{run.counts['successful']:,}, {run.counts['not_attempted']:,}",
                ),
            ]
            peak = run.process.peak_bytes / MEGABYTE
            if (mode, moment) == ("per-user", "half"):
                lines.append(required("per-user fill memory", peak))
            else:
                lines.append(Line(f"{what}: peak memory", f"{peak:.1f} MB"))
    return Section("stop", f"{rows:,} rows at {latency_ms:g} ms per call, {source.name}", lines)


def _stop(
    mode: str, moment: str, rows: int, latency_ms: float, source: Source, tls: Certificates | None
) -> tuple[ProgramRun, float]:
    settings = _BULK_SETTINGS if mode == "bulk" else {}
    with TemporaryDirectory() as folder, sandbox(latency_ms, tls) as api:
        program = Program(Path(folder), source.settings, api)
        with program.start("--mode", mode, **settings) as process:

            def wait_until(is_so: Callable[[Sandbox], bool]) -> None:
                end = time.monotonic() + _TIMEOUT_SECONDS
                while not is_so(api):
                    if process.has_ended() or time.monotonic() > end:
                        ended = process.wait()
                        raise BenchmarkError(f"nothing to stop any more:\n{ended.output[-2_000:]}")
                    time.sleep(_POLL_SECONDS)

            wait_until(_has_a_post)
            if moment == "half" and mode == "bulk":
                wait_until(lambda api: api.state()["users"] >= rows / 2)
            elif moment == "half":
                time.sleep(min(_PER_USER_SECONDS, rows / 1_000))
            process.terminate()
            signalled = time.monotonic()
            # Read the results only after the time was taken.
            ended = process.wait()
            seconds = time.monotonic() - signalled
        if ended.exit_status != 128 + signal.SIGTERM:
            raise BenchmarkError(
                f"the program ended with exit status {ended.exit_status}:\n{ended.output[-2_000:]}"
            )
        return ProgramRun(ended, program.results()), seconds


def _has_a_post(api: Sandbox) -> bool:
    endpoints = api.endpoints()
    return bool(endpoints["users/update"]["received"] or endpoints["users/bulkUpdate"]["received"])
