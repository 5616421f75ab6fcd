"""Handler of SIGINT and SIGTERM: graceful shutdown, or an immediate end before delivery."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """A stop signal ended the program; the text, if any, is for the operator.

    Like the interpreter's own KeyboardInterrupt it can be raised anywhere, and no library that
    handles `Exception` catches it.
    """

    def __init__(self, number: int, message: str = "") -> None:
        super().__init__(message)
        self.number = number


class StopSignal:
    """The signal handler. It sets `event`, and raises `Interrupted` once if `ends_at_once`.

    `ends_at_once` is true while rows are read. During delivery an exception could interrupt a
    transaction or a library, and the graceful shutdown takes a few seconds only.
    """

    def __init__(self) -> None:
        self.event = threading.Event()
        self.number: int | None = None
        self.ends_at_once = True

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        self.number = number
        self.event.set()
        if self.ends_at_once:
            self.ends_at_once = False
            raise Interrupted(number)

    @property
    def name(self) -> str:
        return signal.Signals(self.number).name if self.number else ""
