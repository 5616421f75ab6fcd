"""SIGINT and SIGTERM: a polite request, and an end at once where nothing is lost by it.

Knows nothing of what is stopped.
"""

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
    """What SIGINT and SIGTERM do: ask politely, and end at once where nothing is lost by it.

    Installed as the signals' handler. While rows are read it raises `Interrupted`, once; while
    they are delivered it only sets `event`, and so do all further signals: raised in the middle
    of a transaction or of a library, the exception would do harm, and the end is near anyway.
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
