"""Results file: its format, the check of its counts, and the entry of each row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from records.outcomes import JSON, CallResult, Outcome, Verdict
from records.rows import RowState, SettledRow
from tests.support.results import entries_of, rows_of, write_results
from tests.support.run_summaries import HEAD, STATE_OF, TO_SEND, summary_of


def written(folder: Path, *outcomes: Outcome, **changes: Any) -> dict[str, Any]:
    path = write_results(folder, summary_of(*outcomes, **changes), rows_of(*outcomes))
    content: dict[str, Any] = orjson.loads(path.read_bytes())
    return content


# Format


def test_the_head_is_in_the_documented_order_and_the_records_are_last(tmp_path: Path) -> None:
    content = written(tmp_path, Outcome.SUCCESSFUL, Outcome.INVALID, new_failures=1)
    assert list(content) == [*HEAD, "records"]
    assert content | {"records": 0} == {
        "schema_version": 1,
        "run_id": "20260113T143045Z-abc",
        "status": "completed_with_failures",
        "reason": None,
        "dry_run": False,
        "mode": "per-user",
        "started_at": "2026-01-13T14:30:45.250+00:00",
        "finished_at": "2026-01-13T14:30:47.750+00:00",
        "total_users": 2,
        "successful": 1,
        "partial_failures": 0,
        "total_failures": 0,
        "unchanged": 0,
        "invalid": 1,
        "duplicates": 0,
        "not_attempted": 0,
        "api_calls": 3,
        "retries": 1,
        "duration_seconds": 2.5,
        "users_per_second": 0.5,
        "sync": None,
        "failures": {"new": 1, "known": 0, "resolved": 0},
        "records": 0,
    }
    assert [record["outcome"] for record in content["records"]] == ["successful", "invalid"]


def test_a_run_without_rows_has_an_empty_list_of_records(tmp_path: Path) -> None:
    content = written(tmp_path)
    assert list(content) == [*HEAD, "records"]
    assert (content["status"], content["records"]) == ("completed", [])


def test_each_record_is_on_a_line_of_its_own(tmp_path: Path) -> None:
    outcomes = [Outcome.SUCCESSFUL] * 3
    path = write_results(tmp_path, summary_of(*outcomes), rows_of(*outcomes))
    lines = path.read_text().splitlines()
    assert lines[-2:] == ["  ]", "}"]
    first = lines.index('  "records": [') + 1
    assert [orjson.loads(line.rstrip(",")) for line in lines[first:-2]] == orjson.loads(
        path.read_bytes()
    )["records"]


def test_any_text_of_a_row_can_be_read_back() -> None:
    texts = ["</script>", '"quoted"', "\x1b[31m\u2028", "小龙 🚀", "a\\b\n"]
    for outcome in (Outcome.UNCHANGED, Outcome.INVALID):
        (row,) = rows_of(outcome)
        rows = [row._replace(user_id=text, email=text, reason=text) for text in texts]
        read = entries_of(rows)
        assert [(r["user_id"], r["email"]) for r in read] == [(t, t) for t in texts]
    assert [r["reason"] for r in read] == texts


@pytest.mark.parametrize(
    "records",
    [[], [Outcome.SUCCESSFUL], [Outcome.SUCCESSFUL, Outcome.INVALID, Outcome.INVALID]],
)
def test_records_that_do_not_agree_with_the_counts_are_never_published(
    tmp_path: Path, records: list[Outcome]
) -> None:
    summary = summary_of(Outcome.SUCCESSFUL, Outcome.INVALID)
    with pytest.raises(AssertionError, match="rows do not agree with"):
        write_results(tmp_path, summary, rows_of(*records))
    assert list(tmp_path.iterdir()) == []


# The entry of a row


def result_of(verdict: Verdict, code: str) -> str:
    return orjson.dumps(CallResult(verdict, 400, code, "said").to_json()).decode()


def entry_of(state: RowState, update: str | None = None, event: str | None = None) -> JSON:
    row = SettledRow(state, 0, 1, "a@b.com", "of the row", update, event, 1_768_314_645.5)
    (entry,) = entries_of([row])
    return entry


def test_an_entry_has_what_the_outbox_recorded() -> None:
    taken = result_of(Verdict.DELIVERED, "Success")
    entry = entry_of(STATE_OF[Outcome.SUCCESSFUL], taken, taken)
    assert entry["users_update"] == entry["events_track"] == orjson.loads(taken)
    assert entry["timestamp"] == "2026-01-13T14:30:45.500+00:00"
    assert (entry["outcome"], entry["overall_success"]) == ("successful", True)


def test_an_entry_says_since_when_a_row_fails_and_in_how_many_runs() -> None:
    row = SettledRow(
        *(STATE_OF[Outcome.TOTAL_FAILURE], 0, 1, "a@b.com", None),
        *(result_of(Verdict.UNAVAILABLE, "503"), result_of(Verdict.REJECTED, "BadParams")),
        *(1_768_314_645.5, '{"profile":[1768314645,1],"event":[1768310000,7]}'),
    )
    (entry,) = entries_of([row])
    assert (entry["first_failed_at"], entry["runs_failed"]) == ("2026-01-13T13:13:20.000+00:00", 7)


@pytest.mark.parametrize("outcome", [Outcome.SUCCESSFUL, Outcome.UNCHANGED, Outcome.NOT_ATTEMPTED])
def test_a_row_that_did_not_fail_has_no_first_failure(outcome: Outcome) -> None:
    (entry,) = entries_of(rows_of(outcome))
    assert (entry["first_failed_at"], entry["runs_failed"]) == (None, None)


@pytest.mark.parametrize("outcome", [Outcome.INVALID, Outcome.DUPLICATE])
def test_a_row_that_was_not_to_be_sent_keeps_its_own_reason(outcome: Outcome) -> None:
    assert entry_of(STATE_OF[outcome])["reason"] == "of the row"


def test_a_row_that_was_not_attempted_says_why() -> None:
    assert entry_of(TO_SEND)["reason"] == "the run ended"
    partly_delivered = TO_SEND._replace(profile_in_place=True)
    assert entry_of(partly_delivered)["outcome"] == "not_attempted"
    assert entry_of(partly_delivered)["reason"] == "the run ended"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (
            "ForgottenUserError",
            "the event was not sent: ForgottenUserError from users/update",
        ),
        (
            "failedUpdates.invalidEmails",
            "the event was not sent: failedUpdates.invalidEmails from users/update",
        ),
        ("BadApiKey", "the event was not sent: the run ended"),
    ],
)
def test_a_row_whose_event_was_not_sent_says_why(code: str, reason: str) -> None:
    state = TO_SEND._replace(update="rejected")
    assert entry_of(state, result_of(Verdict.REJECTED, code))["reason"] == reason


def test_an_event_that_needed_its_profile_was_not_sent_because_of_the_update() -> None:
    update = result_of(Verdict.REJECTED, "EmailAlreadyExists")
    state = TO_SEND._replace(update="rejected")
    row = SettledRow(state, 0, 1, None, None, update, None, 1.0, event_needed_profile=True)
    (entry,) = entries_of([row])
    assert entry["reason"] == "the event was not sent: EmailAlreadyExists from users/update"


def test_a_row_whose_event_was_delivered_before_keeps_its_own_reason() -> None:
    state = TO_SEND._replace(event_in_place=True, update="delivered")
    entry = entry_of(state, result_of(Verdict.DELIVERED, "Success"))
    assert (entry["outcome"], entry["reason"]) == ("successful", "of the row")
    assert entry["events_track"] is None
