"""The people that a benchmark syncs: N pro customers with one qualifying page view each.

Owns their columns, in the order of `sql/schema.sql`, and the same people as a query that makes
them up while it is read. Everything follows from a customer's number, so that two runs meet the
same rows. Refuses to know where they are stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

Row = tuple[int | str, ...]

_FIRST_NAMES = ("Sarah", "Michael", "Zoë", "Siobhán", "小龙", "Amélie", "Noah", "Fatima")
_LAST_NAMES = ("Johnson", "Chen", "Müller", "O'Brien", "García", "Okafor", "Petrova")
_LOCATIONS = ("San Francisco, CA", "Austin, TX", "Köln, DE", "上海", "São Paulo, BR")
_SPREAD_SECONDS = 5 * 86_400  # the views lie in five of the window's seven days


def email_of(number: int) -> str:
    """Return the address of a customer: about as long as addresses are."""
    return f"customer.{number:07}@example-mail.com"


def customers(count: int) -> Iterator[Row]:
    """Yield the rows of `customers`."""
    for number in range(1, count + 1):
        yield (
            number,
            email_of(number),
            _FIRST_NAMES[number % len(_FIRST_NAMES)],
            _LAST_NAMES[number % len(_LAST_NAMES)],
            "pro",
            "yes" if number % 3 else "no",
        )


def page_views(count: int, now: datetime | None = None) -> Iterator[Row]:
    """Yield the rows of `page_views`, one a customer; `now` is aware, in UTC."""
    latest = (now or datetime.now(timezone.utc)).replace(microsecond=0, tzinfo=None)
    latest -= timedelta(hours=1)
    for number in range(1, count + 1):
        seen_at = latest - timedelta(seconds=number * 7_919 % _SPREAD_SECONDS)
        yield (
            number,
            number,
            "settings" if number % 4 == 0 else "pricing",
            "desktop" if number % 5 else "mobile",
            "Chrome" if number % 2 else "Safari",
            _LOCATIONS[number % len(_LOCATIONS)],
            seen_at.isoformat(" "),
        )
