"""Command line of the benchmarks: measures the program and prints its figures in tables."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from benchmarks.baselines import Loop, measure_baselines
from benchmarks.delivery import MODES, measure_delivery
from benchmarks.figures import Section, append_record, console_lines
from benchmarks.machine import commit, machine_line, today, versions_line
from benchmarks.processes import BenchmarkError
from benchmarks.rerun import measure_rerun
from benchmarks.sources import SOURCES
from benchmarks.startup import ROWS as STARTUP_ROWS
from benchmarks.startup import measure_startup
from tests.support.mariadb import MariaDBUnavailable

DEFAULT_ROWS = {"per-user": 15_000, "bulk": 100_000, "rerun": 1_000_000, "startup": STARTUP_ROWS}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmarks; return 0 if all were measured, 1 if one could not be."""
    arguments = _parser().parse_args(argv)
    heading = f"{today()}, {commit()}"  # taken first: the code may change during the run
    notes = [machine_line(), versions_line()]
    _print([*notes, ""])
    try:
        sections = _measure(arguments)
    except (BenchmarkError, MariaDBUnavailable) as error:
        sys.stderr.write(f"{error}\n")
        if isinstance(error, MariaDBUnavailable):
            sys.stderr.write("To measure without MariaDB, add --source embedded.\n")
        return 1
    if arguments.record:
        append_record(heading, notes, sections)
    return 0


def _measure(arguments: argparse.Namespace) -> list[Section]:
    modes = tuple(DEFAULT_ROWS) if arguments.mode == "all" else (arguments.mode,)
    loops = None
    if arguments.baseline and any(mode in MODES for mode in modes):
        loops = measure_baselines(arguments.baseline_rows, arguments.latency_ms)
    sections = []
    for mode in modes:
        section = _measure_mode(mode, arguments, loops)
        _print(console_lines(section))
        sections.append(section)
    return sections


def _measure_mode(
    mode: str, arguments: argparse.Namespace, loops: tuple[Loop, Loop] | None
) -> Section:
    rows = DEFAULT_ROWS[mode]
    if arguments.rows and mode != "startup":
        rows = arguments.rows
    with SOURCES[arguments.source](rows) as source:
        if mode == "rerun":
            return measure_rerun(rows, source)
        if mode == "startup":
            return measure_startup(source)
        return measure_delivery(mode, rows, arguments.latency_ms, source, loops)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure the program on this machine, with the sandbox as Iterable and a "
        "private MariaDB as the source, and print each figure beside the required one.",
    )
    defaults = ", ".join(f"{mode} {rows:,}" for mode, rows in DEFAULT_ROWS.items())
    add = parser.add_argument
    add(
        "--mode",
        choices=(*DEFAULT_ROWS, "all"),
        default="all",
        help="what to measure (default: all)",
    )
    add(
        "--rows",
        type=_at_least_one,
        metavar="N",
        help=f"rows of the source (default: {defaults}; startup is fixed)",
    )
    add(
        "--latency-ms",
        type=float,
        default=300.0,
        metavar="N",
        help="latency of an API call (default: 300)",
    )
    add(
        "--source",
        choices=tuple(SOURCES),
        default="mariadb",
        help="database (default: mariadb); see the README",
    )
    add(
        "--no-baseline",
        dest="baseline",
        action="store_false",
        help="do not measure the two simple loops",
    )
    add(
        "--baseline-rows",
        type=_at_least_one,
        default=200,
        metavar="N",
        help="rows of each simple loop (default: 200)",
    )
    add("--record", action="store_true", help="append the figures to benchmarks/RESULTS.md")
    return parser


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def _print(lines: Sequence[str]) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
