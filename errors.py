"""Expected errors, whose messages are for the operator, and the exit statuses."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import ClassVar


class ExitStatus(IntEnum):
    """Exit status of the program. After a signal it is 128 + the signal's number instead."""

    OK = 0
    STOPPED_EARLY = 1
    BAD_SETTINGS = 2
    SOME_FAILED = 3
    BUG = 70  # EX_SOFTWARE of sysexits.h


class SyncError(Exception):
    """An expected error. Its message says what happened and what to do next."""

    exit_status: ClassVar[ExitStatus] = ExitStatus.STOPPED_EARLY

    @property
    def lines(self) -> list[str]:
        """The message as the lines to print."""
        return [str(self)]


class ConfigError(SyncError):
    """Unusable settings or flags, with the list of all problems."""

    exit_status = ExitStatus.BAD_SETTINGS

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)

    @property
    def lines(self) -> list[str]:
        """The problems, one on each line."""
        return self.problems
