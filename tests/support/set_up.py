"""Valid settings, which tests change one by one, and the lines of `--check` for them.

The fixtures that make them are in `set_up_fixtures`.
"""

from __future__ import annotations

from pathlib import Path

from commands.check.line import CheckLine
from commands.check.run import check_setup
from config.settings import Settings
from sandbox.iterable_api import IterableSandbox
from tests.conftest import SourceDatabase
from tests.support.users import WINDOW

KEY = "c0ffee00c0ffee00c0ffee00c0ffee00"
Lines = list[CheckLine]
READ_ONLY_ENDPOINTS = {"users/getFields", "users/forgotten", "users/forgottenUserIds"}


class SetUp:
    """Valid settings in a folder of their own, and the lines of `--check`."""

    def __init__(self, folder: Path, source: SourceDatabase, iterable: IterableSandbox) -> None:
        self.folder = folder
        self.state_file = folder / "state.sqlite3"
        self.env_file: Path | None = None
        self.slow_query_seconds = 1.0
        self.max_read_seconds = 5.0
        self.environment = {
            **source.settings(),
            **WINDOW,
            "ITERABLE_API_KEY": KEY,
            "ITERABLE_API_BASE_URL": iterable.url,
            "STATE_FILE": str(self.state_file),
            "RESULTS_DIR": str(folder),
            "LOG_FILE": str(folder / "run.log"),
        }

    def settings(self, **changed: str) -> Settings:
        return Settings.from_environment({**self.environment, **changed})

    def lines(self, **changed: str) -> Lines:
        return list(
            check_setup(
                self.settings(**changed),
                self.env_file,
                slow_query_seconds=self.slow_query_seconds,
                max_read_seconds=self.max_read_seconds,
            )
        )

    def line(self, name: str, **changed: str) -> CheckLine:
        (line,) = [line for line in self.lines(**changed) if line.name == name]
        return line


def failures(lines: Lines) -> list[str]:
    """Name the lines that failed."""
    return [line.name for line in lines if not line.ok]


def has_words(line: CheckLine, *words: str) -> None:
    """Check that a line has all these words."""
    for word in words:
        assert word in line.text
