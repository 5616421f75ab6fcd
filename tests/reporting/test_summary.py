"""The words on the console at the end of a run."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from records.outcomes import Failure, Outcome
from reporting.summary import summary_lines
from tests.support.run_summaries import COUNTS, HEAD, STARTED_AT, summary_of


def test_a_run_is_summed_up_with_what_failed_and_where_the_files_are() -> None:
    counts = {outcome: 1_000 * place for place, outcome in enumerate(Outcome)}
    summary = summary_of(
        counts=counts,
        api_calls=43_210,
        retries=1_234,
        elapsed_seconds=10.04,
    )
    failures = [
        Failure("users/update", "rejected", "BadParams", 1_500, 7),
        Failure("events/track", "unavailable", None, 1, "A-7"),
    ]
    assert summary_lines(summary, failures, [Path("/a/results.json"), Path("/a/b.html")]) == [
        "Run completed with failures",
        "",
        "  users                 21,000",
        "  successful                 0",
        "  partial failures       1,000",
        "  total failures         2,000",
        "  unchanged              3,000",
        "  invalid                4,000",
        "  duplicates             5,000",
        "  not attempted          6,000",
        "",
        "  43,210 API calls, 1,234 of them retries, in 10.0 s (1,494.0 users/s)",
        "",
        "  What failed, the commonest first:",
        "      1,500 x users/update: BadParams (for example user 7)",
        "          1 x events/track: unavailable (for example user A-7)",
        "",
        "  /a/results.json",
        "  /a/b.html",
        "  What is missing is tried again by the next run.",
    ]


def test_of_many_reasons_the_five_commonest_are_shown() -> None:
    failures = [Failure("row", "invalid", f"reason {n}", 9 - n, n) for n in range(8)]
    lines = summary_lines(summary_of(Outcome.INVALID), failures, [])
    assert [line for line in lines if " x row: " in line] == [
        f"          {9 - n} x row: reason {n} (for example user {n})" for n in range(5)
    ]


def test_a_run_where_all_went_well_speaks_of_no_failures() -> None:
    lines = summary_lines(summary_of(Outcome.SUCCESSFUL, Outcome.UNCHANGED), [], [])
    assert lines[0] == "Run completed"
    assert not [line for line in lines if "What" in line]


@pytest.mark.parametrize(
    "outcome", [Outcome.PARTIAL_FAILURE, Outcome.TOTAL_FAILURE, Outcome.NOT_ATTEMPTED]
)
def test_what_is_missing_is_promised_to_the_next_run(outcome: Outcome) -> None:
    lines = summary_lines(summary_of(outcome), [], [])
    assert lines[-1] == "  What is missing is tried again by the next run."


def test_an_invalid_row_alone_is_no_reason_to_run_again() -> None:
    assert summary_lines(summary_of(Outcome.INVALID), [], [])[-1] == ""


def test_a_dry_run_says_that_nothing_was_sent() -> None:
    lines = summary_lines(summary_of(Outcome.NOT_ATTEMPTED, dry_run=True), [], [])
    assert lines[0] == "Dry run completed"
    assert lines[-1] == "  Nothing was sent. Without --dry-run the run is real."


# Counts


@given(st.fixed_dictionaries(dict.fromkeys(Outcome, st.integers(0, 10**7))))
def test_the_counts_add_up_to_the_rows(counts: dict[Outcome, int]) -> None:
    head = summary_of(counts=counts).to_json()
    assert sum(head[name] for name in COUNTS) == head["total_users"] == sum(counts.values())
    assert [head[name] for name in COUNTS] == [counts[outcome] for outcome in Outcome]


@pytest.mark.parametrize("outcome", Outcome)
def test_a_run_with_failed_or_invalid_rows_says_so(outcome: Outcome) -> None:
    failed = outcome in (Outcome.PARTIAL_FAILURE, Outcome.TOTAL_FAILURE, Outcome.INVALID)
    assert summary_of(outcome).status == ("completed_with_failures" if failed else "completed")
    for status in ("aborted", "interrupted"):
        assert summary_of(outcome, status=status).status == status


def test_the_speed_counts_what_was_attempted() -> None:
    outcomes = [*[Outcome.SUCCESSFUL] * 5, *[Outcome.NOT_ATTEMPTED] * 5]
    assert summary_of(*outcomes).users_per_second == 2.0
    assert summary_of(*outcomes, elapsed_seconds=0.0).duration_seconds == 0.001


@pytest.mark.parametrize("step", [timedelta(hours=-1), timedelta(days=365)])
def test_a_clock_that_is_set_during_a_run_changes_no_duration_and_no_speed(step: timedelta) -> None:
    """Set back by an hour, it made 0.0 s and 40,000 users/s of a run of five seconds."""
    summary = summary_of(*[Outcome.SUCCESSFUL] * 5, finished_at=STARTED_AT + step)
    assert (summary.duration_seconds, summary.users_per_second) == (2.5, 2.0)
    assert datetime.fromisoformat(summary.finished_at) == STARTED_AT + step  # as the log has it


def test_the_head_alone_is_what_json_prints() -> None:
    summary = summary_of(Outcome.SUCCESSFUL)
    assert list(orjson.loads(summary.to_text())) == HEAD
    assert orjson.loads(summary.to_text()) == summary.to_json()
