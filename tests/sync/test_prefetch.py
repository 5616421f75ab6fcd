"""Reading ahead in a thread: the order, the errors, and how little is held."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from sync.source_rows import Prefetcher
from tests.support.rows import wait_until


class Counted:
    """Numbers without end; knows how many were taken and whether it was closed."""

    def __init__(self, end: int = 1_000_000) -> None:
        self.end = end
        self.taken = 0
        self.closed = threading.Event()

    def __call__(self) -> Iterator[int]:
        try:
            for number in range(self.end):
                self.taken += 1
                yield number
        finally:
            self.closed.set()


def settle(numbers: Counted) -> int:
    """Wait until no more is taken, and return how much was."""
    before = -1
    while before != numbers.taken:
        before = numbers.taken
        time.sleep(0.02)
    return before


def test_items_come_in_their_order() -> None:
    assert list(Prefetcher(Counted(1_000))) == list(range(1_000))


def test_nothing_is_nothing() -> None:
    assert list(Prefetcher(Counted(0))) == []


def test_only_a_few_items_are_read_ahead() -> None:
    numbers = Counted()
    reading = Prefetcher(numbers)
    assert settle(numbers) <= 3
    items = iter(reading)
    assert [next(items) for _ in range(5)] == [0, 1, 2, 3, 4]
    assert settle(numbers) <= 8
    reading.close()


def test_the_source_is_read_while_nobody_asks() -> None:
    numbers = Counted()
    reading = Prefetcher(numbers)
    assert wait_until(lambda: numbers.taken >= 2)
    reading.close()


def test_an_error_comes_in_its_place() -> None:
    def breaking() -> Iterator[int]:
        yield 1
        yield 2
        raise LookupError("the third")

    items = iter(Prefetcher(breaking))
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(LookupError, match="the third"):
        next(items)


def test_an_error_before_the_first_item_is_raised_too() -> None:
    def failing() -> Iterator[int]:
        raise LookupError("no source")

    with pytest.raises(LookupError, match="no source"):
        next(iter(Prefetcher(failing)))


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_not_even_an_exit_in_the_thread_is_lost(kind: type[BaseException]) -> None:
    def ending() -> Iterator[int]:
        yield 1
        raise kind

    with pytest.raises(kind):
        list(Prefetcher(ending))


def test_after_closing_the_source_is_closed_and_its_thread_ends() -> None:
    numbers = Counted()
    reading = Prefetcher(numbers)
    next(iter(reading))
    reading.close()
    assert numbers.closed.wait(2)
    reading._thread.join(2)
    assert not reading._thread.is_alive()
    assert numbers.taken < 10


def test_a_source_that_thinks_for_long_does_not_hold_up_closing() -> None:
    thinking = threading.Event()

    def slow() -> Iterator[int]:
        yield 1
        thinking.wait(30)

    reading = Prefetcher(slow)
    next(iter(reading))
    began_at = time.monotonic()
    reading.close()
    assert time.monotonic() - began_at < 10  # and not 30
    assert reading._thread.daemon  # it does not hold up the end of the program either
    thinking.set()
