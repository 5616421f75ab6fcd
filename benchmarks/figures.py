"""Figures of a benchmark, and their output: columns on the console, a table in `RESULTS.md`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

RESULTS_FILE = Path(__file__).resolve().parent / "RESULTS.md"
MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Line:
    """One figure; `name` is its key in `required.REQUIREMENTS`, if it is a required one.

    `other` is the same figure over plain http, if both were measured.
    """

    what: str
    measured: str
    required: str = ""
    is_met: bool | None = None  # None: nothing is required
    other: str = ""
    name: str = ""

    @property
    def verdict(self) -> str:
        """Whether the required figure is met; empty if nothing is required."""
        return "" if self.is_met is None else "met" if self.is_met else "MISSED"


@dataclass(frozen=True)
class Table:
    """Rows of cells with a header, one row per tool or size."""

    mode: str
    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Section:
    """The figures of one mode; `scheme` says how the program reached the sandbox."""

    mode: str
    title: str
    lines: Sequence[Line]
    scheme: str = ""

    def to_table(self) -> Table:
        """Return the figures as rows of a table."""
        if any(line.other for line in self.lines):
            header: tuple[str, ...] = ("", "TLS", "required", "", "plain http")
            rows = [(*_cells(line), line.other) for line in self.lines]
            return Table(self.mode, f"{self.title}, over TLS and plain http", header, rows)
        scheme = f", over {self.scheme}" if self.scheme else ""
        header = ("", "measured", "required", "")
        return Table(self.mode, self.title + scheme, header, [_cells(line) for line in self.lines])


def _cells(line: Line) -> tuple[str, ...]:
    return (line.what, line.measured, line.required, line.verdict)


def beside(over_tls: Section, over_http: Section) -> Section:
    """Return the first section with the figures of the second as a column of their own."""
    others = {line.what: line.measured for line in over_http.lines}
    lines = [replace(line, other=others.get(line.what, "")) for line in over_tls.lines]
    return replace(over_tls, lines=lines)


def console_lines(content: Section | Table) -> list[str]:
    """Return the lines of a section or table for the console."""
    table = content.to_table() if isinstance(content, Section) else content
    rows = [tuple(table.header), *map(tuple, table.rows)]
    used = [i for i in range(len(table.header)) if any(row[i] for row in rows[1:])]
    widths = {i: max(len(row[i]) for row in rows) for i in used}
    lines = [f"{table.mode}: {table.title}"]
    for row in rows:
        cells = [
            row[i].ljust(widths[i]) if i == 0 or not table.header[i] else row[i].rjust(widths[i])
            for i in used
        ]
        lines.append(f"  {'  '.join(cells)}".rstrip())
    return [*lines, *(f"  {note}" for note in table.notes), ""]


def markdown(heading: str, notes: Sequence[str], contents: Sequence[Section | Table]) -> str:
    """Return all sections and tables as Markdown for `RESULTS.md`."""
    text = [f"## {heading}", "", *(f"- {note}" for note in notes), ""]
    for content in contents:
        table = content.to_table() if isinstance(content, Section) else content
        first, *others = table.header
        text += [
            f"**{table.mode}**: {table.title}",
            "",
            f"| {' | '.join([first or 'figure', *others])} |",
            "|---|" + "".join("--:|" if name else "---|" for name in others),
            *(f"| {' | '.join(row)} |" for row in table.rows),
            "",
            *(f"- {note}" for note in table.notes),
            *([""] if table.notes else []),
        ]
    return "\n".join(text)


def append_record(heading: str, notes: Sequence[str], contents: Sequence[Section | Table]) -> None:
    """Append the sections and tables to `RESULTS.md`."""
    with RESULTS_FILE.open("a", encoding="utf-8") as file:
        file.write("\n" + markdown(heading, notes, contents))
