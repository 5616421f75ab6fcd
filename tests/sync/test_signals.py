"""Stop signals: which are handled, and that the first one always ends what runs."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import time
import weakref
from collections.abc import Callable, Iterator

import pytest

from sync.signals import STOP_SIGNALS, Interrupted, StopSignal, stop_signals


def send(number: signal.Signals = signal.SIGTERM) -> None:
    """Send a signal to this process; its handler runs before the next statement."""
    os.kill(os.getpid(), number)
    for _ in range(1_000):
        pass


@contextlib.contextmanager
def handler_of(number: signal.Signals, handler: signal.Handlers) -> Iterator[None]:
    former = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, former)


@pytest.mark.no_cover
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_signal_is_raised_and_remembered(number: signal.Signals) -> None:
    with handler_of(number, signal.SIG_DFL), stop_signals() as stop:
        with pytest.raises(Interrupted) as caught:
            send(number)
        assert caught.value.number == number
        assert (stop.number, stop.name) == (number, number.name)
        assert stop.event.is_set()


@pytest.mark.no_cover
def test_only_the_first_signal_is_raised() -> None:
    with stop_signals():
        with pytest.raises(Interrupted):
            send()
        send()
        send(signal.SIGHUP)


@pytest.mark.no_cover
def test_during_the_delivery_a_signal_only_sets_the_event() -> None:
    with stop_signals() as stop:
        stop.ends_at_once = False
        send(signal.SIGHUP)
        assert stop.event.is_set()
        assert stop.name == "SIGHUP"


@pytest.mark.no_cover
@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_that_is_ignored_stays_ignored(number: signal.Signals) -> None:
    """As under nohup, and in a shell's background jobs."""
    with handler_of(number, signal.SIG_IGN), stop_signals() as stop:
        send(number)
        assert not stop.event.is_set()
        assert signal.getsignal(number) == signal.SIG_IGN


def test_handlers_and_hook_are_restored() -> None:
    hook = sys.unraisablehook
    former = [signal.getsignal(number) for number in STOP_SIGNALS]
    with stop_signals() as stop:
        assert {signal.getsignal(number) for number in STOP_SIGNALS} == {stop}
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == former
    assert sys.unraisablehook is hook


class SignalledInFinalizer:
    """The signal arrives while Python finalizes this object."""

    def __del__(self) -> None:
        send()


def in_finalizer() -> None:
    SignalledInFinalizer()


def in_weakref_callback() -> None:
    class Thing:
        pass

    thing = Thing()
    reference = weakref.ref(thing, lambda _reference: send())
    del thing
    assert reference() is None


def in_garbage_collection() -> None:
    thing = SignalledInFinalizer()
    thing.itself = thing  # type: ignore[attr-defined]
    del thing
    gc.collect()


def run(receive: Callable[[], None]) -> None:
    """Receive a signal, then work for up to half a minute."""
    receive()
    for _ in range(3_000):
        time.sleep(0.01)


@pytest.mark.no_cover
@pytest.mark.parametrize("receive", [in_finalizer, in_weakref_callback, in_garbage_collection])
def test_a_signal_in_a_finalizer_was_ignored_and_the_read_went_on(
    receive: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with stop_signals() as stop:
        with pytest.raises(Interrupted):
            run(receive)
        assert stop.event.is_set()
        assert not stop.ends_at_once
    assert capsys.readouterr().err == ""


@pytest.mark.no_cover
def test_a_signal_in_a_finalizer_is_not_raised_once_the_delivery_has_begun() -> None:
    with stop_signals() as stop:
        in_finalizer()
        stop.ends_at_once = False
        time.sleep(0.1)
        assert stop.event.is_set()


def test_other_errors_in_finalizers_are_reported_as_before() -> None:
    class Failing:
        def __del__(self) -> None:
            raise ZeroDivisionError

    seen: list[object] = []
    former, sys.unraisablehook = sys.unraisablehook, lambda args: seen.append(args.exc_type)
    try:
        with stop_signals():
            Failing()
    finally:
        sys.unraisablehook = former
    assert seen == [ZeroDivisionError]


def test_a_new_stop_signal_has_no_name() -> None:
    assert StopSignal().name == ""
