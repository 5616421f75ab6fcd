"""What a document holds for a reader who does as it says: commands, outputs, tables, links.

Owns the reading of our own Markdown (a command is indented, an output stands between fences, a
line `...` there is what was left out), and when something printed is what a document shows.
Refuses to know what any command does.
"""

from __future__ import annotations

import re
from pathlib import Path

PROJECT_FOLDER = Path(__file__).resolve().parent.parent.parent
HOME = "/opt/mysql-to-iterable"  # where the documents have the project

# What differs from run to run; counts, words and everything else have to be the same.
_DIFFERING = (
    (r"/\S*/mysql-to-iterable-demo-\w+", "DEMO_FOLDER"),
    (r"integration_results_\d{8}_\d{6}(_\d+)?", "integration_results_TIME"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME"),
    (r'"createdAt":\d{10}\b', '"createdAt":TIME'),
    (r"page-view-[0-9a-f]{32}", "EVENT_ID"),
    (r"https?://\S+ \([^)]*\)", "ADDRESS"),
    (r"[\w.-]+:\d+ \(version [^)]*\)", "SERVER"),
    (r"\d[\d,]*\.\d+", "DECIMAL"),
)


class Document:
    """One of our Markdown files."""

    def __init__(self, name: str) -> None:
        self.path = PROJECT_FOLDER / name
        self.text = self.path.read_text(encoding="utf-8")
        pieces = re.split(r"(?m)^```.*\n", self.text)
        self.prose, self.outputs = "\n".join(pieces[::2]), pieces[1::2]

    @property
    def commands(self) -> list[str]:
        """The indented lines, in their order; one that goes on in the next line is one."""
        blocks = re.findall(r"(?m)(?:^\n)((?: {4}\S.*\n(?: {8}.*\n)*)+)", self.prose)
        joined = re.sub(r"\n {8,}", " ", "".join(blocks))
        return [line.strip() for line in joined.splitlines()]

    @property
    def named_in_code(self) -> list[str]:
        """Everything between backticks."""
        return re.findall(r"`([^`\n]+)`", self.prose)

    def shown_after(self, words: str) -> str:
        """Return the first output that stands behind these words."""
        found = re.search(r"(?ms)^```.*?\n(.*?)^```$", self.text.split(words, 1)[1])
        assert found, f"{self.path.name} shows no output behind {words!r}"
        return found.group(1)

    def table(self, heading: str) -> list[list[str]]:
        """Return the rows of the table whose head begins so, without the head."""
        found = re.search(
            rf"(?m)^\| {re.escape(heading)} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", self.text
        )
        assert found, f"{self.path.name} has no table of {heading!r}"
        rows = found.group(1).replace(r"\|", "\0").splitlines()
        return [[cell.strip().replace("\0", "|") for cell in row[1:-1].split("|")] for row in rows]

    @property
    def links(self) -> list[str]:
        return re.findall(r"\]\(([^)\s]+)\)", self.prose)

    @property
    def anchors(self) -> set[str]:
        """The names that other documents can link to, one for each heading."""
        headings = re.findall(r"(?m)^#+ (.+)$", self.prose)
        return {re.sub(r"[^\w -]", "", name.lower()).replace(" ", "-") for name in headings}


def codes(cell: str) -> list[str]:
    """Return what stands between backticks in a cell."""
    return re.findall(r"`([^`]+)`", cell)


def agrees(shown: str, printed: str) -> bool:
    """Say whether this was printed but for what differs from run to run."""
    parts = re.split(r"(?m)^\.\.\.\n", _masked(shown))
    return re.fullmatch("(?:.*\n)*?".join(map(re.escape, parts)), _masked(printed)) is not None


def _masked(text: str) -> str:
    for differing, mask in _DIFFERING:
        text = re.sub(differing, mask, text)
    return text.strip("\n") + "\n"
