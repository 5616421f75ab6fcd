"""Prefetching in a thread: order, errors, and how many items are held."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from sync.source_rows import Prefetcher
from tests.support.rows import wait_until


class Counted:
    """A source of numbers that counts those taken and notes when it is closed."""

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
    """Wait until no more numbers are taken, and return how many were."""
    before = -1
    while before != numbers.taken:
        before = numbers.taken
        time.sleep(0.02)
    return before


def test_items_keep_their_order() -> None:
    assert list(Prefetcher(Counted(1_000))) == list(range(1_000))


def test_an_empty_source_gives_no_items() -> None:
    assert list(Prefetcher(Counted(0))) == []


def test_only_a_few_items_are_prefetched() -> None:
    numbers = Counted()
    reading = Prefetcher(numbers)
    assert settle(numbers) <= 3
    items = iter(reading)
    assert [next(items) for _ in range(5)] == [0, 1, 2, 3, 4]
    assert settle(numbers) <= 8
    reading.close()


def test_items_are_fetched_before_they_are_asked_for() -> None:
    numbers = Counted()
    reading = Prefetcher(numbers)
    assert wait_until(lambda: numbers.taken >= 2)
    reading.close()


def test_an_error_is_raised_after_the_items_before_it() -> None:
    def breaking() -> Iterator[int]:
        yield 1
        yield 2
        raise LookupError("the third")

    items = iter(Prefetcher(breaking))
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(LookupError, match="the third"):
        next(items)


def test_an_error_before_the_first_item_is_raised() -> None:
    def failing() -> Iterator[int]:
        raise LookupError("no source")

    with pytest.raises(LookupError, match="no source"):
        next(iter(Prefetcher(failing)))


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_system_exit_in_the_thread_is_raised(kind: type[BaseException]) -> None:
    def ending() -> Iterator[int]:
        yield 1
        raise kind

    with pytest.raises(kind):
        list(Prefetcher(ending))


def test_close_closes_the_source_and_ends_the_thread() -> None:
    numbers = Counted()
    reading = Prefetcher(numbers)
    next(iter(reading))
    reading.close()
    assert numbers.closed.wait(2)
    reading._thread.join(2)
    assert not reading._thread.is_alive()
    assert numbers.taken < 10


def test_close_does_not_wait_for_a_slow_source() -> None:
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


def test_an_iteration_that_ran_out_of_time_gives_no_more_items() -> None:
    reading = Prefetcher(Counted())
    items = iter(reading)
    assert next(items) == 0
    reading.end_after(0)
    assert list(items) == []
    assert not reading.is_exhausted
    reading.close()


def test_an_iteration_does_not_wait_for_a_slow_item_after_its_time() -> None:
    thinking = threading.Event()

    def slow() -> Iterator[int]:
        yield 1
        thinking.wait(30)

    reading = Prefetcher(slow)
    items = iter(reading)
    assert next(items) == 1
    began_at = time.monotonic()
    reading.end_after(0.05)
    assert list(items) == []
    assert time.monotonic() - began_at < 10  # and not 30
    assert not reading.is_exhausted
    reading.close()
    thinking.set()


def test_an_iteration_with_time_left_reaches_the_end() -> None:
    reading = Prefetcher(Counted(10))
    reading.end_after(100)
    assert list(reading) == list(range(10))
    assert reading.is_exhausted


# Saying that it waits


def test_a_long_wait_for_an_item_is_said_while_it_lasts() -> None:
    thinking = threading.Event()
    said: list[float] = []

    def slow() -> Iterator[int]:
        thinking.wait(30)
        yield 1

    def say(seconds: float) -> None:
        said.append(seconds)
        thinking.set()

    assert list(Prefetcher(slow, on_wait=say, wait_seconds=0.05)) == [1]
    assert len(said) == 1
    assert said[0] >= 0.05


def test_nothing_is_said_where_items_come_in_time() -> None:
    said: list[float] = []
    assert list(Prefetcher(Counted(100), on_wait=said.append)) == list(range(100))
    assert said == []


def test_a_wait_that_is_said_ends_at_the_given_time_all_the_same() -> None:
    thinking = threading.Event()
    said: list[float] = []

    def slow() -> Iterator[int]:
        yield 1
        thinking.wait(30)

    reading = Prefetcher(slow, on_wait=said.append, wait_seconds=0.05)
    items = iter(reading)
    assert next(items) == 1
    reading.end_after(0.2)
    assert list(items) == []
    assert not reading.is_exhausted
    assert len(said) == 1  # the next one would come after a minute
    reading.close()
    thinking.set()
