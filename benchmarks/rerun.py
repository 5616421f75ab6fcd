"""Speed of a run that finds nothing changed, and the calls of a run that finds a few changes.

Three runs: the first delivers all rows (bulk, twice the default rate limits, no latency), the
second is measured, and the third follows a change of one row in a thousand.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from benchmarks.delivery import MEGABYTE, PEAK_MEGABYTES
from benchmarks.figures import Line, Section, at_least, at_most
from benchmarks.processes import BenchmarkError, Program, Sandbox, sandbox
from benchmarks.sources import Source
from benchmarks.users import email_of

REQUIRED_ROWS_PER_SECOND = 50_000
_CHANGED_EVERY = 1_000
# At much higher limits, batches would accumulate in memory: one core cannot send them faster.
_FIRST_RUN_LIMITS = {"BULK_UPDATE_RPS": "10", "TRACK_BULK_RPS": "20"}


def measure_rerun(rows: int, source: Source) -> Section:
    """Run three times with the rows of `source`, and return the figures."""
    every = min(_CHANGED_EVERY, rows)
    with TemporaryDirectory() as folder:
        with sandbox(0) as api:
            program = Program(Path(folder), {**source.settings, "ITERABLE_API_BASE_URL": api.url})
            first = program.run("--mode", "bulk", **_FIRST_RUN_LIMITS)
            api.reset()
            second = program.run()
            calls = _call_count(api)
        source.change(every)
        # The same address: the state file is of one project.
        with sandbox(0, keep_calls=rows, port=urlsplit(api.url).port or 0) as api:
            third = program.run("--mode", "per-user")
            updated = [call["email"] for call in api.calls() if call["endpoint"] == "users/update"]
            calls_after_change = _call_count(api)
    expected = [email_of(number) for number in range(every, rows + 1, every)]
    if second.counts["unchanged"] != rows or third.counts["successful"] != len(expected):
        raise BenchmarkError(
            f"unexpected counts: re-run {second.counts}, after the change {third.counts}"
        )
    seconds = second.process.wall_seconds
    is_exact = sorted(updated) == expected and calls_after_change == len(expected)
    return Section(
        "rerun",
        f"{rows:,} unchanged rows, {source.name}",
        [
            at_least("rows/s, end to end", rows / seconds, REQUIRED_ROWS_PER_SECOND, digits=0),
            Line("wall time", f"{seconds:.1f} s"),
            Line("CPU", f"{second.process.cpu_seconds:.1f} s"),
            at_most("peak memory", second.process.peak_bytes / MEGABYTE, PEAK_MEGABYTES, " MB"),
            Line("calls", f"{calls:,}", "0", calls == 0),
            Line(
                f"calls after {len(expected):,} profiles changed",
                f"{calls_after_change:,}",
                f"exactly {len(expected):,}",
                is_exact,
            ),
            Line("wall time of that run", f"{third.process.wall_seconds:.1f} s"),
            Line(
                "first delivery, bulk at 10 requests/s: wall time",
                f"{first.process.wall_seconds:.1f} s",
            ),
            at_most(
                "first delivery: peak memory",
                first.process.peak_bytes / MEGABYTE,
                PEAK_MEGABYTES,
                " MB",
            ),
        ],
    )


def _call_count(api: Sandbox) -> int:
    return sum(endpoint["received"] for endpoint in api.endpoints().values())
