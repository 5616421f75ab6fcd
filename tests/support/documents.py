"""Parse the Markdown documents, so that tests can compare them with the program.

An indented line is a command, a fenced block is an output or an example. In an output, a line
`...` replaces any number of lines.
"""

from __future__ import annotations

import re
from pathlib import Path

PROJECT_FOLDER = Path(__file__).resolve().parent.parent.parent
HOME = "/opt/mysql-to-iterable"  # the project folder in the documents

# Values that differ between runs; everything else must be equal.
_DIFFERING = (
    (r"/\S*/mysql-to-iterable-demo-\w+", "DEMO_FOLDER"),
    (r"integration_results_\d{8}_\d{6}(_\d+)?", "integration_results_TIME"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME"),
    (r'"createdAt":\d{10}\b', '"createdAt":TIME'),
    (r"page-view-[0-9a-f]{32}", "EVENT_ID"),
    (r"https?://\S+ \([^)]*\)", "ADDRESS"),
    (r"[\w.-]+:\d+ \(version [^)]*\)", "SERVER"),
    (r"\d{8}T\d{6}Z-[0-9a-f]{6}", "RUN_ID"),
    (r"Iterable-Request-Id \w+", "Iterable-Request-Id ID"),
    (r"request [0-9a-f]{32}", "request ID"),
    (r"\d+ ms\b", "MILLISECONDS"),
    (r"\d[\d,]*\.\d+", "DECIMAL"),
)


class Document:
    """One Markdown file."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = PROJECT_FOLDER / name
        self.text = self.path.read_text(encoding="utf-8")
        self.prose = re.sub(r"(?ms)^```.*?^```$", "", self.text)

    def __repr__(self) -> str:
        return self.name

    @property
    def commands(self) -> list[str]:
        """The indented lines in order; continuation lines are joined."""
        blocks = re.findall(r"(?m)(?:^\n)((?: {4}\S.*\n(?: {8}.*\n)*)+)", self.prose)
        joined = re.sub(r"\n {8,}", " ", "".join(blocks))
        return [line.strip() for line in joined.splitlines()]

    @property
    def named_in_code(self) -> list[str]:
        """Everything between backticks."""
        return re.findall(r"`([^`\n]+)`", self.prose)

    def blocks(self, language: str = "") -> list[str]:
        """Return the fenced blocks of a language in order."""
        found = re.findall(r"(?ms)^```(\w*)\n(.*?)^```$", self.text)
        return [text for name, text in found if name == language]

    def shown_after(self, words: str) -> str:
        """Return the first fenced block after these words."""
        found = re.search(r"(?ms)^```.*?\n(.*?)^```$", self.text.split(words, 1)[1])
        assert found, f"{self} has no fenced block after {words!r}"
        return found.group(1)

    def table(self, heading: str) -> list[list[str]]:
        """Return the rows of the table with this first heading, or an empty list."""
        found = re.search(
            rf"(?m)^\| {re.escape(heading)} \|.*\n\|[-:|]+\|\n((?:\|.*\n)+)", self.text
        )
        rows = found.group(1).replace(r"\|", "\0").splitlines() if found else []
        return [[cell.strip().replace("\0", "|") for cell in row[1:-1].split("|")] for row in rows]

    @property
    def links(self) -> list[str]:
        return re.findall(r"\]\(([^)\s]+)\)", self.prose)

    @property
    def anchors(self) -> set[str]:
        """The names that other documents can link to, one for each heading."""
        headings = re.findall(r"(?m)^#+ (.+)$", self.prose)
        return {re.sub(r"[^\w -]", "", name.lower()).replace(" ", "-") for name in headings}


def documents_in(*folders: str) -> list[Document]:
    """Return every document in these folders ("." is the project folder)."""
    paths = [path for folder in folders for path in sorted((PROJECT_FOLDER / folder).glob("*.md"))]
    return [Document(str(path.relative_to(PROJECT_FOLDER))) for path in paths]


def codes(cell: str) -> list[str]:
    """Return the texts between backticks in a cell."""
    return re.findall(r"`([^`]+)`", cell)


def agrees(shown: str, printed: str) -> bool:
    """Return whether this was printed, apart from values that differ between runs."""
    parts = re.split(r"(?m)^\.\.\.\n", masked(shown))
    return re.fullmatch("(?:.*\n)*?".join(map(re.escape, parts)), masked(printed)) is not None


def masked(text: str) -> str:
    """Replace every value that differs between runs by a word."""
    for differing, mask in _DIFFERING:
        text = re.sub(differing, mask, text)
    return text.strip("\n") + "\n"
