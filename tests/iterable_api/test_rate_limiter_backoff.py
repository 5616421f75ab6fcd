"""Exponential backoff with full jitter: the wait before a retry."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iterable_api.rate_limiter import backoff_seconds


@pytest.mark.parametrize(
    ("attempt", "most"), [(1, 0.5), (2, 1.0), (3, 2.0), (6, 16.0), (7, 30.0), (8, 30.0), (99, 30.0)]
)
def test_the_backoff_doubles_from_half_a_second_to_thirty(attempt: int, most: float) -> None:
    assert backoff_seconds(attempt, draw=lambda: 1.0) == most
    assert backoff_seconds(attempt, draw=lambda: 0.5) == most / 2
    assert backoff_seconds(attempt, draw=lambda: 0.0) == 0.0


def test_every_backoff_has_its_own_jitter() -> None:
    assert len({backoff_seconds(5) for _ in range(20)}) > 15


@pytest.mark.parametrize(
    ("named", "seconds"), [(None, 1.0), (0.0, 1.0), (0.5, 1.0), (7.0, 7.0), (60.0, 60.0)]
)
def test_the_wait_that_the_server_requests_is_a_minimum(
    named: float | None, seconds: float
) -> None:
    assert backoff_seconds(2, named, draw=lambda: 1.0) == seconds


def test_a_requested_wait_is_capped_at_a_minute() -> None:
    assert backoff_seconds(1, 86_400.0, draw=lambda: 1.0) == 60.0


@given(st.integers(1, 1_000), st.none() | st.floats(0, 1e9), st.floats(0, 1))
def test_the_backoff_is_between_zero_and_a_minute(
    attempt: int, named: float | None, drawn: float
) -> None:
    seconds = backoff_seconds(attempt, named, draw=lambda: drawn)
    assert 0.0 <= seconds <= 60.0
    assert seconds >= min(named or 0.0, 60.0)
