"""SIGINT and SIGTERM: a polite request, and an end at once where nothing is lost by it.

Knows nothing of what is stopped.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """A stop signal came while nothing was being sent.

    Like the interpreter's own, it can be raised anywhere, and is none that libraries handle.
    """


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
            raise Interrupted

    @property
    def name(self) -> str:
        return signal.Signals(self.number).name if self.number else ""
