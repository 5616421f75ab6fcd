"""Dry run: what a run would send, how long that takes, and the exact bodies."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from records.rows import PendingRow
from sandbox.iterable_api import IterableSandbox
from sync.dry_run import FIELD_TYPES_REQUEST, plan_lines, request_bodies
from sync.progress import pace_at_the_limits
from tests.config.test_settings import settings_with
from tests.conftest import SourceDatabase
from tests.support.runs import Runs, counts_of
from tests.support.users import add_user, add_users

BULK, SLOW = {"SYNC_MODE": "bulk"}, {"USERS_UPDATE_RPS": "0.5"}


@pytest.mark.parametrize(
    ("profiles", "events", "settings", "counts", "pace"),
    [
        (8_360, 8_360, {}, "8,360 profiles and 8,360 events", "17 s at 500 requests/s"),
        (1, 0, {}, "1 profile and 0 events", "1 s at 500 requests/s"),
        (0, 1, {}, "0 profiles and 1 event", "1 s at 2,000 requests/s"),
        (100, 8_000, {}, "100 profiles and 8,000 events", "4 s at 2,000 requests/s"),
        (60_000, 0, {}, "60,000 profiles and 0 events", "2 min at 500 requests/s"),
        (10**7, 0, {}, "10,000,000 profiles and 0 events", "5.6 h at 500 requests/s"),
        (60_000, 60_000, BULK, "60,000 profiles and 60,000 events", "12 s at 5 requests/s"),
        (0, 60_000, BULK, "0 profiles and 60,000 events", "6 s at 10 requests/s"),
        (90, 90, SLOW, "90 profiles and 90 events", "3 min at 0.5 requests/s"),
    ],
)
def test_the_plan_is_what_a_run_would_send_and_how_long_it_takes(
    profiles: int, events: int, settings: dict[str, str], counts: str, pace: str
) -> None:
    lines = plan_lines(settings_with(**settings), profiles, events)
    assert lines == [f"{counts} would be sent, about {pace}"]


def test_without_anything_to_send_the_plan_says_so() -> None:
    assert plan_lines(settings_with(), 0, 0) == ["nothing would be sent"]


def test_the_plan_says_how_many_users_would_be_moved() -> None:
    moved, others = plan_lines(settings_with(), 0, 0, moves=1)
    assert moved == (
        "1 user would be moved to a new e-mail address, and nothing else would be sent"
    )
    assert "not counted" in others
    (moved, _others) = plan_lines(settings_with(), 2, 0, moves=3)
    assert moved.startswith("3 users would be moved to a new e-mail address, and 2 profiles and 0")


def test_the_pace_is_that_of_the_slower_endpoint() -> None:
    assert pace_at_the_limits(settings_with(), 1_000, 1_000) == (2.0, 500.0)
    assert pace_at_the_limits(settings_with(), 100, 4_000) == (2.0, 2_000.0)
    assert pace_at_the_limits(settings_with(**BULK), 500, 500) == (0.1, 5.0)
    assert pace_at_the_limits(settings_with(**BULK, BULK_BATCH_SIZE="100"), 500, 0) == (1.0, 5.0)
    assert pace_at_the_limits(settings_with(), 0, 0).seconds == 0.0


@pytest.fixture
def runs(embedded: SourceDatabase, iterable: IterableSandbox, tmp_path: Path) -> Runs:
    add_users(embedded.run_sql, [1, 2, 3])
    add_user(embedded.run_sql, 4, "not-an-email")
    return Runs.between(tmp_path, embedded, iterable)


def test_the_headline_says_what_a_run_would_do(
    runs: Runs, embedded: SourceDatabase, iterable: IterableSandbox
) -> None:
    runs.settings |= {"USERS_UPDATE_RPS": "0.1"}
    headline, *lines = runs.run(dry_run=True).lines()
    assert headline == (
        "Dry run completed with failures: 3 profiles and 3 events would be sent, about 30 s at "
        "0.1 requests/s"
    )
    assert lines[:2] == [FIELD_TYPES_REQUEST, ""]
    assert iterable.calls == []
    runs.settings |= {"USERS_UPDATE_RPS": "500"}
    assert runs.run().lines()[0] == "Run completed with failures"
    embedded.run_sql("UPDATE customers SET first_name = 'New' WHERE id = 2")
    assert runs.run(dry_run=True).lines()[0] == (
        "Dry run completed with failures: 1 profile and 0 events would be sent, about 1 s at "
        "500 requests/s"
    )
    assert "3 profiles and 3 events" in runs.run(dry_run=True, full_refresh=True).lines()[0]
    embedded.run_sql("DELETE FROM page_views WHERE user_id IN (2, 4)")
    assert runs.run(dry_run=True).lines()[0] == "Dry run completed: nothing would be sent"


def test_the_headline_says_what_a_run_would_ask_iterable_first(
    runs: Runs, iterable: IterableSandbox
) -> None:
    runs.run()
    calls = len(iterable.calls)
    runs.settings["ITERABLE_API_KEY"] = "another-key-0123456789abcdef"
    lines = runs.run(dry_run=True).lines()
    assert lines[1:3] == [
        "  A run first reads 3 users back from Iterable, because ITERABLE_API_KEY is new.",
        "",
    ]
    assert len(iterable.calls) == calls


@pytest.mark.parametrize("mode", ["per-user", "bulk"])
def test_the_printed_bodies_are_the_bytes_that_are_sent(
    runs: Runs, iterable: IterableSandbox, mode: str
) -> None:
    """In bulk mode the payloads of single calls were printed."""
    runs.settings |= {"SYNC_MODE": mode, "BULK_BATCH_SIZE": "2"}
    runs.run(dry_run=True, limit=4)
    assert counts_of(runs.run()) == {"successful": 3, "invalid": 1}
    printed = [(endpoint, orjson.loads(body)) for endpoint, body in runs.payloads]
    sent = [(call.endpoint, call.body) for call in iterable.calls if call.body is not None]
    assert sorted(printed, key=str) == sorted(sent, key=str)
    assert len(sent) == (6 if mode == "per-user" else 4)


def test_a_batch_has_only_the_requests_that_are_needed() -> None:
    rows = [
        PendingRow(0, 1, "a@example.com", b'{"p":1}', None),
        PendingRow(1, 2, "b@example.com", b'{"p":2}', b'{"e":2}'),
        PendingRow(2, 3, "c@example.com", None, b'{"e":3}'),
    ]
    assert list(request_bodies(settings_with(**BULK), iter(rows))) == [
        ("users/bulkUpdate", b'{"users":[{"p":1},{"p":2}]}'),
        ("events/trackBulk", b'{"events":[{"e":2},{"e":3}]}'),
    ]
    assert list(request_bodies(settings_with(**BULK), iter(rows[:1]))) == [
        ("users/bulkUpdate", b'{"users":[{"p":1}]}')
    ]
    assert [endpoint for endpoint, _body in request_bodies(settings_with(), iter(rows))] == [
        *("users/update", "users/update", "events/track", "events/track")
    ]
