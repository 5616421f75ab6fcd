"""Handler of SIGINT and SIGTERM: graceful shutdown, or an immediate end before delivery."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """A stop signal came while nothing was being sent.

    It can be raised at any line. As a KeyboardInterrupt it passes every `except Exception`.
    """


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
            raise Interrupted

    @property
    def name(self) -> str:
        return signal.Signals(self.number).name if self.number else ""
