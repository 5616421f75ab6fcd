"""People over time: users who leave, change their address and come back, between two runs.

`EMAIL_CHANGES=move` and `ON_LEAVE=clear`. Everybody is delivered, some leave and are cleared; then
comes the measured run, in which one in a hundred leaves, one in two hundred has another address and
one in two hundred comes back. The run after it must make no call.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.certificates import Certificates
from benchmarks.commands import DELIVERY_LIMITS
from benchmarks.figures import MEGABYTE, Line, Section
from benchmarks.processes import BenchmarkError, Program, ProgramRun, sandbox
from benchmarks.sources import Source, run_statement

_SETTINGS = {"EMAIL_CHANGES": "move", "ON_LEAVE": "clear", **DELIVERY_LIMITS}
# Who they are, by customer id.
_AWAY, _LEAVING, _MOVING = "id % 200 = 7", "id % 100 = 3", "id % 200 = 11"


def measure_people(
    rows: int, latency_ms: float, source: Source, tls: Certificates | None
) -> Section:
    """Measure the run in which people leave, move and come back, in bulk mode."""
    with TemporaryDirectory() as folder, sandbox(latency_ms, tls) as api:
        program = Program(Path(folder), {**source.settings, **_SETTINGS}, api)
        first = program.run("--mode", "bulk")
        _change(source, f"plan_type = 'free' WHERE {_AWAY}")
        away = program.run("--mode", "bulk")
        _change(source, f"plan_type = 'pro' WHERE {_AWAY}")
        _change(source, f"plan_type = 'free' WHERE {_LEAVING}")
        _change(source, f"email = CONCAT('new.', email) WHERE {_MOVING}")
        users_before = api.state()["users"]
        measured = program.run("--mode", "bulk")
        users_created = api.state()["users"] - users_before
        rerun = program.run("--mode", "bulk")
    left, moved, back = rows // 100, rows // 200, rows // 200
    _expect(away, cleared=back, moved=0)
    _expect(measured, cleared=left, moved=moved)
    run, calls = measured.process, measured.counts["api_calls"]
    return Section(
        "people",
        f"{rows:,} users, {left:,} leave, {moved:,} have a new address, {back:,} come back; bulk, "
        f"{latency_ms:g} ms per call, {source.name}",
        [
            Line("first delivery: start to exit", f"{first.process.wall_seconds:.1f} s"),
            Line("the measured run: start to exit", f"{run.wall_seconds:.1f} s"),
            Line("calls", f"{calls:,}"),
            Line("CPU", f"{run.cpu_seconds:.1f} s"),
            Line("peak memory", f"{run.peak_bytes / MEGABYTE:.1f} MB"),
            Line("users that the run created", f"{users_created:,}", "0", users_created == 0),
            Line(
                "calls of the next run",
                f"{rerun.counts['api_calls']:,}",
                "0",
                rerun.counts["api_calls"] == 0,
            ),
            Line("start to exit of the next run", f"{rerun.process.wall_seconds:.1f} s"),
        ],
    )


def _change(source: Source, assignment: str) -> None:
    run_statement(source.settings, f"UPDATE customers SET {assignment}")  # noqa: S608 - our own text


def _expect(run: ProgramRun, *, cleared: int, moved: int) -> None:
    found = (run.counts["leavers"]["cleared"], run.counts["email_changes"]["moved"])
    if found != (cleared, moved):
        raise BenchmarkError(f"cleared and moved: {found}, not {(cleared, moved)}")
