"""Users of a benchmark: N pro customers with one page view each, as rows or as a query.

Everything is derived from the customer's number, so that all runs have the same rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

Row = tuple[int | str, ...]

_FIRST_NAMES = ("Sarah", "Michael", "Zoë", "Siobhán", "小龙", "Amélie", "Noah", "Fatima")
_LAST_NAMES = ("Johnson", "Chen", "Müller", "O'Brien", "García", "Okafor", "Petrova")
_LOCATIONS = ("San Francisco, CA", "Austin, TX", "Köln, DE", "上海", "São Paulo, BR")
_SPREAD_SECONDS = 5 * 86_400  # five of the seven days in the query's window


def email_of(number: int) -> str:
    """Return the e-mail of a customer; its length is typical."""
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
    """Yield the rows of `page_views`, one per customer; `now` is an aware time in UTC."""
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


def generating_query(count: int, changed_every: int = 0, now: datetime | None = None) -> str:
    """Return a query for `QUERY_FILE` that generates the same users (MariaDB's `seq_` tables).

    Every `changed_every`th has another first name. It uses MOD, as the driver interprets `%`.
    """
    midnight = (now or datetime.now(timezone.utc)).replace(hour=0, minute=0, second=0)
    return f"""
SELECT
    seq AS id,
    CONCAT('customer.', LPAD(seq, 7, '0'), '@example-mail.com') AS email,
    CONCAT({_pick(_FIRST_NAMES)}, IF(MOD(seq, {changed_every or count + 1}) = 0, ' II', ''))
        AS first_name,
    {_pick(_LAST_NAMES)} AS last_name,
    'pro' AS plan_type,
    IF(MOD(seq, 3), 'yes', 'no') AS candidate,
    IF(MOD(seq, 4), 'pricing', 'settings') AS page,
    IF(MOD(seq, 5), 'desktop', 'mobile') AS device,
    IF(MOD(seq, 2), 'Chrome', 'Safari') AS browser,
    {_pick(_LOCATIONS)} AS location,
    TIMESTAMP'{midnight:%Y-%m-%d 00:00:00}' - INTERVAL MOD(seq * 7919, {_SPREAD_SECONDS}) SECOND
        AS event_time
FROM seq_1_to_{count}
WHERE %(window_start)s IS NOT NULL
"""  # noqa: S608 - numbers and our own names


def _pick(names: tuple[str, ...]) -> str:
    quoted = ", ".join("'" + name.replace("'", "''") + "'" for name in names)
    return f"ELT(MOD(seq, {len(names)}) + 1, {quoted})"
