"""Handler of SIGINT, SIGTERM and SIGHUP: graceful shutdown in delivery, immediate end before it."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_AGAIN_AFTER_SECONDS = 0.01


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

    def raise_again(self, number: int) -> None:
        """Handle the signal once more, a moment later in the main thread."""
        self.ends_at_once = True

        def send() -> None:
            if self.ends_at_once:
                signal.pthread_kill(threading.main_thread().ident or 0, number)

        timer = threading.Timer(_AGAIN_AFTER_SECONDS, send)
        timer.daemon = True
        timer.start()

    @property
    def name(self) -> str:
        return signal.Signals(self.number).name if self.number else ""


@contextmanager
def stop_signals() -> Iterator[StopSignal]:
    """Handle the stop signals with a StopSignal, then restore the previous handlers.

    A signal that is ignored, as SIGHUP under nohup, stays ignored.
    """
    stop = StopSignal()
    numbers = [each for each in STOP_SIGNALS if signal.getsignal(each) != signal.SIG_IGN]
    previous = {number: signal.signal(number, stop) for number in numbers}
    previous_hook, sys.unraisablehook = sys.unraisablehook, _hook_of(stop, sys.unraisablehook)
    try:
        yield stop
    finally:
        sys.unraisablehook = previous_hook
        for number, handler in previous.items():
            signal.signal(number, handler)


def _hook_of(
    stop: StopSignal, previous: Callable[[sys.UnraisableHookArgs], object]
) -> Callable[[sys.UnraisableHookArgs], object]:
    """Return a hook that raises Interrupted again where Python had to ignore it.

    Python ignores what is raised in a finalizer or by the garbage collector, and a signal's handler
    may run in one: the run would go on.
    """

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        error = unraisable.exc_value
        if isinstance(error, Interrupted):
            stop.raise_again(error.number)
        else:
            previous(unraisable)

    return hook
