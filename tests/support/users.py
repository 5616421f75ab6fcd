"""Customers with a page view each, and the profile and event that Iterable must get for each.

The expected profiles and events do not use code of the program. User n is the same in every test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta, timezone
from typing import Any

from sandbox.calls import CallRecord
from sandbox.iterable_api import IterableSandbox
from sandbox.project import Project

# A query with one more column, whose expression goes in the place of {}.
QUERY_WITH_SCORE = (
    "SELECT c.id, c.email, c.first_name, c.last_name, c.plan_type, c.candidate, {} AS score,"
    " p.page, p.device, p.location, p.event_time FROM customers c JOIN page_views p"
    " ON p.user_id = c.id WHERE p.event_time >= %(window_start)s ORDER BY c.id"
)

FIRST_VIEW_AT = datetime(2026, 1, 13, 14, 30, 45, tzinfo=timezone.utc)
# The views lie in the past of every test run to come, and far from 1970.
WINDOW = {"ENGAGEMENT_WINDOW_DAYS": "18000"}
_ROWS_A_STATEMENT = 1_000


def add_users(run_sql: Callable[[str], None], numbers: Iterable[int]) -> None:
    """Insert these customers and their views."""
    waiting = list(numbers)
    for start in range(0, len(waiting), _ROWS_A_STATEMENT):
        part = waiting[start : start + _ROWS_A_STATEMENT]
        customers = ", ".join(
            f"({n}, '{email_of(n)}', 'First{n}', 'Last{n}', 'pro', '{_candidate(n)}')" for n in part
        )
        views = ", ".join(
            f"({n}, '{_page(n)}', 'desktop', 'Chrome', 'City {n}, CA', '{_viewed_at(n):%F %T}')"
            for n in part
        )
        run_sql(
            "INSERT INTO customers (id, email, first_name, last_name, plan_type, candidate)"
            f" VALUES {customers}; INSERT INTO page_views"
            f" (user_id, page, device, browser, location, event_time) VALUES {views}"
        )


def add_user(
    run_sql: Callable[[str], None], number: int, email: str | None, *, first_name: str | None = "X"
) -> None:
    """Insert one customer with unusual values, and an ordinary view."""
    run_sql(
        "INSERT INTO customers (id, email, first_name, last_name, plan_type, candidate) VALUES"
        f" ({number}, {_quoted(email)}, {_quoted(first_name)}, NULL, 'pro', NULL);"
        " INSERT INTO page_views (user_id, page, device, browser, location, event_time) VALUES"
        f" ({number}, 'pricing', NULL, NULL, NULL, '{_viewed_at(number):%F %T}')"
    )


def email_of(n: int) -> str:
    return f"user{n}@example.com"


def profile_of(n: int) -> dict[str, Any]:
    """Return the profile of user n that Iterable must have."""
    return {
        "first_name": f"First{n}",
        "last_name": f"Last{n}",
        "plan_type": "pro",
        "recent_page_view": True,
        "candidate": _candidate(n),
    }


def event_of(n: int) -> dict[str, Any]:
    """Return the fields of user n's event that Iterable must have."""
    return {
        "page": _page(n),
        "browser": "desktop",
        "location": f"City {n}, CA",
        "timestamp": f"{_viewed_at(n):%F %T}",
        "candidate": _candidate(n),
    }


def sent_calls(iterable: IterableSandbox, *, after: int = 0) -> list[CallRecord]:
    """Return the calls without those for the field types, which precede a first delivery.

    `after` is the number of calls to leave out.
    """
    return [call for call in iterable.calls[after:] if call.endpoint != "users/getFields"]


def check_project(project: Project, numbers: Iterable[int]) -> None:
    """Check that Iterable has exactly these users, each with the right profile and one event."""
    expected = {email_of(n): n for n in numbers}
    assert set(project.users) == set(expected)
    wrong = {e for e, n in expected.items() if project.users[e].data_fields != profile_of(n)}
    assert not wrong
    assert sorted(str(event.email) for event in project.events.values()) == sorted(expected)
    for event in project.events.values():
        n = expected[str(event.email)]
        assert event.event_name == "page_view"
        assert event.data_fields == event_of(n)
        assert event.created_at == int(_viewed_at(n).timestamp())
    assert project.event_id_collision_count == 0


def _viewed_at(n: int) -> datetime:
    return FIRST_VIEW_AT + timedelta(seconds=n)


def _candidate(n: int) -> str:
    return "yes" if n % 2 else "no"


def _page(n: int) -> str:
    return "pricing" if n % 3 else "settings"


def _quoted(text: str | None) -> str:
    return "NULL" if text is None else "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
