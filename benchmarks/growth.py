"""Growth in bulk mode: what a run of ten thousand to three million rows takes.

Without latency and with a high rate limit, so that the program itself is what is measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.certificates import Certificates
from benchmarks.disk import sampled_disk
from benchmarks.figures import MEGABYTE, Table
from benchmarks.processes import BenchmarkError, Program, sandbox
from benchmarks.sources import generated

SIZES = (10_000, 100_000, 1_000_000, 3_000_000)
_LIMITS = {"BULK_UPDATE_RPS": "100", "TRACK_BULK_RPS": "100"}
_HEADER = (
    *("rows", "start to first call", "calls", "last call to exit", "start to exit"),
    *("CPU per row", "peak memory", "peak disk"),
)


def measure_growth(sizes: Sequence[int], scheme: str, tls: Certificates | None) -> Table:
    """Deliver each number of rows once."""
    return Table(
        "growth",
        f"bulk, generated rows, 0 ms per call, 100 requests/s allowed, over {scheme}",
        _HEADER,
        [_row(rows, tls) for rows in sizes],
    )


def _row(rows: int, tls: Certificates | None) -> tuple[str, ...]:
    with TemporaryDirectory() as folder, generated(rows) as source, sandbox(0, tls) as api:
        program = Program(Path(folder), source.settings, api)
        with (
            program.start("--mode", "bulk", **_LIMITS) as process,
            sampled_disk(process.pid, program.folder) as peak_disk,
        ):
            run = program.finish(process)
        state = api.state()
    if run.counts["successful"] != rows:
        raise BenchmarkError(f"unexpected counts: {run.counts}")
    ended = run.process
    first, last = state["first_call_at"], state["last_call_at"]
    return (
        f"{rows:,}",
        f"{first - ended.started_at:.1f} s",
        f"{last - first:.1f} s",
        f"{ended.started_at + ended.wall_seconds - last:.1f} s",
        f"{ended.wall_seconds:.1f} s",
        f"{ended.cpu_seconds / rows * 1e6:.1f} microseconds",
        f"{ended.peak_bytes / MEGABYTE:.1f} MB",
        f"{peak_disk() / MEGABYTE:.0f} MB",
    )
