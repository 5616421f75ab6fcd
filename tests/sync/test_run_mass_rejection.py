"""Runs in which Iterable rejects most requests of one kind, and the runs after them."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from errors import ExitStatus
from records.rows import RequestKind
from sandbox.iterable_api import IterableSandbox
from state.outbox import Outbox
from sync.dispatcher import RunAborted
from sync.signals import StopSignal
from tests.conftest import SourceDatabase
from tests.support.rows import wait_until
from tests.support.runs import Runs, counts_of, results_of
from tests.support.users import QUERY_WITH_SCORE, add_users, check_project, email_of, sent_calls

NUMBERS = range(1, 901)
BATCH_ROWS = 225
BATCHES = 4
WRONG_TYPE = "RequestFieldsTypesMismatched"
MODES = ["per-user", "bulk"]


@pytest.fixture
def runs(mariadb: SourceDatabase, iterable: IterableSandbox, tmp_path: Path) -> Runs:
    """Runs between a database with 900 users and the sandbox."""
    add_users(mariadb.run_sql, NUMBERS)
    settings = {
        "BULK_BATCH_SIZE": str(BATCH_ROWS),
        # So slow that few requests are under way when the kind ends.
        "USERS_UPDATE_RPS": "500",
        "EVENTS_TRACK_RPS": "500",
    }
    made = Runs.between(tmp_path, mariadb, iterable, **settings)
    made.note_mapping()  # or the field-type guard would stop the run before
    return made


def give_type(iterable: IterableSandbox, *, page: str = "", plan_type: str = "") -> None:
    """Let these fields of the event and the profile have another type in Iterable."""
    types = iterable.project.types
    for known, name, type_name in (
        (types.of_events("page_view"), "page", page),
        (types.of_users, "plan_type", plan_type),
    ):
        known.pop(name, None)
        if type_name:
            known[name] = type_name


def refuse_events(runs: Runs, iterable: IterableSandbox, mode: str) -> None:
    """Let Iterable refuse the events of all rows, for their field `page`."""
    runs.settings["SYNC_MODE"] = mode
    give_type(iterable, page="long")


def rows_of_calls(iterable: IterableSandbox, kind: str, *, after: int = 0) -> list[int]:
    """Return the number of rows of each call of a kind, "users" or "events"."""
    return [
        len(call.body[kind]) if call.body and kind in call.body else 1
        for call in sent_calls(iterable, after=after)
        if call.endpoint.startswith(kind)
    ]


def noted_users(runs: Runs, kind: RequestKind) -> int:
    outbox = Outbox(runs.state_file, read_only=True)
    try:
        return sum(map(len, outbox.mass_rejections.users(kind)))
    finally:
        outbox.close()


# The run that meets it


def test_when_events_are_rejected_per_user_the_profiles_of_all_rows_are_delivered(
    runs: Runs, iterable: IterableSandbox
) -> None:
    give_type(iterable, page="long")
    report = runs.run()
    assert len(iterable.project.users) == len(NUMBERS)
    assert rows_of_calls(iterable, "users") == [1] * len(NUMBERS)
    assert 200 <= len(rows_of_calls(iterable, "events")) < 800  # those under way
    assert report.summary.status == "aborted"
    assert isinstance(report.error, RunAborted)
    assert report.error.exit_status is ExitStatus.STOPPED_EARLY
    assert counts_of(report) == {"partial_failures": len(NUMBERS)}


def test_when_events_are_rejected_in_bulk_no_batch_is_split_to_the_bone(
    runs: Runs, iterable: IterableSandbox
) -> None:
    runs.settings["SYNC_MODE"] = "bulk"
    give_type(iterable, page="long")
    report = runs.run()
    assert len(iterable.project.users) == len(NUMBERS)
    assert rows_of_calls(iterable, "users") == [BATCH_ROWS] * BATCHES
    events = Counter(rows_of_calls(iterable, "events"))
    assert events.pop(1) == 20
    # Each batch whole, and once more without the rows with the value that Iterable named.
    assert sum(events.values()) <= 2 * BATCHES
    assert report.summary.status == "aborted"
    assert counts_of(report) == {"partial_failures": len(NUMBERS)}


@pytest.mark.parametrize("mode", MODES)
def test_the_reason_is_logged_at_once_and_stands_in_summary_and_results(
    runs: Runs, iterable: IterableSandbox, caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    refuse_events(runs, iterable, mode)
    report = runs.run()
    reason = report.summary.reason or ""
    assert reason.startswith(
        f"Iterable rejected more than 50 % of the events with {WRONG_TYPE} (field page, for "
        "example user "
    )
    assert sum(reason in record.getMessage() for record in caplog.records) == 1
    assert "  The next run first tries some of the rows that were left out." in report.lines()
    (line,) = (line for line in report.lines() if "No more events" in line)
    assert line.startswith(f"  No more events were sent: {WRONG_TYPE} (field page, for example ")
    assert runs.history()[0].reason == reason


@pytest.mark.parametrize("mode", MODES)
def test_a_row_left_out_has_no_event_and_says_why(
    runs: Runs, iterable: IterableSandbox, mode: str
) -> None:
    refuse_events(runs, iterable, mode)
    records = results_of(runs.run())["records"]
    assert [record["user_id"] for record in records] == list(NUMBERS)
    left_out = [record for record in records if record["events_track"] is None]
    assert len(left_out) > 100
    assert {record["reason"] for record in left_out} == {
        f"the event was not sent: most events were rejected with {WRONG_TYPE}"
    }
    assert {record["outcome"] for record in records} == {"partial_failure"}


@pytest.mark.parametrize("mode", MODES)
def test_when_profiles_are_rejected_the_events_of_all_rows_are_delivered(
    runs: Runs, iterable: IterableSandbox, mode: str
) -> None:
    runs.settings["SYNC_MODE"] = mode
    give_type(iterable, plan_type="long")
    report = runs.run(ignore_guards=True)
    assert len(iterable.project.events) == len(NUMBERS)
    assert not iterable.project.users
    assert len(rows_of_calls(iterable, "users")) < 800
    assert counts_of(report) == {"partial_failures": len(NUMBERS)}
    left_out = [row for row in results_of(report)["records"] if row["users_update"] is None]
    assert {row["reason"] for row in left_out} == {
        f"the profile was not sent: most profiles were rejected with {WRONG_TYPE}"
    }


@pytest.mark.parametrize("mode", MODES)
def test_when_both_are_rejected_nothing_more_is_sent(
    runs: Runs, iterable: IterableSandbox, mode: str
) -> None:
    runs.settings["SYNC_MODE"] = mode
    give_type(iterable, page="long", plan_type="long")
    report = runs.run(ignore_guards=True)
    counts = counts_of(report)
    assert set(counts) == {"total_failures", "not_attempted"}
    assert counts["not_attempted"] > 0
    reasons = (report.summary.reason or "").split("\n")
    assert sorted(reason.split(" with ")[0] for reason in reasons) == [
        "Iterable rejected more than 50 % of the events",
        "Iterable rejected more than 50 % of the profiles",
    ]
    untried = [row for row in results_of(report)["records"] if row["outcome"] == "not_attempted"]
    (reason,) = {row["reason"] for row in untried}
    assert "most profiles were rejected" in reason
    assert "most events were rejected" in reason


@pytest.mark.parametrize("mode", MODES)
def test_rows_that_need_only_the_event_are_not_attempted(
    runs: Runs, iterable: IterableSandbox, mariadb: SourceDatabase, mode: str
) -> None:
    runs.settings["SYNC_MODE"] = mode
    runs.run()
    mariadb.run_sql("UPDATE page_views SET location = 'Oslo'")
    give_type(iterable, page="long")
    report = runs.run()
    counts = counts_of(report)
    assert counts["not_attempted"] + counts["partial_failures"] == len(NUMBERS)
    untried = [row for row in results_of(report)["records"] if row["outcome"] == "not_attempted"]
    assert {row["reason"] for row in untried} == {f"most events were rejected with {WRONG_TYPE}"}


def test_below_the_share_every_row_is_sent(runs: Runs, iterable: IterableSandbox) -> None:
    runs.settings["MAX_REJECTED_PERCENT"] = "100"
    give_type(iterable, page="long")
    report = runs.run()
    assert len(rows_of_calls(iterable, "events")) == len(NUMBERS)
    assert report.summary.status == "completed_with_failures"


def test_events_that_are_held_back_are_not_waited_for_once_they_are_not_sent(
    runs: Runs, iterable: IterableSandbox, mariadb: SourceDatabase
) -> None:
    # 300 users need only their event, which is not delayed; the others would wait for an hour.
    runs.run()
    iterable.reset()
    mariadb.run_sql("UPDATE page_views SET location = 'Oslo'")
    mariadb.run_sql("UPDATE customers SET first_name = 'Another' WHERE id > 300")
    runs.settings["EVENT_DELAY_SECONDS"] = "3600"
    give_type(iterable, page="long")
    report = runs.run()
    assert len(rows_of_calls(iterable, "users")) == 600
    assert report.summary.status == "aborted"


@pytest.mark.no_cover
def test_a_stop_signal_is_the_stronger_reason(runs: Runs, iterable: IterableSandbox) -> None:
    runs.settings["USERS_UPDATE_RPS"] = "300"
    give_type(iterable, page="long")
    stop = StopSignal()

    def stop_later() -> None:
        wait_until(lambda: noted_users(runs, RequestKind.EVENT) > 0)
        stop(15, None)

    threading.Thread(target=stop_later, daemon=True).start()
    report = runs.run(stop)
    assert report.summary.status == "interrupted"
    assert report.error is None
    reasons = {row["reason"] for row in results_of(report)["records"] if row["reason"]}
    why = f"most events were rejected with {WRONG_TYPE}"
    assert f"{why}; the run was interrupted" in reasons
    assert all(why in reason for reason in reasons)
    before = len(iterable.calls)
    runs.run()
    assert len(rows_of_calls(iterable, "events", after=before)) == 20


# The runs after it


@pytest.mark.parametrize("mode", MODES)
def test_the_next_run_tries_20_rows_alone_and_ends_the_same_way(
    runs: Runs, iterable: IterableSandbox, mode: str
) -> None:
    refuse_events(runs, iterable, mode)
    first = runs.run()
    for _ in range(2):
        before = len(iterable.calls)
        report = runs.run()
        assert rows_of_calls(iterable, "events", after=before) == [1] * 20, report.summary.reason
        assert rows_of_calls(iterable, "users", after=before) == []
        assert report.summary.status == "aborted"
        assert counts_of(report) == {
            "partial_failures": 20,
            "not_attempted": len(NUMBERS) - 20,
        }
    assert runs.history()[0].reason == runs.history()[1].reason
    assert (first.summary.reason or "").split("(")[0] == (report.summary.reason or "").split("(")[0]


@pytest.mark.parametrize("mode", MODES)
def test_changed_rows_get_their_profile_while_events_are_still_rejected(
    runs: Runs, iterable: IterableSandbox, mariadb: SourceDatabase, mode: str
) -> None:
    refuse_events(runs, iterable, mode)
    runs.run()
    mariadb.run_sql("UPDATE customers SET first_name = 'Another'")
    report = runs.run()
    profiles = iterable.project.users.values()
    assert {profile.data_fields["first_name"] for profile in profiles} == {"Another"}
    assert counts_of(report) == {"partial_failures": len(NUMBERS)}


@pytest.mark.parametrize("mode", MODES)
def test_once_the_field_is_mended_the_next_run_delivers_everything(
    runs: Runs, iterable: IterableSandbox, mode: str
) -> None:
    refuse_events(runs, iterable, mode)
    runs.run()
    runs.run()
    give_type(iterable)
    before = len(iterable.calls)
    report = runs.run()
    assert rows_of_calls(iterable, "events", after=before)[:20] == [1] * 20
    assert sum(rows_of_calls(iterable, "events", after=before)) == len(NUMBERS)
    assert report.summary.status == "completed"
    assert [row["user_id"] for row in results_of(report)["records"]] == list(NUMBERS)
    check_project(iterable.project, NUMBERS)
    assert noted_users(runs, RequestKind.EVENT) == 0
    assert counts_of(runs.run()) == {"unchanged": len(NUMBERS)}


@pytest.mark.parametrize("mode", MODES)
def test_a_mapping_without_the_field_is_tried_first_too(
    runs: Runs, iterable: IterableSandbox, mode: str
) -> None:
    refuse_events(runs, iterable, mode)
    runs.run()
    before = len(iterable.calls)
    runs.settings["EVENT_FIELDS"] = "location"
    report = runs.run()
    assert rows_of_calls(iterable, "events", after=before)[:20] == [1] * 20
    assert report.summary.status == "completed"


@pytest.mark.parametrize("mode", MODES)
def test_profiles_are_tried_first_after_a_run_that_sent_no_more_of_them(
    runs: Runs, iterable: IterableSandbox, mode: str
) -> None:
    runs.settings["SYNC_MODE"] = mode
    give_type(iterable, plan_type="long")
    runs.run(ignore_guards=True)
    before = len(iterable.calls)
    again = runs.run(ignore_guards=True)
    assert rows_of_calls(iterable, "users", after=before) == [1] * 20
    assert again.summary.status == "aborted"
    give_type(iterable)
    assert runs.run(ignore_guards=True).summary.status == "completed"
    check_project_users = set(iterable.project.users)
    assert check_project_users == {email_of(n) for n in NUMBERS}


def test_what_is_noted_is_forgotten_once_all_of_these_rows_are_gone(
    runs: Runs, iterable: IterableSandbox, mariadb: SourceDatabase
) -> None:
    give_type(iterable, page="long")
    runs.run()
    mariadb.run_sql("DELETE FROM page_views")
    add_users(mariadb.run_sql, range(2_001, 2_011))
    before = len(iterable.calls)
    report = runs.run(limit=5)  # a partial read proves nothing
    assert noted_users(runs, RequestKind.EVENT) > 0
    report = runs.run()
    assert noted_users(runs, RequestKind.EVENT) == 0
    assert len(rows_of_calls(iterable, "events", after=before)) == 10
    assert report.summary.status == "completed_with_failures"


def test_rejections_of_another_code_stay_remembered(runs: Runs, iterable: IterableSandbox) -> None:
    give_type(iterable, page="long")
    odd: dict[str, Any] = {"fault": "status", "status": 400, "code": "BadParams"}
    iterable.set_faults([{**odd, "endpoint": "events/track", "email": email_of(1)}])
    runs.run()
    give_type(iterable)
    before = len(iterable.calls)
    report = runs.run()
    assert email_of(1) not in {call.email for call in iterable.calls[before:]}
    assert counts_of(report) == {"successful": len(NUMBERS) - 1, "partial_failures": 1}


def test_the_rows_that_are_tried_are_no_news(runs: Runs, iterable: IterableSandbox) -> None:
    give_type(iterable, page="long")
    assert runs.run().new_failures
    for _ in range(2):
        report = runs.run()
        assert not report.new_failures
        assert report.summary.failures == {"new": 0, "known": 20, "resolved": 0}


def reject_scores_of(runs: Runs, iterable: IterableSandbox, condition: str) -> None:
    """Let Iterable reject the events of the users of which this SQL condition is true."""
    runs.with_query(QUERY_WITH_SCORE.format(f"IF({condition}, '\"high\"', '7')"))
    runs.settings["EVENT_FIELDS"] = "page,score=score:json"
    iterable.project.types.of_events("page_view")["score"] = "long"


@pytest.mark.parametrize("mode", MODES)
def test_bad_rows_that_stand_together_kept_the_good_ones_behind_them_from_being_sent(
    runs: Runs, iterable: IterableSandbox, mode: str
) -> None:
    reject_scores_of(runs, iterable, "c.id <= 300")
    assert runs.run().summary.status == "aborted"
    runs.settings["SYNC_MODE"] = mode
    counts = counts_of(runs.run())
    assert counts.pop("partial_failures") == 300
    # On a busy machine the first run sent a few of them before it was stopped.
    assert counts.pop("successful") + counts.pop("unchanged", 0) == 600
    assert counts == {}
    assert len(iterable.project.events) == 600
    assert noted_users(runs, RequestKind.EVENT) == 0
    assert runs.run().summary.status == "completed_with_failures"


def test_a_few_rows_that_stay_rejected_do_not_end_every_run(
    runs: Runs, iterable: IterableSandbox, mariadb: SourceDatabase
) -> None:
    give_type(iterable, page="long")
    assert runs.run().summary.status == "aborted"
    # The field is mended, but three rows are bad for another reason. The others leave the query.
    give_type(iterable)
    bad = {"fault": "status", "status": 400, "endpoint": "events/track"}
    iterable.set_faults([{**bad, "email": email_of(number)} for number in (1, 2, 3)])
    mariadb.run_sql("DELETE FROM page_views WHERE user_id > 4")
    report = runs.run()
    assert report.summary.status == "completed_with_failures"
    assert counts_of(report) == {"successful": 1, "partial_failures": 3}
    assert noted_users(runs, RequestKind.EVENT) == 0
    before = len(iterable.calls)
    assert runs.run().summary.status == "completed_with_failures"
    assert len(iterable.calls) == before
