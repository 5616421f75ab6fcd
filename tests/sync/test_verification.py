"""`VERIFY_SAMPLE`: a run reads back some of what the run before it has delivered."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import orjson
import pytest

from sandbox.iterable_api import IterableSandbox
from sync.run import RunReport
from tests.conftest import SourceDatabase
from tests.support.runs import Runs, counts_of
from tests.support.users import add_user, add_users, email_of


@pytest.fixture
def iterable() -> Iterator[IterableSandbox]:
    with IterableSandbox(keep_calls=1_000) as running:
        yield running


@pytest.fixture
def runs(embedded: SourceDatabase, iterable: IterableSandbox, tmp_path: Path) -> Runs:
    """Runs after a first one, which delivered twenty users an hour ago."""
    add_users(embedded.run_sql, range(1, 21))
    made = Runs.between(tmp_path, embedded, iterable, VERIFY_SAMPLE="8")
    first = made.run()
    assert verified(first) == {}
    age(made)
    return made


def age(runs: Runs, seconds: int = 3_600) -> None:
    with closing(sqlite3.connect(runs.state_file)) as database, database:
        database.execute(
            f"UPDATE delivered SET profile_at = profile_at - {seconds},"
            f" event_at = event_at - {seconds}"
        )
        database.execute(
            "UPDATE runs SET started_at = strftime('%Y-%m-%dT%H:%M:%S+00:00', started_at,"
            f" '{-seconds:+d} seconds')"
        )


def verified(report: RunReport) -> dict[str, int]:
    return {name: n for name, n in report.summary.to_json()["verified"].items() if n}


def change(iterable: IterableSandbox, number: int) -> None:
    user = iterable.project.users[email_of(number)]
    user.fields_json = orjson.dumps({**user.data_fields, "plan_type": "free"}).decode()


def test_rows_of_the_last_run_are_as_sent(runs: Runs, iterable: IterableSandbox) -> None:
    count = len(iterable.calls)
    report = runs.run()
    assert (verified(report), counts_of(report)) == ({"asked": 8, "as_sent": 8}, {"unchanged": 20})
    assert {call.endpoint for call in iterable.calls[count:]} == {
        "users/getByEmail",
        "events/{email}",
    }
    assert len(iterable.calls) - count == 16 == report.summary.api_calls
    assert "  Read back 8 users of the last run: 8 as sent" in report.lines()
    assert verified(runs.run()) == {}, "the last run has delivered nothing"


def test_a_field_changed_behind_our_back_is_found(
    runs: Runs, iterable: IterableSandbox, caplog: pytest.LogCaptureFixture
) -> None:
    runs.settings["VERIFY_SAMPLE"] = "20"
    change(iterable, 7)
    del iterable.project.users[email_of(9)]
    report = runs.run()
    assert verified(report) == {"asked": 20, "as_sent": 18, "different": 1, "missing": 1}
    assert report.summary.status == "completed_with_failures"
    assert "User 7, delivered by the last run: the profile differs: plan_type was" in caplog.text
    assert "User 9, delivered by the last run: the profile is not in Iterable" in caplog.text


def test_the_values_stay_out_of_a_log_without_payloads(
    runs: Runs, iterable: IterableSandbox, caplog: pytest.LogCaptureFixture
) -> None:
    runs.settings |= {"VERIFY_SAMPLE": "20", "LOG_PAYLOADS": "false"}
    change(iterable, 7)
    runs.run()
    assert "User 7, delivered by the last run: the profile is different" in caplog.text


def test_what_was_delivered_less_than_ten_minutes_ago_is_pending(
    runs: Runs, iterable: IterableSandbox
) -> None:
    age(runs, -3_300)
    runs.settings["VERIFY_SAMPLE"] = "20"
    change(iterable, 7)
    report = runs.run()
    assert verified(report) == {"asked": 20, "as_sent": 19, "pending": 1}
    assert report.summary.status == "completed"


def test_what_cannot_be_read_back_is_no_failure(runs: Runs, iterable: IterableSandbox) -> None:
    iterable.set_faults([{"fault": "status", "status": 503, "endpoint": "users/getByEmail"}])
    report = runs.run()
    assert verified(report) == {"asked": 8, "unanswered": 8}
    assert report.summary.status == "completed"


def test_rows_with_other_values_than_before_are_not_asked_for(
    runs: Runs, embedded: SourceDatabase
) -> None:
    runs.settings["VERIFY_SAMPLE"] = "20"
    embedded.run_sql("UPDATE customers SET last_name = 'New' WHERE id <= 5")
    report = runs.run()
    # Their events are as they were delivered.
    assert verified(report) == {"asked": 20, "as_sent": 20}


def test_a_dry_run_reads_nothing_back(runs: Runs, iterable: IterableSandbox) -> None:
    count = len(iterable.calls)
    assert verified(runs.run(dry_run=True)) == {}
    assert len(iterable.calls) == count


def test_a_user_with_several_rows_is_asked_for_once(runs: Runs, embedded: SourceDatabase) -> None:
    for number in (21, 22):
        add_user(embedded.run_sql, number, "same@example.com")
    assert counts_of(runs.run()) == {"successful": 1, "unchanged": 20, "duplicates": 1}
    age(runs)
    assert verified(runs.run()) == {"asked": 1, "as_sent": 1}
