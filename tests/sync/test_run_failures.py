"""Runs whose rows fail again and again: what is sent, counted and reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from records.rows import Failure
from sandbox.iterable_api import IterableSandbox
from tests.conftest import SourceDatabase
from tests.support.fault_runs import hurried_client, hurried_stop
from tests.support.runs import Runs, counts_of, results_of
from tests.support.users import add_users, email_of

REJECTED = {"fault": "status", "status": 400, "endpoint": "users/update", "email": email_of(2)}
BULK_MODES = ["per-user", "bulk"]


@pytest.fixture
def runs(embedded: SourceDatabase, iterable: IterableSandbox, tmp_path: Path) -> Runs:
    """The runs between the embedded MySQL with six users, of whom one has no e-mail address."""
    add_users(embedded.run_sql, range(1, 7))
    embedded.run_sql("UPDATE customers SET email = NULL WHERE id = 6")
    return Runs.between(tmp_path, embedded, iterable)


def test_the_second_run_makes_no_call_and_reports_the_same_failures(
    runs: Runs, iterable: IterableSandbox
) -> None:
    iterable.set_faults([REJECTED])
    first = runs.run()
    assert first.summary.failures == {"new": 2, "known": 0, "resolved": 0}
    assert first.new_failures == first.failures
    made = len(iterable.calls)

    second = runs.run()
    assert len(iterable.calls) == made
    assert second.summary.status == "completed_with_failures"
    assert counts_of(second) == {"partial_failures": 1, "unchanged": 4, "invalid": 1}
    assert second.summary.failures == {"new": 0, "known": 2, "resolved": 0}
    # A remembered rejection has no request of its own.
    without_ids = [failure._replace(request_id=None) for failure in first.failures]
    assert (second.new_failures, second.failures) == ([], without_ids)
    assert "  2 failed (0 new)" in second.lines()


def test_the_results_file_has_what_is_remembered(runs: Runs, iterable: IterableSandbox) -> None:
    iterable.set_faults([REJECTED])
    first, second = results_of(runs.run()), results_of(runs.run())
    (before,) = [each for each in first["records"] if each["user_id"] == 2]
    (record,) = [each for each in second["records"] if each["user_id"] == 2]
    code = before["users_update"]["response"]["code"]
    assert (before["runs_failed"], record["runs_failed"]) == (1, 2)
    assert record["first_failed_at"] == before["first_failed_at"]
    assert record["outcome"] == before["outcome"] == "partial_failure"
    assert record["users_update"] == {
        "success": False,
        "verdict": "rejected",
        "http_status": 400,
        "attempts": 0,
        "request_id": None,
        "response": {"code": code},
    }
    assert record["events_track"] is None
    (invalid,) = [each for each in second["records"] if each["user_id"] == 6]
    assert (invalid["outcome"], invalid["runs_failed"]) == ("invalid", 2)
    (unchanged,) = [each for each in second["records"] if each["user_id"] == 1]
    assert (unchanged["first_failed_at"], unchanged["runs_failed"]) == (None, None)


def test_a_new_failure_is_told_from_the_known_ones(
    runs: Runs, iterable: IterableSandbox, embedded: SourceDatabase
) -> None:
    iterable.set_faults([REJECTED])
    runs.run()
    embedded.run_sql("UPDATE customers SET email = 'nobody' WHERE id = 3")
    report = runs.run()
    assert report.summary.failures == {"new": 1, "known": 2, "resolved": 0}
    assert report.new_failures == [Failure("row", "invalid", "malformed e-mail address", 1, 3)]
    assert len(report.failures) == 3


def test_failures_are_resolved_when_rows_change_or_leave(
    runs: Runs, iterable: IterableSandbox, embedded: SourceDatabase
) -> None:
    iterable.set_faults([REJECTED])
    runs.run()
    iterable.set_faults([])
    embedded.run_sql("UPDATE customers SET first_name = 'Mended' WHERE id = 2")
    embedded.run_sql("DELETE FROM page_views WHERE user_id = 6")
    report = runs.run()
    assert counts_of(report) == {"successful": 1, "unchanged": 4}
    assert report.summary.failures == {"new": 0, "known": 0, "resolved": 2}
    assert "  2 failures of earlier runs are resolved" in report.lines()
    assert runs.run().summary.failures["resolved"] == 0


def test_a_run_with_a_limit_drops_nothing(runs: Runs) -> None:
    runs.run()
    assert runs.run(limit=2).summary.failures == {"new": 0, "known": 0, "resolved": 0}
    assert runs.run().summary.failures == {"new": 0, "known": 1, "resolved": 0}


@pytest.mark.parametrize("flags", [{"full_refresh": True}, {"hours": "0"}])
def test_what_was_rejected_is_sent_again_when_asked_for(
    runs: Runs, iterable: IterableSandbox, flags: dict[str, object]
) -> None:
    iterable.set_faults([REJECTED])
    runs.run()
    iterable.set_faults([])
    if "hours" in flags:
        runs.settings["REJECTED_RETRY_HOURS"] = "0"
        report = runs.run()
    else:
        report = runs.run(**flags)
    assert counts_of(report)["invalid"] == 1
    assert "partial_failures" not in counts_of(report)
    assert report.summary.failures == {"new": 0, "known": 1, "resolved": 1}


@pytest.mark.parametrize("mode", BULK_MODES)
def test_forgotten_users_are_asked_for_only_once(
    embedded: SourceDatabase, tmp_path: Path, mode: str
) -> None:
    add_users(embedded.run_sql, range(1, 21))
    with IterableSandbox(forgotten=[email_of(3), email_of(7)]) as sandbox:
        runs = Runs.between(tmp_path, embedded, sandbox, SYNC_MODE=mode)
        assert counts_of(runs.run()) == {"successful": 18, "total_failures": 2}
        made = len(sandbox.calls)
        # New events of forgotten users are not sent, either.
        embedded.run_sql("UPDATE page_views SET page = 'settings' WHERE user_id = 7")
        report = runs.run()
        assert len(sandbox.calls) == made
        assert counts_of(report) == {"unchanged": 18, "total_failures": 2}
        (record,) = [each for each in results_of(report)["records"] if each["user_id"] == 7]
        code = record["users_update"]["response"]["code"]
        assert record["reason"] == f"the event was not sent: {code} from users/update"
        assert record["events_track"] is None


def test_a_run_that_delivers_nothing_remembers_what_was_rejected(
    embedded: SourceDatabase, tmp_path: Path
) -> None:
    add_users(embedded.run_sql, [1])
    with IterableSandbox(forgotten=[email_of(1)]) as sandbox:
        runs = Runs.between(tmp_path, embedded, sandbox)
        runs.run()
        runs.run()
        assert [call.endpoint for call in sandbox.calls].count("users/update") == 1
        # A file that remembers no delivery takes any project: the other one may accept the row.
        runs.settings["ITERABLE_API_KEY"] = "f" * 32
        runs.run()
        assert [call.endpoint for call in sandbox.calls].count("users/update") == 2


def test_a_row_that_is_not_answered_is_known_and_retried_by_every_run(
    runs: Runs, iterable: IterableSandbox
) -> None:
    runs.to_client = hurried_client
    iterable.set_faults([{"fault": "status", "status": 503, "email": email_of(2)}])
    assert runs.run(hurried_stop()).summary.failures == {"new": 2, "known": 0, "resolved": 0}
    assert runs.run(hurried_stop()).summary.failures == {"new": 0, "known": 2, "resolved": 0}
    iterable.set_faults([])
    report = runs.run(hurried_stop())
    assert report.summary.failures == {"new": 0, "known": 1, "resolved": 1}
    assert counts_of(report)["successful"] == 1


def test_a_dry_run_reports_what_a_run_would_hold_back(
    runs: Runs, iterable: IterableSandbox
) -> None:
    iterable.set_faults([REJECTED])
    runs.run()
    report = runs.run(dry_run=True)
    assert counts_of(report) == {"partial_failures": 1, "unchanged": 4, "invalid": 1}
    assert report.summary.failures == {"new": 0, "known": 2, "resolved": 0}
    runs.run(dry_run=True)
    assert runs.run().summary.failures == {"new": 0, "known": 2, "resolved": 0}
