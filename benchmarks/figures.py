"""Figures of a benchmark, and their output: columns on the console, a table in `RESULTS.md`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

RESULTS_FILE = Path(__file__).resolve().parent / "RESULTS.md"
_HEADER = ("", "program", "required", "", "plain loop", "loop with session")


@dataclass(frozen=True)
class Line:
    """One figure; `plain` and `session` are those of the two baselines."""

    what: str
    measured: str
    required: str = ""
    is_met: bool | None = None  # None: nothing is required
    plain: str = ""
    session: str = ""

    def cells(self) -> tuple[str, ...]:
        """Return the cells in the order of the table's header."""
        verdict = "" if self.is_met is None else "met" if self.is_met else "MISSED"
        return (self.what, self.measured, self.required, verdict, self.plain, self.session)


@dataclass(frozen=True)
class Section:
    """The figures of one mode."""

    mode: str
    title: str
    lines: Sequence[Line]


def at_least(what: str, value: float, required: float, unit: str = "", digits: int = 1) -> Line:
    """Return the line of a figure with a required minimum."""
    return Line(
        what,
        f"{value:,.{digits}f}{unit}",
        f">= {required:,.{_digits(required)}f}{unit}",
        value >= required,
    )


def at_most(what: str, value: float, required: float, unit: str = "", digits: int = 1) -> Line:
    """Return the line of a figure with an allowed maximum."""
    return Line(
        what,
        f"{value:,.{digits}f}{unit}",
        f"<= {required:,.{_digits(required)}f}{unit}",
        value <= required,
    )


def _digits(number: float) -> int:
    return 0 if number == int(number) else 2 if round(number, 1) != number else 1


def console_lines(section: Section) -> list[str]:
    """Return the lines of a section for the console."""
    rows = [_HEADER, *(line.cells() for line in section.lines)]
    used = [i for i in range(len(_HEADER)) if any(row[i] for row in rows[1:])]
    widths = {i: max(len(row[i]) for row in rows) for i in used}
    lines = [f"{section.mode}: {section.title}"]
    for row in rows:
        cells = [row[i].ljust(widths[i]) if i in (0, 3) else row[i].rjust(widths[i]) for i in used]
        lines.append(f"  {'  '.join(cells)}".rstrip())
    return [*lines, ""]


def markdown(heading: str, notes: Sequence[str], sections: Sequence[Section]) -> str:
    """Return all sections as Markdown for `RESULTS.md`."""
    text = [f"## {heading}", "", *(f"- {note}" for note in notes), ""]
    for section in sections:
        text += [
            f"**{section.mode}**: {section.title}",
            "",
            "| figure | program | required | | plain loop | loop with session |",
            "|---|--:|--:|---|--:|--:|",
            *(f"| {' | '.join(line.cells())} |" for line in section.lines),
            "",
        ]
    return "\n".join(text)


def append_record(heading: str, notes: Sequence[str], sections: Sequence[Section]) -> None:
    """Append the sections to `RESULTS.md`."""
    with RESULTS_FILE.open("a", encoding="utf-8") as file:
        file.write("\n" + markdown(heading, notes, sections))
