"""The required figures, in one place: every line of section 8 of the contract.

Unless said otherwise they hold on two cores, with the sandbox on the same machine, over TLS and at
300 ms per call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.figures import Line, Section, Table


@dataclass(frozen=True)
class Requirement:
    """A required minimum, or maximum if `is_most`, and the mode that measures it."""

    what: str
    limit: float
    unit: str
    mode: str
    is_most: bool = True
    digits: int = 1

    def text(self) -> str:
        """Return the requirement as it is printed."""
        return f"{'<=' if self.is_most else '>='} {self.limit:,g}{self.unit}"


def _least(what: str, limit: float, unit: str, mode: str) -> Requirement:
    return Requirement(what, limit, unit, mode, is_most=False)


REQUIREMENTS = {
    "per-user sustained": _least(
        "per-user: users/s, sustained, limits enforced per sliding second", 475, "", "per-user"
    ),
    "per-user 429": Requirement(
        "per-user: 429 responses in 10,000 rows", 1, "", "per-user", digits=0
    ),
    "per-user recovery": Requirement(
        "per-user: time from a 429 until the rate is back", 5, " s", "per-user"
    ),
    "per-user exit": _least(
        "per-user: 10,000 rows, start to exit, share of rows / 500", 90, " %", "per-user"
    ),
    "per-user 1 s exit": _least(
        "per-user at 1 s per call: start to exit, share of rows / 500", 80, " %", "per-user-1s"
    ),
    "bulk sustained": _least("bulk: users/s, sustained", 4_750, "", "bulk"),
    "bulk exit": _least(
        "bulk: 60,000 rows, start to exit, share of rows / 5,000", 85, " %", "bulk"
    ),
    "rerun speed": _least(
        "re-run, 1,000,000 unchanged rows: rows/s, start to exit", 50_000, "", "rerun"
    ),
    "rerun calls": Requirement("re-run: calls", 0, "", "rerun", digits=0),
    "bulk memory": Requirement("peak memory, 1,000,000 rows, bulk", 150, " MB", "rerun"),
    "per-user memory": Requirement(
        "peak memory, per-user, 10,000 rows delivered", 150, " MB", "per-user"
    ),
    "per-user fill memory": Requirement(
        "peak memory, per-user, 1,000,000 rows read, then stopped", 150, " MB", "stop"
    ),
    "per-user 1 s memory": Requirement(
        "peak memory, per-user at 1 s per call", 200, " MB", "per-user-1s"
    ),
    "per-user CPU": Requirement("per-user: CPU per user", 1.2, " ms", "per-user", digits=3),
    "bulk CPU": Requirement("bulk: CPU per user", 90, " microseconds", "bulk"),
    "two projects": _least(
        "two projects side by side, per-user: users/s, the slower one", 450, "", "side-by-side"
    ),
    "three projects": _least(
        "three projects side by side, per-user: users/s, the slowest one", 300, "", "side-by-side"
    ),
    "disk": Requirement(
        "peak disk space while 1,000,000 rows are delivered", 1_200, " MB", "rerun", digits=0
    ),
    "stop bulk waiting": Requirement(
        "SIGTERM to exit, bulk, 1,000,000 rows waiting", 5, " s", "stop"
    ),
    "stop bulk half": Requirement("SIGTERM to exit, bulk, half of them done", 5, " s", "stop"),
    "stop per-user waiting": Requirement(
        "SIGTERM to exit, per-user, 1,000,000 rows waiting", 5, " s", "stop"
    ),
    "stop per-user half": Requirement(
        "SIGTERM to exit, per-user, after some seconds of sending", 5, " s", "stop"
    ),
    "verify": Requirement("--verify 100, 1,000,000 rows delivered before", 10, " s", "commands"),
    "check": Requirement("--check, 1,000,000 rows delivered before", 10, " s", "commands"),
    "history": Requirement(
        "--history, 1,000,000 rows delivered before", 1, " s", "commands", digits=2
    ),
    "first request": Requirement("start to first request, 20 rows", 0.3, " s", "startup", digits=2),
    "help": Requirement("--help", 0.1, " s", "startup", digits=2),
}


def required(name: str, value: float | None, otherwise: str = "") -> Line:
    """Return the line of a required figure; None is shown as `otherwise`, without a verdict."""
    requirement = REQUIREMENTS[name]
    if value is None:
        return Line(requirement.what, otherwise, requirement.text(), name=name)
    is_met = value <= requirement.limit if requirement.is_most else value >= requirement.limit
    measured = f"{value:,.{requirement.digits}f}{requirement.unit}"
    return Line(requirement.what, measured, requirement.text(), is_met, name=name)


def deviating(section: Section, deviation: str) -> Section:
    """Return a section measured under other conditions: its required figures get no verdict.

    A million rows are not met by a figure of four hundred. `deviation` says what was different.
    """
    lines = [
        replace(line, measured=f"{line.measured} ({deviation})", is_met=None) if line.name else line
        for line in section.lines
    ]
    return replace(section, lines=lines)


def summary(sections: Sequence[Section | Table]) -> Table:
    """Return all requirements with what was measured."""
    lines: dict[str, Line] = {}
    for section in sections:
        if isinstance(section, Section):
            lines |= {line.name: line for line in section.lines if line.name}
    has_other = any(line.other for line in lines.values())
    rows = []
    for name, requirement in REQUIREMENTS.items():
        line = lines.get(name)
        if line is None:
            line = Line(
                requirement.what, f"not measured (--mode {requirement.mode})", requirement.text()
            )
        cells = (line.what, line.measured, line.required, line.verdict)
        rows.append((*cells, line.other) if has_other else cells)
    header = ("", "measured", "required", "", "plain http")
    return Table("required", "every required figure", header if has_other else header[:4], rows)
