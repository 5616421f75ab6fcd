"""Verdicts of calls, outcomes of rows, and their entries in the results file."""

from __future__ import annotations

from datetime import datetime, timezone

import orjson
import pytest

from records.outcomes import (
    CallResult,
    Outcome,
    Verdict,
    event_may_follow,
    iso_time,
    row_entry,
    row_outcome,
)

DELIVERED, REJECTED = Verdict.DELIVERED, Verdict.REJECTED
UNAVAILABLE, REFUSED = Verdict.UNAVAILABLE, Verdict.REFUSED
NO_CALL = None
FAILED = (REJECTED, UNAVAILABLE, REFUSED)


def result(verdict: Verdict, code: str | None = None, status: int | None = 400) -> CallResult:
    return CallResult(verdict, status, code, "a message")


# Names


def test_verdicts_and_outcomes_have_the_documented_names() -> None:
    assert [verdict.value for verdict in Verdict] == [
        *("delivered", "rejected", "unavailable", "refused"),
    ]
    assert [outcome.value for outcome in Outcome] == [
        *("successful", "partial_failure", "total_failure", "unchanged", "invalid"),
        *("duplicate", "not_attempted"),
    ]


# A row's outcome

THIS_RUN_ALONE = [
    (NO_CALL, NO_CALL, Outcome.NOT_ATTEMPTED),
    (DELIVERED, DELIVERED, Outcome.SUCCESSFUL),
    *((DELIVERED, failed, Outcome.PARTIAL_FAILURE) for failed in FAILED),
    *((failed, DELIVERED, Outcome.PARTIAL_FAILURE) for failed in FAILED),
    *((one, other, Outcome.TOTAL_FAILURE) for one in FAILED for other in FAILED),
    # Stopped between the two calls.
    (DELIVERED, NO_CALL, Outcome.PARTIAL_FAILURE),
    *((failed, NO_CALL, Outcome.TOTAL_FAILURE) for failed in FAILED),
]


@pytest.mark.parametrize(("update", "event", "expected"), THIS_RUN_ALONE)
def test_the_outcome_of_a_row_with_nothing_delivered_before(
    update: Verdict | None, event: Verdict | None, expected: Outcome
) -> None:
    assert row_outcome(update, event) is expected


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (DELIVERED, Outcome.SUCCESSFUL),
        *((failed, Outcome.PARTIAL_FAILURE) for failed in FAILED),
        (NO_CALL, Outcome.NOT_ATTEMPTED),
    ],
)
def test_the_outcome_of_a_row_whose_profile_was_delivered_before(
    event: Verdict | None, expected: Outcome
) -> None:
    assert row_outcome(NO_CALL, event, profile_in_place=True) is expected


@pytest.mark.parametrize(
    ("update", "expected"),
    [
        (DELIVERED, Outcome.SUCCESSFUL),
        *((failed, Outcome.PARTIAL_FAILURE) for failed in FAILED),
        (NO_CALL, Outcome.NOT_ATTEMPTED),
    ],
)
def test_the_outcome_of_a_row_whose_event_was_delivered_before(
    update: Verdict | None, expected: Outcome
) -> None:
    assert row_outcome(update, NO_CALL, event_in_place=True) is expected


# Whether the event follows


@pytest.mark.parametrize("verdict", [DELIVERED, REJECTED, UNAVAILABLE])
def test_the_event_follows_whatever_the_verdict_on_the_update(verdict: Verdict) -> None:
    assert event_may_follow(result(verdict, "RequestFieldsTypesMismatched"))
    assert event_may_follow(result(verdict, None))


def test_no_event_follows_a_refusal() -> None:
    assert not event_may_follow(result(REFUSED, "BadApiKey", 401))


@pytest.mark.parametrize(
    "code",
    [
        *("InvalidEmailAddressError", "ForgottenUserError"),
        *("failedUpdates.invalidEmails", "failedUpdates.forgottenEmails"),
    ],
)
def test_no_event_follows_if_the_user_cannot_be_reached(code: str) -> None:
    assert not event_may_follow(result(REJECTED, code))


@pytest.mark.parametrize(
    "code",
    ["failedUpdates.invalidDataEmails", "failedUpdates.conflictEmails", "NotNamed", "BadParams"],
)
def test_the_event_follows_a_profile_that_was_rejected_for_another_reason(code: str) -> None:
    assert event_may_follow(result(REJECTED, code))


# The results file


def test_a_call_is_written_with_iterables_response() -> None:
    call = CallResult(REJECTED, 400, "BadParams", "no", {"a": 1}, attempts=2, elapsed_seconds=0.5)
    assert call.to_json() == {
        "success": False,
        "verdict": "rejected",
        "http_status": 400,
        "attempts": 2,
        "request_id": None,
        "response": {"code": "BadParams", "msg": "no", "params": {"a": 1}},
    }
    assert not call.delivered


def test_only_a_delivered_call_is_a_success() -> None:
    assert [result(verdict).to_json()["success"] for verdict in (DELIVERED, *FAILED)] == [
        True,
        False,
        False,
        False,
    ]


def test_an_entry_has_exactly_the_documented_keys_in_order() -> None:
    settled_at = iso_time(datetime(2026, 1, 13, 14, 30, 45, 123_456, tzinfo=timezone.utc))
    call = result(DELIVERED, "Success", 200).to_json()
    entry = row_entry(1, "a@b.com", Outcome.SUCCESSFUL, None, call, call, settled_at)
    assert list(entry) == [
        *("user_id", "email", "timestamp", "outcome", "overall_success", "reason"),
        *("first_failed_at", "runs_failed", "users_update", "events_track"),
    ]
    assert entry["timestamp"] == "2026-01-13T14:30:45.123+00:00"
    assert entry["users_update"] == call
    assert orjson.loads(orjson.dumps(entry)) == entry


@pytest.mark.parametrize("outcome", Outcome)
def test_overall_success_means_that_profile_and_event_are_in_iterable(outcome: Outcome) -> None:
    entry = row_entry(1, "a@b.com", outcome)
    assert entry["overall_success"] == (outcome.value in ("successful", "unchanged"))
    assert entry["outcome"] == outcome.value
    assert (entry["users_update"], entry["events_track"]) == (None, None)


def test_an_entry_without_a_time_has_the_current_time_in_utc() -> None:
    before = datetime.now(timezone.utc).replace(microsecond=0)
    settled_at = datetime.fromisoformat(row_entry(None, None, Outcome.INVALID)["timestamp"])
    assert before <= settled_at <= datetime.now(timezone.utc)
