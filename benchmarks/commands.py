"""Time of `--verify 100`, `--check` and `--history` after a million rows were delivered.

And of `--only`, for one user of a million: before anything was delivered, and afterwards.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.certificates import Certificates
from benchmarks.figures import MEGABYTE, Line, Section
from benchmarks.processes import BenchmarkError, Program, sandbox
from benchmarks.required import required
from benchmarks.sources import Source
from benchmarks.users import email_of

_COMMANDS = {"verify": ("--verify", "100"), "check": ("--check",), "history": ("--history",)}
# At much higher limits, batches would accumulate in memory: one core cannot send them faster.
DELIVERY_LIMITS = {"BULK_UPDATE_RPS": "10", "TRACK_BULK_RPS": "20"}


def measure_commands(rows: int, source: Source, tls: Certificates | None) -> Section:
    """Deliver all rows, and time the commands."""
    with TemporaryDirectory() as folder, sandbox(0, tls) as api:
        program = Program(Path(folder), source.settings, api)
        lines = _only_lines(program, rows, "before the first delivery")
        program.run("--mode", "bulk", **DELIVERY_LIMITS)
        lines = [*command_lines(program), *lines, *_only_lines(program, rows, "afterwards")]
    return Section("commands", f"{rows:,} rows delivered before, {source.name}", lines)


def _only_lines(program: Program, rows: int, when: str) -> list[Line]:
    """Time the run that sends one user in the middle."""
    run = program.run("--only", email_of((rows + 1) // 2))
    counts = run.counts
    if (counts["total_users"], counts["successful"]) != (1, 1):
        raise BenchmarkError(f"unexpected counts of --only: {counts}")
    return [
        Line(f"--only, one user, {when}: start to exit", f"{run.process.wall_seconds:.1f} s"),
        Line(f"--only, {when}: peak memory", f"{run.process.peak_bytes / MEGABYTE:.1f} MB"),
        Line(f"--only, {when}: calls", f"{counts['api_calls']:,}"),
    ]


def command_lines(program: Program) -> list[Line]:
    """Time the commands of a program whose last run delivered everything."""
    return [
        required(name, program.run_command(*flags).wall_seconds)
        for name, flags in _COMMANDS.items()
    ]
