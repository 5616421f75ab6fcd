"""`--only`: the rows of a few users are sent, whatever is remembered, and nothing else."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import orjson
import pytest

from commands.export import run_export
from config.settings import Settings
from errors import ConfigError
from sandbox.iterable_api import IterableSandbox
from tests.conftest import SourceDatabase
from tests.support.past_runs import add_past_runs
from tests.support.runs import Runs, counts_of, results_of
from tests.support.users import add_user, add_users, email_of, sent_calls

NUMBERS = range(1, 11)
MODES = pytest.mark.parametrize("mode", ["per-user", "bulk"])


@pytest.fixture
def runs(embedded: SourceDatabase, iterable: IterableSandbox, tmp_path: Path) -> Runs:
    add_users(embedded.run_sql, NUMBERS)
    return Runs.between(tmp_path, embedded, iterable)


def problems_of(runs: Runs, *only: str, **options: Any) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        runs.run(only=only, **options)
    return list(raised.value.problems)


@MODES
def test_only_the_named_users_are_sent_and_counted(
    runs: Runs, iterable: IterableSandbox, caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    runs.settings["SYNC_MODE"] = mode
    caplog.set_level(logging.INFO)
    report = runs.run(only=("3", " User7@Example.com "))
    assert counts_of(report) == {"successful": 2}
    assert [record["user_id"] for record in results_of(report)["records"]] == [3, 7]
    assert set(iterable.project.users) == {email_of(3), email_of(7)}
    assert len(iterable.project.events) == 2
    said = [text for text in caplog.messages if "rows read" in text]
    assert said[0].startswith("10 rows read, 2 chosen (--only), 2 to send (")


@MODES
def test_what_is_remembered_as_delivered_is_sent_all_the_same(
    runs: Runs, iterable: IterableSandbox, mode: str
) -> None:
    runs.settings["SYNC_MODE"] = mode
    runs.run()
    calls = len(iterable.calls)
    assert counts_of(runs.run(only=("3",))) == {"successful": 1}
    assert len(sent_calls(iterable, after=calls)) == 2
    assert len(iterable.project.events) == 10
    assert iterable.project.event_id_collision_count == 0
    assert counts_of(runs.run()) == {"unchanged": 10}


def test_what_is_remembered_as_rejected_is_sent_all_the_same(runs: Runs) -> None:
    with IterableSandbox(forgotten=[email_of(3), email_of(4)]) as iterable:
        runs.settings["ITERABLE_API_BASE_URL"] = iterable.url
        runs.run()
        assert runs.run().summary.api_calls == 0
        report = runs.run(only=("3",))
        assert report.summary.api_calls == 1
        assert counts_of(report) == {"total_failures": 1}
        # The failures of the others stay known.
        assert runs.run().summary.failures["known"] == 2


def test_the_rest_is_sent_by_the_next_run(runs: Runs, iterable: IterableSandbox) -> None:
    runs.run(only=(email_of(1),))
    assert counts_of(runs.run()) == {"successful": 9, "unchanged": 1}
    assert len(iterable.project.users) == 10


def test_an_unknown_name_and_a_duplicate_are_problems_and_nothing_is_sent(
    runs: Runs, embedded: SourceDatabase, iterable: IterableSandbox
) -> None:
    add_user(embedded.run_sql, 11, "USER5@example.com")
    assert problems_of(runs, "99", "nobody@example.com", "5") == [
        "--only 99: no row of the query has this id or e-mail",
        "--only nobody@example.com: no row of the query has this id or e-mail",
        "--only 5: its row is not used: the same e-mail as user 11, whose row is used instead",
    ]
    assert not sent_calls(iterable)
    assert runs.history()[0].status == "aborted"


def test_a_name_of_two_rows_sends_the_one_that_is_used(
    runs: Runs, embedded: SourceDatabase, iterable: IterableSandbox
) -> None:
    add_user(embedded.run_sql, 11, "USER5@example.com")
    report = runs.run(only=(email_of(5),))
    assert counts_of(report) == {"successful": 1, "duplicates": 1}
    assert [call.endpoint for call in sent_calls(iterable)] == ["users/update", "events/track"]
    assert counts_of(runs.run(only=("11",))) == {"successful": 1}


def test_one_address_in_two_letter_cases_is_one_user(runs: Runs) -> None:
    assert counts_of(runs.run(only=(email_of(3), email_of(3).title()))) == {"successful": 1}


def test_an_export_of_some_users_needs_no_columns_of_the_mapping(runs: Runs) -> None:
    runs.with_query("SELECT id, email, first_name FROM customers ORDER BY id")
    path = runs.folder / "rows.csv"
    settings = Settings.from_environment(runs.settings)
    run_export(settings, path, only=("3", email_of(5)))
    assert path.read_text(encoding="utf-8").splitlines()[1:] == [
        "3,user3@example.com,First3",
        "5,user5@example.com,First5",
    ]
    with pytest.raises(ConfigError, match="--only 99: no row of the query"):
        run_export(settings, path, only=("99",))
    assert len(path.read_text(encoding="utf-8").splitlines()) == 3


def test_an_invalid_row_says_why(runs: Runs, embedded: SourceDatabase) -> None:
    add_user(embedded.run_sql, 11, "no address")
    report = runs.run(only=("11",))
    assert counts_of(report) == {"invalid": 1}
    assert results_of(report)["records"][0]["reason"] == "malformed e-mail address"


def test_an_event_id_that_another_row_has_is_found_among_all_rows(runs: Runs) -> None:
    runs.with_query(
        "SELECT c.id, c.email, IF(c.id < 9, CAST(c.id AS CHAR), 'same') AS event_id, p.event_time"
        " FROM customers c JOIN page_views p ON p.user_id = c.id ORDER BY c.id"
    )
    runs.settings |= {"USER_FIELDS": "", "EVENT_FIELDS": ""}
    report = runs.run(only=("9", "2"))
    assert counts_of(report) == {"successful": 1, "invalid": 1}
    reason = results_of(report)["records"][1]["reason"]
    assert reason == "the event_id is not unique: user 10 has it, too"


def test_a_dry_run_prints_the_exact_bytes(runs: Runs, iterable: IterableSandbox) -> None:
    report = runs.run(only=("3",), dry_run=True)
    assert [endpoint for endpoint, _body in runs.payloads] == ["users/update", "events/track"]
    assert "1 profile and 1 event would be sent" in report.lines()[0]
    runs.run(only=("3",))
    bodies = [orjson.loads(body) for _endpoint, body in runs.payloads]
    assert [call.body for call in sent_calls(iterable)] == bodies
    runs.payloads.clear()
    runs.settings["SYNC_MODE"] = "bulk"
    runs.run(only=("3", "4"), dry_run=True)
    assert [len(orjson.loads(body).popitem()[1]) for _endpoint, body in runs.payloads] == [2, 2]


def test_the_row_count_guard_and_leavers_do_not_apply(
    runs: Runs, embedded: SourceDatabase, iterable: IterableSandbox
) -> None:
    runs.settings["ON_LEAVE"] = "clear"
    runs.run()
    add_past_runs(runs, [1_000] * 5)
    embedded.run_sql("DELETE FROM page_views WHERE user_id = 4")
    report = runs.run(only=("3",), ignore_guards=True)
    assert report.error is None
    assert iterable.project.users[email_of(4)].data_fields["recent_page_view"] is True
    assert counts_of(runs.run(only=("3",))) == {"successful": 1}


def test_a_row_that_would_be_moved_is_not_attempted(
    runs: Runs, embedded: SourceDatabase, iterable: IterableSandbox
) -> None:
    runs.settings["EMAIL_CHANGES"] = "move"
    runs.run()
    embedded.run_sql("UPDATE customers SET email = 'new@example.com' WHERE id = 3")
    calls = len(iterable.calls)
    assert counts_of(runs.run(only=("3",))) == {"not_attempted": 1}
    assert len(iterable.calls) == calls


def test_ids_of_users_are_compared_exactly(
    runs: Runs, embedded: SourceDatabase, iterable: IterableSandbox
) -> None:
    runs.with_query(
        "SELECT IF(c.id = 1, 'a', IF(c.id = 2, 'A', 'b')) AS id, c.email, c.first_name, p.page,"
        " p.event_time FROM customers c JOIN page_views p ON p.user_id = c.id ORDER BY c.id"
    )
    runs.settings |= {"USER_FIELDS": "first_name", "EVENT_FIELDS": "page"}
    assert [r["email"] for r in results_of(runs.run(only=("A",)))["records"]] == [email_of(2)]
    assert embedded is not None
    assert set(iterable.project.users) == {email_of(2)}


def test_the_failures_of_other_rows_stay_known(runs: Runs, embedded: SourceDatabase) -> None:
    add_user(embedded.run_sql, 11, "no address")
    runs.run()
    assert runs.run(only=("3",)).summary.failures["resolved"] == 0
    assert runs.run().summary.failures == {"new": 0, "known": 1, "resolved": 0}
