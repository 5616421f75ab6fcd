"""Per-user delivery by e-mail and by userId, in turns: the speed must be the same.

Each identity has a project of its type. Two deliveries of each, as a single one varies.
"""

from __future__ import annotations

from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

from benchmarks.certificates import Certificates
from benchmarks.delivery import MODES, default_limits, sustained_per_second
from benchmarks.figures import Line, Section
from benchmarks.processes import BenchmarkError, Program, ProgramRun, sandbox
from benchmarks.sources import Source

_IDENTITIES = ("email", "userid")  # also the names of the project types
_ROUNDS = 2
_MOST_SLOWER_PERCENT = 2.0


def measure_identities(
    rows: int, latency_ms: float, source: Source, tls: Certificates | None
) -> Section:
    """Deliver all rows in each identity, and compare."""
    runs: dict[str, list[ProgramRun]] = {identity: [] for identity in _IDENTITIES}
    for _round in range(_ROUNDS):
        for identity in _IDENTITIES:
            runs[identity].append(_deliver(identity, rows, latency_ms, source, tls))
    by_email, by_user_id = (_Figures(rows, runs[identity]) for identity in _IDENTITIES)
    slower_percent = 100 * (1 - by_user_id.users_per_second / by_email.users_per_second)
    return Section(
        "identities",
        f"per-user, {rows:,} rows at {latency_ms:g} ms per call, {_ROUNDS} deliveries of each, "
        f"{source.name}",
        [
            Line("users/s by e-mail, start to exit", f"{by_email.users_per_second:,.1f}"),
            Line("users/s by userId, start to exit", f"{by_user_id.users_per_second:,.1f}"),
            Line(
                "userId is slower by",
                f"{slower_percent:.2f} %",
                f"<= {_MOST_SLOWER_PERCENT:g} %",
                slower_percent <= _MOST_SLOWER_PERCENT,
            ),
            Line("users/s by e-mail, sustained", by_email.sustained),
            Line("users/s by userId, sustained", by_user_id.sustained),
            Line("CPU per user by e-mail", by_email.cpu),
            Line("CPU per user by userId", by_user_id.cpu),
        ],
    )


class _Figures:
    """The means of an identity's deliveries."""

    def __init__(self, rows: int, runs: list[ProgramRun]) -> None:
        self.users_per_second = mean(rows / run.process.wall_seconds for run in runs)
        self.cpu = f"{mean(run.process.cpu_seconds for run in runs) / rows * 1e3:.3f} ms"
        sustained = [sustained_per_second(run.results.settled) for run in runs]
        known = [value for value in sustained if value is not None]
        self.sustained = f"{mean(known):,.1f}" if known else "too few rows"


def _deliver(
    identity: str, rows: int, latency_ms: float, source: Source, tls: Certificates | None
) -> ProgramRun:
    flags = ("--project-type", identity)
    limits = default_limits(MODES["per-user"])
    with (
        TemporaryDirectory() as folder,
        sandbox(latency_ms, tls, limits=limits, flags=flags) as api,
    ):
        settings = {**source.settings, "IDENTIFY_BY": identity}
        run = Program(Path(folder), settings, api).run("--mode", "per-user")
    if run.counts["successful"] != rows:
        raise BenchmarkError(f"only {run.counts['successful']:,} of {rows:,} rows were delivered")
    return run
