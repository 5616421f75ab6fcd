"""When users who left are held back; pure."""

from __future__ import annotations

import pytest

from sync.leavers import LeaverReport, why_held_back


@pytest.mark.parametrize(
    ("leavers", "members", "rows", "is_held_back"),
    [
        (0, 100, 0, False),
        (1, 1, 0, True),  # the query returned nothing
        (20, 20, 1, False),  # however large their share
        (21, 70, 49, False),  # 30 %
        (21, 69, 48, True),
        (300, 1_000, 700, False),
        (301, 1_000, 699, True),
        (2_000, 200_000, 198_000, False),
    ],
)
def test_more_than_thirty_percent_and_more_than_twenty_are_held_back(
    leavers: int, members: int, rows: int, is_held_back: bool
) -> None:
    assert (why_held_back(leavers, members, rows) is not None) == is_held_back


def test_the_summary_says_what_became_of_them() -> None:
    assert LeaverReport().lines() == []
    report = LeaverReport(found=9, cleared=4, gone=2, failed=1)
    assert report.lines() == [
        "Users who left: 4 of 9 cleared, 2 no longer in Iterable, 1 failed, 2 left to the next run"
    ]
    held = LeaverReport(found=9, held_back=9, why_held_back="the query returned no rows")
    assert held.lines()[1] == "If that is right, run once with --ignore-guards."
    assert held.has_problems
