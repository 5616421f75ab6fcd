"""Time of `--verify 100`, `--check` and `--history` after a million rows were delivered."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.certificates import Certificates
from benchmarks.figures import Line, Section
from benchmarks.processes import Program, sandbox
from benchmarks.required import required
from benchmarks.sources import Source

_COMMANDS = {"verify": ("--verify", "100"), "check": ("--check",), "history": ("--history",)}
# At much higher limits, batches would accumulate in memory: one core cannot send them faster.
DELIVERY_LIMITS = {"BULK_UPDATE_RPS": "10", "TRACK_BULK_RPS": "20"}


def measure_commands(rows: int, source: Source, tls: Certificates | None) -> Section:
    """Deliver all rows, and time the commands."""
    with TemporaryDirectory() as folder, sandbox(0, tls) as api:
        program = Program(Path(folder), source.settings, api)
        program.run("--mode", "bulk", **DELIVERY_LIMITS)
        lines = command_lines(program)
    return Section("commands", f"{rows:,} rows delivered before, {source.name}", lines)


def command_lines(program: Program) -> list[Line]:
    """Time the commands of a program whose last run delivered everything."""
    return [
        required(name, program.run_command(*flags).wall_seconds)
        for name, flags in _COMMANDS.items()
    ]
