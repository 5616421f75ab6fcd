"""`--check`: the row-count guard, and what changed settings would send again."""

from __future__ import annotations

import pytest

from sandbox.iterable_api import IterableSandbox
from sync.run import Options, SyncRun
from sync.signals import StopSignal
from tests.conftest import SourceDatabase, numbers
from tests.support.past_runs import add_past_runs
from tests.support.set_up import READ_ONLY_ENDPOINTS, SetUp, failures, has_words

pytest_plugins = ["tests.support.set_up_fixtures"]


def sync(set_up: SetUp) -> None:
    settings = set_up.settings()
    assert SyncRun(settings, Options(), StopSignal()).execute().error is None


# Row count


def test_without_history_the_row_count_is_not_compared(set_up: SetUp) -> None:
    line = set_up.line("row count")
    assert line.ok
    has_words(line, "3 rows; not compared, as that needs 3 complete runs within 14 days")


def test_a_usual_row_count_is_ok_with_the_history(set_up: SetUp) -> None:
    add_past_runs(set_up, [9, 100, 8])
    assert set_up.line("row count").text == "3 rows; the last 3 runs had 8 to 100"


def test_a_read_that_a_run_would_not_send_fails(set_up: SetUp, api: IterableSandbox) -> None:
    add_past_runs(set_up, [5_000, 5_100, 5_050])
    line = set_up.line("row count")
    assert not line.ok
    assert line.text == (
        "a run would send nothing. The query returned 3 rows; the last 3 runs had 5,000 to 5,100. "
        "If that is right, run once with --ignore-guards."
    )
    assert {call.endpoint for call in api.calls} == READ_ONLY_ENDPOINTS


def test_a_guard_that_is_off_is_said(set_up: SetUp) -> None:
    add_past_runs(set_up, [5_000] * 3)
    has_words(set_up.line("row count", ROWS_GUARD_FACTOR="0"), "switches the guard off")


@pytest.mark.parametrize(("usual", "is_ok"), [(50_000, True), (100, False)])
def test_of_a_read_that_took_too_long_only_too_many_rows_are_known(
    with_mariadb: SetUp, usual: int, is_ok: bool
) -> None:
    query = with_mariadb.folder / "own.sql"
    query.write_text(
        "SELECT seq AS id, CONCAT('user', seq, '@example.com') AS email, 'Ann' AS first_name,"
        " 'Lee' AS last_name, 'pro' AS plan_type, 'yes' AS candidate, 'pricing' AS page,"
        f" 'mobile' AS device, 'Berlin' AS location, NOW() AS event_time FROM {numbers(4_000)}",
        encoding="utf-8",
    )
    add_past_runs(with_mariadb, [usual] * 3)
    with_mariadb.max_read_seconds = 0
    line = with_mariadb.line("row count", QUERY_FILE=str(query))
    assert line.ok is is_ok
    if is_ok:
        has_words(line, "more than 2,500 rows; the last 3 runs had 50,000")


# Changed settings


def test_changed_settings_say_how_many_profiles_would_be_sent_again(
    set_up: SetUp, embedded: SourceDatabase
) -> None:
    sync(set_up)
    assert not [line for line in set_up.lines() if line.name == "changes"]
    embedded.run_sql("UPDATE customers SET first_name = NULL WHERE id = 2")
    for changed, count in (
        ({"USER_FIELDS": "first_name"}, 3),
        ({"USER_FIELDS": "candidate,plan_type,last_name,first_name"}, 0),  # another order
        ({"SEND_NULLS": "true"}, 1),
    ):
        lines = [line for line in set_up.lines(**changed) if line.name == "changes"]
        assert [line.is_warning for line in lines] == [True] * bool(count)
        if lines:
            has_words(lines[0], f"{next(iter(changed))} changed since the last run")
            has_words(lines[0], f"are sent again: {count}")
    (line,) = [line for line in set_up.lines(EVENT_FIELDS="page") if line.name == "changes"]
    assert not line.is_warning
    has_words(line, "not sent again for that", "Events that are different now: 3")


def test_a_damaged_state_file_has_one_line(set_up: SetUp) -> None:
    set_up.state_file.write_bytes(b"no database" * 100)
    lines = set_up.lines(USER_FIELDS="first_name")
    assert failures(lines) == ["state file"]
    assert not [line for line in lines if line.name in ("row count", "changes")]
