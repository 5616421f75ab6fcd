"""Errors whose message is written for the operator, and the exit statuses of the program."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import ClassVar


class ExitStatus(IntEnum):
    """What the program tells the shell and cron; a signal ends it with 128 + its number."""

    OK = 0
    STOPPED_EARLY = 1
    BAD_SETTINGS = 2
    SOME_FAILED = 3
    BUG = 70  # EX_SOFTWARE of sysexits.h


class SyncError(Exception):
    """An expected error: its message says in one or two lines what to do next."""

    exit_status: ClassVar[ExitStatus] = ExitStatus.STOPPED_EARLY

    @property
    def lines(self) -> list[str]:
        """The message as the lines to print."""
        return [str(self)]


class ConfigError(SyncError):
    """Settings or flags that cannot be used; carries every problem, not only the first."""

    exit_status = ExitStatus.BAD_SETTINGS

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)

    @property
    def lines(self) -> list[str]:
        """The problems, one a line."""
        return self.problems
