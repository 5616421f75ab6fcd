"""Waits that Iterable requests: a `Retry-After` header, or `rateLimitReset` in the body."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iterable_api.responses import requested_wait_seconds

NOW = datetime(2026, 1, 13, 14, 30, 45, tzinfo=timezone.utc)


def reset(seconds: object) -> dict[str, object]:
    return {"code": "RateLimitExceeded", "params": {"rateLimitReset": seconds}}


@pytest.mark.parametrize(
    ("retry_after", "body", "seconds"),
    [
        (None, None, None),
        ("", {}, None),
        ("7", None, 7.0),
        (" 0.5 ", None, 0.5),
        ("0", None, 0.0),
        ("Tue, 13 Jan 2026 14:31:00 GMT", None, 15.0),
        ("Tue, 13 Jan 2026 14:30:00 GMT", None, 0.0),  # past
        ("Tue, 13 Jan 2026 15:31:00 +0100", None, 15.0),
        ("Tue, 13 Jan 2026 14:31:00 -0000", None, 15.0),
        ("Tuesday, 13-Jan-26 14:31:00 GMT", None, 15.0),
        (None, reset(3), 3.0),
        (None, reset(0.25), 0.25),
        (None, reset(0), 0.0),
        ("2", reset(3), 3.0),
        ("4", reset(3), 4.0),
        ("soon", reset(3), 3.0),
    ],
)
def test_the_longer_of_the_two_requested_waits_counts(
    retry_after: str | None, body: object, seconds: float | None
) -> None:
    assert requested_wait_seconds(retry_after, body, NOW) == seconds


@pytest.mark.parametrize(
    "retry_after",
    ["soon", "-0.5", "-3", "nan", "inf", "1e999", "12:00", "32 Foo 2026", "\x00", "١٢:"],
)
def test_an_invalid_retry_after_is_ignored(retry_after: str) -> None:
    assert requested_wait_seconds(retry_after, None, NOW) is None


@pytest.mark.parametrize(
    "seconds", [-1, None, "3", True, [], {}, float("nan"), float("inf"), 10**400, -(10**400)]
)
def test_an_invalid_reset_is_ignored(seconds: object) -> None:
    assert requested_wait_seconds(None, reset(seconds), NOW) is None


@pytest.mark.parametrize("body", [[], "x", 7, {"params": None}, {"params": []}, {"params": "x"}])
def test_a_body_without_params_requests_no_wait(body: object) -> None:
    assert requested_wait_seconds(None, body, NOW) is None


@given(st.datetimes(min_value=datetime(1970, 1, 1), timezones=st.just(timezone.utc)))  # noqa: DTZ001
def test_a_date_requests_a_wait_until_then(moment: datetime) -> None:
    header = f"{moment:%a, %d %b %Y %H:%M:%S} GMT"
    wait = requested_wait_seconds(header, None, NOW)
    assert wait == max(0.0, (moment.replace(microsecond=0) - NOW) / timedelta(seconds=1))


def test_a_date_is_compared_with_the_current_time() -> None:
    assert requested_wait_seconds("Tue, 13 Jan 2026 14:31:00 GMT", None) == 0.0
    wait = requested_wait_seconds("Tue, 13 Jan 2999 14:31:00 GMT", None)
    assert wait is not None
    assert wait > 900 * 365 * 86_400
