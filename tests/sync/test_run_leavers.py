"""`ON_LEAVE=clear`: the profile flag of users who left the query's result becomes false."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from commands.verify.run import verify
from config.settings import Settings
from iterable_api.comparison import Comparison
from sandbox.iterable_api import IterableSandbox
from sync.run import RunReport
from sync.signals import StopSignal
from tests.conftest import SourceDatabase
from tests.support.runs import Runs, counts_of
from tests.support.users import add_users, email_of, profile_of

ALL = range(1, 31)
LEAVERS = range(1, 4)


@pytest.fixture(params=["per-user", "bulk"])
def mode(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture
def iterable() -> Iterator[IterableSandbox]:
    with IterableSandbox(keep_calls=1_000) as running:
        yield running


@pytest.fixture
def runs(embedded: SourceDatabase, iterable: IterableSandbox, tmp_path: Path, mode: str) -> Runs:
    """Runs after a first one, which delivered thirty users a day ago."""
    add_users(embedded.run_sql, ALL)
    made = Runs.between(tmp_path, embedded, iterable, SYNC_MODE=mode, ON_LEAVE="clear")
    report = made.run()
    assert counts_of(report) == {"successful": 30}
    assert leavers_of(report) == {}
    age_deliveries(made)
    return made


def age_deliveries(runs: Runs) -> None:
    change_state(runs, "UPDATE delivered SET profile_at = profile_at - 86400")


def change_state(runs: Runs, statement: str) -> None:
    with closing(sqlite3.connect(runs.state_file)) as database, database:
        database.execute(statement)


def leave(source: SourceDatabase, numbers: range = LEAVERS, plan: str = "free") -> None:
    source.run_sql(
        f"UPDATE customers SET plan_type = '{plan}' WHERE id BETWEEN {numbers[0]} AND {numbers[-1]}"
    )


def leavers_of(report: RunReport) -> dict[str, int]:
    """Return the counts of leavers that are not zero."""
    return {name: n for name, n in report.summary.to_json()["leavers"].items() if n}


def left_of(runs: Runs) -> list[dict[str, Any]]:
    newest = max(runs.folder.glob("integration_results_*.json"), key=lambda p: p.stat().st_mtime_ns)
    left: list[dict[str, Any]] = json.loads(newest.read_text())["left"]
    return left


def flags(iterable: IterableSandbox) -> dict[str, Any]:
    users = iterable.project.users.values()
    return {str(user.email): user.data_fields.get("recent_page_view") for user in users}


def calls_of(iterable: IterableSandbox, after: int) -> Counter[str]:
    return Counter(call.endpoint for call in iterable.calls[after:])


def test_the_flag_of_who_left_becomes_false_and_nothing_else_changes(
    runs: Runs, iterable: IterableSandbox, embedded: SourceDatabase, mode: str
) -> None:
    before = {user.email: user.data_fields for user in iterable.project.users.values()}
    leave(embedded)
    count = len(iterable.calls)
    report = runs.run()
    assert (report.summary.status, counts_of(report)) == ("completed", {"unchanged": 27})
    assert leavers_of(report) == {"found": 3, "cleared": 3}
    update = "users/update" if mode == "per-user" else "users/bulkUpdate"
    updates = 3 if mode == "per-user" else 1
    assert calls_of(iterable, count) == {"users/getByEmail": 3, update: updates}
    for number in ALL:
        email = email_of(number)
        changed = {"recent_page_view": False} if number in LEAVERS else {}
        assert iterable.project.users[email].data_fields == {**before[email], **changed}
    entries = left_of(runs)
    assert [(entry["user_id"], entry["outcome"]) for entry in entries] == [
        (str(n), "cleared") for n in sorted(LEAVERS, key=lambda n: order_of(entries, n))
    ]
    assert all(entry["users_update"]["success"] for entry in entries)
    count = len(iterable.calls)
    assert leavers_of(runs.run()) == {}
    assert len(iterable.calls) == count, "the next run makes no call"


def order_of(entries: list[dict[str, Any]], number: int) -> int:
    return [entry["user_id"] for entry in entries].index(str(number))


def test_who_comes_back_is_sent_again(
    runs: Runs, iterable: IterableSandbox, embedded: SourceDatabase
) -> None:
    leave(embedded)
    runs.run()
    leave(embedded, plan="pro")
    report = runs.run()
    assert counts_of(report) == {"successful": 3, "unchanged": 27}
    assert set(flags(iterable).values()) == {True}
    assert counts_of(runs.run()) == {"unchanged": 30}


def test_who_is_gone_from_iterable_is_not_created(
    runs: Runs, iterable: IterableSandbox, embedded: SourceDatabase
) -> None:
    del iterable.project.users[email_of(2)]
    leave(embedded)
    assert leavers_of(runs.run()) == {"found": 3, "cleared": 2, "gone": 1}
    assert email_of(2) not in iterable.project.users
    assert leavers_of(runs.run()) == {}


def test_who_was_gone_from_iterable_and_comes_back_gets_profile_and_event(
    runs: Runs, iterable: IterableSandbox, embedded: SourceDatabase
) -> None:
    del iterable.project.users[email_of(2)]
    gone = [key for key, each in iterable.project.events.items() if each.email == email_of(2)]
    for key in gone:
        del iterable.project.events[key]
    leave(embedded, range(2, 3))
    assert leavers_of(runs.run()) == {"found": 1, "gone": 1}
    leave(embedded, range(2, 3), plan="pro")
    assert counts_of(runs.run()) == {"successful": 1, "unchanged": 29}
    assert iterable.project.users[email_of(2)].data_fields == profile_of(2)
    assert email_of(2) in {each.email for each in iterable.project.events.values()}


def test_a_cleared_user_is_forgotten_after_thirty_days(
    runs: Runs, embedded: SourceDatabase
) -> None:
    leave(embedded)
    runs.run()
    change_state(runs, "UPDATE members SET cleared_at = cleared_at - 31 * 86400")
    runs.run()
    with closing(sqlite3.connect(runs.state_file)) as database:
        ((count,),) = database.execute("SELECT count(*) FROM members WHERE cleared_at IS NOT NULL")
    assert count == 0


def test_an_unknown_user_whom_we_delivered_within_the_hour_is_tried_again(
    runs: Runs, iterable: IterableSandbox, embedded: SourceDatabase
) -> None:
    change_state(runs, "UPDATE delivered SET profile_at = strftime('%s', 'now') - 3000")
    del iterable.project.users[email_of(2)]
    leave(embedded, range(2, 3))
    report = runs.run()
    assert (leavers_of(report), report.summary.status) == ({"found": 1}, "completed")
    assert [entry["outcome"] for entry in left_of(runs)] == ["waiting"]
    assert "Users who left: 0 of 1 cleared, 1 left to the next run" in "\n".join(report.lines())
    iterable.project.update_user({"email": email_of(2), "dataFields": {"recent_page_view": True}})
    assert leavers_of(runs.run()) == {"found": 1, "cleared": 1}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE customers SET email = 'no address' WHERE id = 2",  # named by id, invalid
        # Named by e-mail, with another id.
        "INSERT INTO customers (id, email, plan_type) VALUES (99, 'user2@example.com', 'pro');"
        "UPDATE page_views SET user_id = 99 WHERE user_id = 2; DELETE FROM customers WHERE id = 2",
        "UPDATE customers SET email = 'user1@example.com' WHERE id = 2",  # a duplicate
    ],
)
def test_whom_any_row_names_has_not_left(
    runs: Runs, iterable: IterableSandbox, embedded: SourceDatabase, statement: str
) -> None:
    embedded.run_sql(statement)
    report = runs.run()
    assert leavers_of(report) == {}
    assert flags(iterable)[email_of(2)] is True


@pytest.mark.parametrize("options", [{"limit": 5}, {"dry_run": True}])
def test_nobody_is_cleared_after_a_partial_read_or_in_a_dry_run(
    runs: Runs, iterable: IterableSandbox, embedded: SourceDatabase, options: dict[str, Any]
) -> None:
    leave(embedded)
    report = runs.run(ignore_guards=True, **options)
    assert leavers_of(report) == {}
    assert set(flags(iterable).values()) == {True}


def test_an_interrupted_run_clears_nobody(
    runs: Runs, iterable: IterableSandbox, embedded: SourceDatabase
) -> None:
    leave(embedded)
    embedded.run_sql("UPDATE customers SET last_name = 'New' WHERE id > 3")
    stop = StopSignal()
    iterable.set_faults([{"fault": "delay", "seconds": 1.0}])
    threading.Timer(0.3, stop.event.set).start()
    runs.run(stop)
    assert flags(iterable)[email_of(1)] is True


def test_a_failed_clearing_is_an_exit_status_and_tried_again(
    runs: Runs, iterable: IterableSandbox, embedded: SourceDatabase
) -> None:
    leave(embedded)
    iterable.set_faults(
        [
            {"fault": "status", "status": 400, "code": "Odd", "endpoint": each, "times": 1}
            for each in ("users/update", "users/bulkUpdate")
        ]
    )
    report = runs.run()
    cleared = leavers_of(report)
    if "failed" in cleared:
        assert cleared == {"found": 3, "cleared": 2, "failed": 1}
        assert report.summary.status == "completed_with_failures"
        assert [failure.endpoint for failure in report.new_failures] == [
            "users/update of users who left"
        ]
        assert leavers_of(runs.run()) == {"found": 1, "cleared": 1}
    assert [flags(iterable)[email_of(n)] for n in LEAVERS] == [False] * 3


def test_a_clearing_that_fails_again_so_is_known(
    runs: Runs, iterable: IterableSandbox, embedded: SourceDatabase
) -> None:
    leave(embedded)
    iterable.set_faults(
        [{"fault": "status", "status": 403, "code": "Odd", "endpoint": "users/getByEmail"}]
    )
    first, second = runs.run(), runs.run()
    assert leavers_of(first) == leavers_of(second) == {"found": 3, "failed": 3}
    assert first.summary.failures == {"new": 3, "known": 0, "resolved": 0}
    assert second.summary.failures == {"new": 0, "known": 3, "resolved": 0}
    assert not second.new_failures


def test_a_query_that_lost_a_third_of_its_rows_clears_nobody_without_a_question(
    runs: Runs, iterable: IterableSandbox, embedded: SourceDatabase
) -> None:
    many = range(1, 23)  # 22 of 30: more than 20, and more than 30 %
    leave(embedded, many)
    runs.settings["ROWS_GUARD_FACTOR"] = "0"
    report = runs.run()
    assert leavers_of(report) == {"found": 22, "held_back": 22}
    assert report.summary.status == "completed_with_failures"
    assert "22 of 30 users are in no row any more" in "\n".join(report.lines())
    assert set(flags(iterable).values()) == {True}
    assert leavers_of(runs.run(ignore_guards=True)) == {"found": 22, "cleared": 22}
    assert sum(flag is False for flag in flags(iterable).values()) == 22


def test_a_query_without_rows_clears_nobody_without_a_question(
    runs: Runs, embedded: SourceDatabase
) -> None:
    leave(embedded, ALL)
    runs.settings["ROWS_GUARD_FACTOR"] = "0"
    report = runs.run()
    assert leavers_of(report) == {"found": 30, "held_back": 30}
    assert report.summary.status == "completed_with_failures"


def test_a_lost_state_file_is_a_first_run(
    runs: Runs, iterable: IterableSandbox, embedded: SourceDatabase
) -> None:
    runs.state_file.unlink()
    leave(embedded)
    assert leavers_of(runs.run()) == {}
    assert set(flags(iterable).values()) == {True}


def test_identifiers_stay_in_the_state_file_only_while_they_are_needed(runs: Runs) -> None:
    assert email_of(1).encode() in runs.state_file.read_bytes()
    runs.settings["ON_LEAVE"] = "keep"
    report = runs.run()
    assert "leavers" not in report.summary.to_json()
    assert b"@example.com" not in runs.state_file.read_bytes()


def test_a_killed_clearing_is_done_again_and_who_comes_back_meanwhile_is_sent(
    runs: Runs, iterable: IterableSandbox, embedded: SourceDatabase
) -> None:
    """What a kill leaves between the mark and the result: user 1's flag was set, 2's was not."""
    leave(embedded)
    change_state(runs, "UPDATE members SET clearing_began_at = 1 WHERE user_id IN ('1', '2')")
    change_state(
        runs,
        "UPDATE delivered SET profile_hash = NULL WHERE user_key IN"
        " (SELECT user_key FROM members WHERE user_id IN ('1', '2'))",
    )
    iterable.project.update_user({"email": email_of(1), "dataFields": {"recent_page_view": False}})
    embedded.run_sql("UPDATE customers SET plan_type = 'pro' WHERE id = 1")
    report = runs.run()
    assert counts_of(report) == {"successful": 1, "unchanged": 27}
    assert leavers_of(report) == {"found": 2, "cleared": 2}
    assert [flags(iterable)[email_of(n)] for n in LEAVERS] == [True, False, False]


def test_verify_reads_cleared_users_too(
    runs: Runs, iterable: IterableSandbox, embedded: SourceDatabase
) -> None:
    leave(embedded)
    runs.run()
    settings = Settings.from_environment(runs.settings)
    findings = list(verify(settings, 100, threading.Event()))
    assert Counter(each.comparison for each in findings) == {Comparison.AS_SENT: 57}
    iterable.project.update_user({"email": email_of(3), "dataFields": {"recent_page_view": True}})
    change_state(runs, "UPDATE members SET cleared_at = cleared_at - 86400")
    wrong = [
        each
        for each in verify(settings, 100, threading.Event())
        if each.comparison is not Comparison.AS_SENT
    ]
    assert [str(each) for each in wrong] == [
        "user 3: the profile differs: recent_page_view was sent as false and is true"
    ]


@pytest.mark.parametrize("fault", ["malformed_json", "html_body", "half_body", "empty_body"])
def test_a_profile_that_could_not_be_read_is_not_updated(
    runs: Runs, iterable: IterableSandbox, embedded: SourceDatabase, fault: str
) -> None:
    del iterable.project.users[email_of(2)]
    leave(embedded)
    iterable.set_faults([{"fault": fault, "status": 200, "endpoint": "users/getByEmail"}])
    assert leavers_of(runs.run()) == {"found": 3, "failed": 3}
    assert email_of(2) not in iterable.project.users
    iterable.set_faults([])
    assert leavers_of(runs.run()) == {"found": 3, "cleared": 2, "gone": 1}


def test_an_error_with_status_200_does_not_mean_that_the_user_is_gone(
    runs: Runs, iterable: IterableSandbox, embedded: SourceDatabase
) -> None:
    leave(embedded)
    iterable.set_faults(
        [{"fault": "error_code_on_200", "code": "Odd", "endpoint": "users/getByEmail"}]
    )
    assert leavers_of(runs.run()) == {"found": 3, "failed": 3}
    iterable.set_faults([])
    assert leavers_of(runs.run()) == {"found": 3, "cleared": 3}
