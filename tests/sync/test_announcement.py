"""What a run logs before it sends anything."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from state.outbox import FillSummary
from sync.announcement import announcements
from tests.config.test_settings import settings_with

INFO, WARNING = logging.INFO, logging.WARNING


def lines_of(filled: FillSummary, *, is_dry_run: bool = False, **settings: str) -> list[Any]:
    return list(announcements(settings_with(**settings), filled, "r1", is_dry_run=is_dry_run))


@pytest.mark.parametrize(
    ("settings", "is_dry_run", "words"),
    [
        ({}, False, "per-user mode, run r1"),
        ({"SYNC_NAME": "shop-eu"}, False, "per-user mode, shop-eu, run r1"),
        ({"SYNC_MODE": "bulk"}, True, "dry run, run r1"),
    ],
)
def test_the_first_line_names_rows_mode_sync_and_run(
    settings: dict[str, str], is_dry_run: bool, words: str
) -> None:
    lines = lines_of(FillSummary(12_000, 7, 0), is_dry_run=is_dry_run, **settings)
    assert lines == [(INFO, f"12,000 rows read, 7 to send ({words})")]


def test_everything_unusual_has_a_line_of_its_own() -> None:
    filled = FillSummary(
        10,
        1,
        in_the_future=2,
        changed_by_settings=3,
        kept_events=4_000,
        held_back=5,
        changed_settings=("USER_FIELDS", "DB_TIMEZONE"),
    )
    assert lines_of(filled)[1:] == [
        (
            WARNING,
            "USER_FIELDS and DB_TIMEZONE changed since the last run. Profiles that became "
            "different and are sent again: 3",
        ),
        (
            INFO,
            "DB_TIMEZONE changed since the last run. Delivered events are not sent again for that, "
            "except with --full-refresh. Events that are different now: 4,000",
        ),
        (
            INFO,
            "Rows that are not sent again, because Iterable rejected the same content less than 24 "
            "hours ago (REJECTED_RETRY_HOURS): 5",
        ),
        (WARNING, "2 events lie in the future: is DB_TIMEZONE=UTC right?"),
    ]


def test_a_query_that_returns_nothing_is_a_warning() -> None:
    assert lines_of(FillSummary(0, 0, 0), ENGAGEMENT_WINDOW_DAYS="0.5")[1:] == [
        (
            WARNING,
            "The query returned nothing for the last 0.5 days: check the plan and the pages in "
            "pro_users_recent_engagement.sql, and ENGAGEMENT_WINDOW_DAYS.",
        )
    ]
