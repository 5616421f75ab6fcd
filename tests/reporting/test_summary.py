"""The summary of a run: its counts, its status, and the lines for the terminal."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from records.outcomes import CallResult, Outcome, Verdict
from records.rows import Failure, RowState, SettledRow
from reporting.summary import RunTally, Sent, failure_line, summary_lines
from tests.support.run_summaries import COUNTS, HEAD, STARTED_AT, STATE_OF, summary_of


def test_the_summary_shows_counts_failures_by_reason_and_the_files() -> None:
    counts = {outcome: 1_000 * place for place, outcome in enumerate(Outcome)}
    summary = summary_of(
        counts=counts,
        api_calls=43_210,
        retries=1_234,
        elapsed_seconds=10.04,
        users_sent=3_000,
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
        "  43,210 API calls (1,234 retries) in 10.0 s (1,500.0 users/s)",
        "",
        "  Failures by reason:",
        "      1,500 x users/update: BadParams (for example user 7)",
        "          1 x events/track: unavailable (for example user A-7)",
        "",
        "  /a/results.json",
        "  /a/b.html",
        "  The next run retries what did not get through.",
        "  What Iterable rejected is sent again when it changes, or after REJECTED_RETRY_HOURS.",
        "  Invalid rows are skipped until they are corrected in the database.",
    ]


@pytest.mark.parametrize(
    ("api_calls", "retries", "words"),
    [
        (0, 0, "0 API calls in 2.5 s"),
        (1, 0, "1 API call in 2.5 s"),
        (45, 1, "45 API calls (1 retry) in 2.5 s"),
        (1_000, 20, "1,000 API calls (20 retries) in 2.5 s"),
    ],
)
def test_api_calls_and_retries_are_counted_in_words(
    api_calls: int, retries: int, words: str
) -> None:
    lines = summary_lines(summary_of(api_calls=api_calls, retries=retries), [], [])
    assert f"  {words} (0.0 users/s)" in lines


def test_only_the_five_most_frequent_reasons_are_shown() -> None:
    failures = [Failure("row", "invalid", f"reason {n}", 9 - n, n) for n in range(8)]
    lines = summary_lines(summary_of(Outcome.INVALID), failures, [])
    assert [line for line in lines if " x row: " in line] == [
        f"          {9 - n} x row: reason {n} (for example user {n})" for n in range(5)
    ]


def test_a_failure_names_the_field_that_iterable_names() -> None:
    failure = Failure(
        "users/update", "rejected", "RequestFieldsTypesMismatched", 2, 7, "signupDate"
    )
    assert failure_line(failure) == (
        "          2 x users/update: RequestFieldsTypesMismatched, field signupDate"
        " (for example user 7)"
    )


def test_a_failure_of_rows_without_ids_has_no_example() -> None:
    failure = Failure("row", "invalid", "no id", 3, None)
    assert failure_line(failure) == "          3 x row: no id"


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"validationErrors": {"signupDate": {"expectedType": "date"}}}, "signupDate"),
        ({"obj.users[1].preferUserId": "Boolean value expected"}, "preferUserId"),
        ({"obj.dataFields.age": "x"}, "age"),
        ({"validationErrors": {}}, None),
        ({"id": "page-view-1"}, None),
        ({}, None),
        (None, None),
        ("text", None),
        ([1], None),
    ],
)
def test_the_tally_takes_the_first_field_that_is_named_for_a_reason(
    params: object, field: str | None
) -> None:
    tally = RunTally()
    state = STATE_OF[Outcome.TOTAL_FAILURE]._replace(update="rejected", event=None)
    for number, params_of_row in ((7, params), (8, {"validationErrors": {"later": {}}})):
        response = {"code": "RequestFieldsTypesMismatched", "params": params_of_row}
        result = {"attempts": 1, "response": response}
        text = orjson.dumps(result).decode()
        tally.add([SettledRow(state, number, number, "a@example.com", None, text, None, 1.0)])
    assert tally.failures() == [
        Failure("users/update", "rejected", "RequestFieldsTypesMismatched", 2, 7, field or "later")
    ]


def test_a_run_without_failures_mentions_none() -> None:
    lines = summary_lines(summary_of(Outcome.SUCCESSFUL, Outcome.UNCHANGED), [], [])
    assert lines[0] == "Run completed"
    assert not [line for line in lines if "Failures" in line]


RETRIES = "  The next run retries what did not get through."
INVALID = "  Invalid rows are skipped until they are corrected in the database."
REJECTED = "  What Iterable rejected is sent again when it changes, or after REJECTED_RETRY_HOURS."


@pytest.mark.parametrize(
    ("verdict", "outcome", "expected"),
    [
        ("unavailable", Outcome.PARTIAL_FAILURE, [RETRIES]),
        ("refused", Outcome.TOTAL_FAILURE, [RETRIES]),
        ("rejected", Outcome.TOTAL_FAILURE, [REJECTED]),
        ("rejected", Outcome.NOT_ATTEMPTED, [RETRIES, REJECTED]),
        ("invalid", Outcome.INVALID, []),
    ],
)
def test_the_summary_says_what_is_sent_again_and_when(
    verdict: str, outcome: Outcome, expected: list[str]
) -> None:
    lines = summary_lines(summary_of(outcome), [Failure("row", verdict, None, 1, 1)], [])
    assert [line for line in lines if line in (RETRIES, REJECTED)] == expected


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((0, 0, 0), []),
        ((0, 2, 0), ["  2 failed (0 new)"]),
        (
            (1_200, 34, 1),
            ["  1,234 failed (1,200 new)", "  1 failure of an earlier run is resolved"],
        ),
        ((0, 0, 2_000), ["  2,000 failures of earlier runs are resolved"]),
    ],
)
def test_the_summary_says_how_many_failures_are_new_and_resolved(
    counts: tuple[int, int, int], expected: list[str]
) -> None:
    new, known, resolved = counts
    summary = summary_of(
        *([Outcome.INVALID] * (new + known)),
        new_failures=new,
        known_failures=known,
        resolved_failures=resolved,
    )
    lines = summary_lines(summary, [], [])
    assert [line for line in lines if "failed (" in line or "resolved" in line] == expected
    assert summary.to_json()["failures"] == {"new": new, "known": known, "resolved": resolved}


def test_an_invalid_row_is_not_announced_as_retried() -> None:
    assert summary_lines(summary_of(Outcome.INVALID), [], [])[-2:] == ["", INVALID]


def test_a_run_that_a_guard_held_back_promised_that_the_next_one_sends_its_rows() -> None:
    summary = summary_of(Outcome.NOT_ATTEMPTED, status="aborted")
    assert summary_lines(summary, [], [])[-1] == RETRIES
    assert summary_lines(summary, [], [], is_held_back=True)[-1] == "  Nothing was sent."


def test_a_dry_run_says_that_nothing_was_sent() -> None:
    lines = summary_lines(summary_of(Outcome.NOT_ATTEMPTED, dry_run=True), [], [])
    assert lines[0] == "Dry run completed"
    assert lines[-1] == "  Nothing was sent. Run without --dry-run to send."


# Counts


@given(st.fixed_dictionaries(dict.fromkeys(Outcome, st.integers(0, 10**7))))
def test_the_counts_add_up_to_the_rows(counts: dict[Outcome, int]) -> None:
    head = summary_of(counts=counts).to_json()
    assert sum(head[name] for name in COUNTS) == head["total_users"] == sum(counts.values())
    assert [head[name] for name in COUNTS] == [counts[outcome] for outcome in Outcome]


@pytest.mark.parametrize("outcome", Outcome)
def test_only_a_run_that_got_every_row_through_is_completed(outcome: Outcome) -> None:
    through = outcome in (Outcome.SUCCESSFUL, Outcome.UNCHANGED, Outcome.DUPLICATE)
    assert summary_of(outcome).status == ("completed" if through else "completed_with_failures")
    for status in ("aborted", "interrupted"):
        assert summary_of(outcome, status=status).status == status


def test_a_dry_run_is_completed_though_it_attempts_no_row() -> None:
    assert summary_of(Outcome.NOT_ATTEMPTED, dry_run=True).status == "completed"


def test_users_per_second_are_those_sent_by_the_time_of_sending() -> None:
    """A run that read a million unchanged rows and sent ten had 50,000 users/s, at 500 allowed."""
    outcomes = [*[Outcome.SUCCESSFUL] * 5, *[Outcome.UNCHANGED] * 90, *[Outcome.NOT_ATTEMPTED] * 5]
    assert summary_of(*outcomes).users_per_second == 2.5
    assert summary_of(*outcomes, elapsed_seconds=0.0).duration_seconds == 0.001
    assert summary_of(Outcome.UNCHANGED, sending_seconds=0.0).users_per_second == 0.0


def tally_of(*rows: SettledRow) -> RunTally:
    tally = RunTally()
    tally.add(rows)
    return tally


def settled(update: str | None, event: str | None, attempts: int = 1) -> SettledRow:
    def result(verdict: str | None) -> str | None:
        if verdict is None:
            return None
        call = CallResult(Verdict(verdict), 400, "Code", "", attempts=attempts)
        return orjson.dumps(call.to_json()).decode()

    state = RowState(None, False, False, update, event)
    return SettledRow(state, 0, 7, "a@example.com", None, result(update), result(event), 1.0)


def test_a_user_is_counted_as_sent_once_for_an_attempt_of_either_request() -> None:
    tally = tally_of(
        settled("delivered", "delivered"),
        settled("delivered", "rejected"),
        settled("rejected", None),
        settled(None, "unavailable"),
        settled(None, "delivered"),
        settled(None, None),
        settled("rejected", None, attempts=0),  # an earlier run did it
    )
    assert tally.sent == Sent(users=5, profiles=3, events=4)


def test_the_summary_names_the_sync() -> None:
    assert summary_lines(summary_of(sync="shop-eu"), [], [])[0] == "Run of shop-eu completed"
    dry_run = summary_of(Outcome.INVALID, sync="shop-eu", dry_run=True)
    assert summary_lines(dry_run, [], [])[0] == "Dry run of shop-eu completed with failures"
    assert summary_of(sync="shop-eu").to_json()["sync"] == "shop-eu"
    assert summary_of().to_json()["sync"] is None


@pytest.mark.parametrize("step", [timedelta(hours=-1), timedelta(days=365)])
def test_a_clock_set_during_a_run_changes_neither_duration_nor_rate(step: timedelta) -> None:
    """Set back by an hour, it made 0.0 s and 40,000 users/s of a run of five seconds."""
    summary = summary_of(*[Outcome.SUCCESSFUL] * 5, finished_at=STARTED_AT + step)
    assert (summary.duration_seconds, summary.users_per_second) == (2.5, 2.5)
    assert datetime.fromisoformat(summary.finished_at) == STARTED_AT + step  # as the log has it


def test_json_prints_the_head_of_the_results_file() -> None:
    summary = summary_of(Outcome.SUCCESSFUL)
    assert list(orjson.loads(summary.to_text())) == HEAD
    assert orjson.loads(summary.to_text()) == summary.to_json()
