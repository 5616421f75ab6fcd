"""Handler of SIGINT and SIGTERM: graceful shutdown during delivery, immediate end before it."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """A stop signal ended the program; the message, if any, is for the operator.

    A KeyboardInterrupt, because it can be raised anywhere, and a library that catches `Exception`
    must not catch it.
    """

    def __init__(self, number: int, message: str = "") -> None:
        super().__init__(message)
        self.number = number


class StopSignal:
    """The signal handler. It sets `event` and, if `ends_at_once`, raises `Interrupted` once.

    `ends_at_once` is true until the delivery may begin. From then on an exception could interrupt
    a transaction or a library, and a graceful shutdown takes only a few seconds.
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
