"""Command line of the benchmarks: measures the program and prints its figures in tables."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from benchmarks.certificates import KEY_TYPES, Certificates, certificates
from benchmarks.commands import measure_commands
from benchmarks.delivery import measure_delivery
from benchmarks.figures import Section, Table, append_record, beside, console_lines
from benchmarks.growth import SIZES, measure_growth
from benchmarks.identities import measure_identities
from benchmarks.machine import commit, machine_line, today, versions_line
from benchmarks.peers import measure_peers
from benchmarks.people import measure_people
from benchmarks.processes import BenchmarkError
from benchmarks.required import deviating, summary
from benchmarks.rerun import measure_rerun
from benchmarks.side_by_side import measure_side_by_side
from benchmarks.sources import SOURCES, Source
from benchmarks.startup import ROWS as STARTUP_ROWS
from benchmarks.startup import measure_startup
from benchmarks.stop import measure_stop
from tests.support.mariadb import MariaDBUnavailable

Contents = Sequence[Section | Table]


@dataclass(frozen=True)
class Conditions:
    """What a mode is measured with; `latency_ms` is None where the mode's own default holds."""

    mode: str
    rows: int
    latency_ms: float | None
    source: Source
    tls: Certificates | None
    slow_rows: int
    with_pip: bool

    def deviation(self, *, with_scheme: bool) -> str:
        """Return what differs from the conditions of the required figures, or an empty text."""
        parts = []
        if self.rows != MODES[self.mode].rows:
            parts.append(f"{self.rows:,} rows")
        if self.latency_ms is not None:
            parts.append(f"{self.latency_ms:g} ms")
        if with_scheme and self.tls is None:
            parts.append("plain http")
        return ", ".join(parts)

    @property
    def scheme(self) -> str:
        """How the section's title names the connection to the sandbox."""
        return "plain http" if self.tls is None else "TLS"

    def latency(self, default: float = 300.0) -> float:
        """Return the latency of an API call in milliseconds."""
        return default if self.latency_ms is None else self.latency_ms


@dataclass(frozen=True)
class Mode:
    """A mode of the command line; `in_default` unless it takes long or another one includes it."""

    rows: int
    measure: Callable[[Conditions], Contents]
    in_default: bool = True


def _delivery(name: str, latency_ms: float = 300.0) -> Callable[[Conditions], Contents]:
    return lambda on: [measure_delivery(name, on.rows, on.latency(latency_ms), on.source, on.tls)]


MODES = {
    "per-user": Mode(10_000, _delivery("per-user")),
    "per-user-1s": Mode(10_000, _delivery("per-user-1s", 1_000.0)),
    "bulk": Mode(60_000, _delivery("bulk")),
    "rerun": Mode(1_000_000, lambda on: measure_rerun(on.rows, on.source, on.tls)),
    "commands": Mode(
        1_000_000, lambda on: [measure_commands(on.rows, on.source, on.tls)], in_default=False
    ),
    "stop": Mode(1_000_000, lambda on: [measure_stop(on.rows, on.latency(), on.source, on.tls)]),
    "side-by-side": Mode(
        10_000, lambda on: [measure_side_by_side(on.rows, on.latency(), on.source, on.tls)]
    ),
    "startup": Mode(STARTUP_ROWS, lambda on: [measure_startup(on.source, on.tls)]),
    "peers": Mode(
        5_000,
        lambda on: measure_peers(
            on.rows, on.slow_rows, on.latency(), on.source, on.tls, with_pip=on.with_pip
        ),
    ),
    "identities": Mode(
        10_000,
        lambda on: [measure_identities(on.rows, on.latency(), on.source, on.tls)],
        in_default=False,
    ),
    "people": Mode(
        200_000,
        lambda on: [measure_people(on.rows, on.latency(), on.source, on.tls)],
        in_default=False,
    ),
    "growth": Mode(
        STARTUP_ROWS,  # not used: it generates its own
        lambda on: [
            measure_growth(SIZES if on.rows == STARTUP_ROWS else [on.rows], on.scheme, on.tls)
        ],
        in_default=False,
    ),
}
_DEFAULT_MODES = tuple(name for name, mode in MODES.items() if mode.in_default)
_GROUPS = {
    "default": _DEFAULT_MODES,
    "all": (*_DEFAULT_MODES, "identities", "people", "growth"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmarks; return 0 if all were measured, 1 if one could not be."""
    arguments = _parser().parse_args(argv)
    heading = f"{today()}, {commit()}"  # taken first: the code may change during the run
    notes = [machine_line(), versions_line()]
    _print([*notes, ""])
    contents: list[Section | Table] = []
    errors: list[str] = []
    for name in _modes(arguments.mode):
        try:
            for content in _measure(name, arguments):
                _print(console_lines(content))
                contents.append(content)
        except (BenchmarkError, MariaDBUnavailable) as error:
            errors.append(f"{name}: {error}\n")
            if isinstance(error, MariaDBUnavailable):
                errors.append("To measure without MariaDB, add --source embedded.\n")
                break
    if set(arguments.mode) & set(_GROUPS):
        table = summary(contents)
        _print(console_lines(table))
        contents.insert(0, table)
    if arguments.record:
        append_record(heading, notes, contents)
    sys.stderr.writelines(errors)
    return 1 if errors else 0


def _modes(chosen: Sequence[str]) -> list[str]:
    names = [mode for name in chosen for mode in _GROUPS.get(name, (name,))]
    return list(dict.fromkeys(names))


def _measure(name: str, arguments: argparse.Namespace) -> Iterator[Section | Table]:
    """Measure one mode over the chosen schemes; with two, their sections are put together."""
    measured = []
    for scheme in ("https", "http") if arguments.scheme == "both" else (arguments.scheme,):
        with ExitStack() as stack:
            mode = MODES[name]
            rows = arguments.rows if arguments.rows and name != "startup" else mode.rows
            source = stack.enter_context(SOURCES[arguments.source](rows))
            tls = None
            if scheme == "https":
                tls = stack.enter_context(certificates(arguments.tls_key))
            on = Conditions(
                name,
                rows,
                arguments.latency_ms,
                source,
                tls,
                arguments.slow_rows,
                arguments.with_pip,
            )
            contents = mode.measure(on)
            deviation = on.deviation(with_scheme=arguments.scheme != "both")
            measured.append([_labelled(content, on.scheme, deviation) for content in contents])
    for first, *others in zip(*measured, strict=True):
        if not others:
            yield first
        elif isinstance(first, Section) and isinstance(others[0], Section):
            yield beside(first, others[0])
        else:
            yield from (first, *others)


def _labelled(content: Section | Table, scheme: str, deviation: str) -> Section | Table:
    if isinstance(content, Table):
        return content
    section = replace(content, scheme=scheme)
    return deviating(section, deviation) if deviation else section


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure the program on this machine, with the sandbox as Iterable and a "
        "private MariaDB as the source, and print each figure beside the required one.",
    )
    defaults = ", ".join(
        f"{name} {mode.rows:,}" for name, mode in MODES.items() if name not in ("startup", "growth")
    )
    add = parser.add_argument
    add(
        "--mode",
        nargs="+",
        choices=(*MODES, *_GROUPS),
        default=["default"],
        metavar="MODE",
        help=f"what to measure: {', '.join(MODES)}; 'default' is all but commands (part of rerun), "
        "identities, people and growth, 'all' includes these three",
    )
    add(
        "--rows",
        type=_at_least_one,
        metavar="N",
        help=f"rows of the source (default: {defaults}; startup is fixed, growth has four sizes)",
    )
    add(
        "--latency-ms",
        type=float,
        metavar="N",
        help="latency of an API call (default: 300, per-user-1s 1000; rerun, commands, startup "
        "and growth have none)",
    )
    add(
        "--scheme",
        choices=("https", "http", "both"),
        default="https",
        help="how the program reaches the sandbox; both: one table with a column for each",
    )
    add(
        "--tls-key",
        choices=KEY_TYPES,
        default=KEY_TYPES[0],
        help="key of the sandbox's certificate (default: %(default)s)",
    )
    add(
        "--source",
        choices=tuple(SOURCES),
        default="mariadb",
        help="database (default: mariadb); see the README",
    )
    add(
        "--slow-rows",
        type=_at_least_one,
        default=200,
        metavar="N",
        help="peers: rows of those that make one call after another (default: %(default)s)",
    )
    add(
        "--without-pip",
        dest="with_pip",
        action="store_false",
        help="peers: without dlt and drt, which pip installs into build/benchmark-peers",
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
