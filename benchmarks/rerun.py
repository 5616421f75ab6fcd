"""The first delivery of a million rows, a run that finds nothing changed, and one that finds a few.

Three runs: the first delivers all rows (bulk, twice the default rate limits, no latency), the
second is measured, and the third follows a change of one row in a thousand. In between the
commands are timed that read what was delivered.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from benchmarks.certificates import Certificates
from benchmarks.commands import DELIVERY_LIMITS, command_lines
from benchmarks.disk import sampled_disk
from benchmarks.figures import MEGABYTE, Line, Section
from benchmarks.processes import BenchmarkError, Program, sandbox
from benchmarks.required import required
from benchmarks.sources import Source
from benchmarks.users import email_of

_CHANGED_EVERY = 1_000


def measure_rerun(rows: int, source: Source, tls: Certificates | None) -> list[Section]:
    """Run three times with the rows of `source`, and return the figures."""
    every = min(_CHANGED_EVERY, rows)
    with TemporaryDirectory() as folder:
        with sandbox(0, tls) as api:
            program = Program(Path(folder), source.settings, api)
            with (
                program.start("--mode", "bulk", **DELIVERY_LIMITS) as process,
                sampled_disk(process.pid, program.folder) as peak_disk,
            ):
                first = program.finish(process)
            commands = command_lines(program)
            api.reset()
            second = program.run()
            calls = api.call_count()
        source.change(every)
        # The same address: the state file is of one project.
        with sandbox(0, tls, keep_calls=rows, port=urlsplit(api.url).port or 0) as api:
            third = program.run("--mode", "per-user")
            updated = [call["email"] for call in api.calls() if call["endpoint"] == "users/update"]
            calls_after_change = api.call_count()
    expected = [email_of(number) for number in range(every, rows + 1, every)]
    if second.counts["unchanged"] != rows or third.counts["successful"] != len(expected):
        raise BenchmarkError(
            f"unexpected counts: re-run {second.counts}, after the change {third.counts}"
        )
    seconds = second.process.wall_seconds
    is_exact = sorted(updated) == expected and calls_after_change == len(expected)
    lines = [
        required("rerun speed", rows / seconds),
        required("rerun calls", calls),
        Line("re-run: start to exit", f"{seconds:.1f} s"),
        Line("re-run: CPU", f"{second.process.cpu_seconds:.1f} s"),
        Line("re-run: peak memory", f"{second.process.peak_bytes / MEGABYTE:.1f} MB"),
        Line(
            f"calls after {len(expected):,} profiles changed",
            f"{calls_after_change:,}",
            f"exactly {len(expected):,}",
            is_exact,
        ),
        Line("start to exit of that run", f"{third.process.wall_seconds:.1f} s"),
        Line(
            "first delivery, bulk at 10 requests/s: start to exit",
            f"{first.process.wall_seconds:.1f} s",
        ),
        required("bulk memory", first.process.peak_bytes / MEGABYTE),
        required("disk", peak_disk() / MEGABYTE),
    ]
    return [
        Section("rerun", f"{rows:,} unchanged rows, {source.name}", lines),
        Section("commands", f"{rows:,} rows delivered before, {source.name}", commands),
    ]
