"""`EMAIL_CHANGES=move`: a user whose address changes in MySQL keeps profile and events."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from commands.verify.run import verify
from config.settings import Settings
from iterable_api.comparison import Comparison
from records.identity import to_user_key
from sandbox.iterable_api import IterableSandbox
from sync.run import RunReport
from tests.conftest import SourceDatabase
from tests.support.runs import Runs, counts_of
from tests.support.users import QUERY_WITH_SCORE, add_users, email_of, profile_of

ALL = range(1, 21)
MOVE = "users/updateEmail"


@pytest.fixture(params=["per-user", "bulk"])
def mode(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture
def iterable() -> Iterator[IterableSandbox]:
    with IterableSandbox(keep_calls=1_000, forgotten=["forgotten@example.com"]) as running:
        yield running


@pytest.fixture
def runs(embedded: SourceDatabase, iterable: IterableSandbox, tmp_path: Path, mode: str) -> Runs:
    """Runs after a first one, which delivered twenty users."""
    add_users(embedded.run_sql, ALL)
    made = Runs.between(tmp_path, embedded, iterable, SYNC_MODE=mode, EMAIL_CHANGES="move")
    report = made.run()
    assert counts_of(report) == {"successful": 20}
    assert changes_of(report) == {}
    return made


def readdress(source: SourceDatabase, emails: Mapping[int, str]) -> None:
    cases = " ".join(f"WHEN {number} THEN '{email}'" for number, email in emails.items())
    numbers = ", ".join(map(str, emails))
    source.run_sql(f"UPDATE customers SET email = CASE id {cases} END WHERE id IN ({numbers})")


def view_again(source: SourceDatabase, number: int) -> None:
    source.run_sql(
        "INSERT INTO page_views (user_id, page, device, browser, location, event_time) VALUES"
        f" ({number}, 'pricing', 'mobile', 'Safari', 'Köln, DE', '2026-02-01 10:00:00')"
    )


def changes_of(report: RunReport) -> dict[str, int]:
    return {name: n for name, n in report.summary.to_json()["email_changes"].items() if n}


def records_of(runs: Runs) -> dict[int, dict[str, Any]]:
    newest = max(runs.folder.glob("integration_results_*.json"), key=lambda p: p.stat().st_mtime_ns)
    return {record["user_id"]: record for record in json.loads(newest.read_text())["records"]}


def change_state(runs: Runs, *statements: str) -> None:
    with closing(sqlite3.connect(runs.state_file)) as database, database:
        for statement in statements:
            database.execute(statement)


def check(iterable: IterableSandbox, emails: Mapping[int, str], numbers: range = ALL) -> None:
    """Check that everybody has one profile and one event, under the right address."""
    project = iterable.project
    expected = {email_of(number): number for number in numbers}
    for number, email in emails.items():
        expected[email] = expected.pop(email_of(number))
    assert {str(user.email) for user in project.users.values()} == set(expected)
    for email, number in expected.items():
        assert project.users[email.lower()].data_fields == profile_of(number)
    assert Counter(event.email for event in project.events.values()) == Counter(expected.keys())
    assert all(event.user is not None for event in project.events.values())


def calls_of(iterable: IterableSandbox, after: int) -> Counter[str]:
    return Counter(call.endpoint for call in iterable.calls[after:])


def test_a_user_with_another_address_is_moved_with_one_call(
    runs: Runs, iterable: IterableSandbox, embedded: SourceDatabase
) -> None:
    new = {3: "Three.New@example.com", 4: "four.new@example.com"}
    readdress(embedded, new)
    count = len(iterable.calls)
    report = runs.run()
    assert counts_of(report) == {"successful": 2, "unchanged": 18}
    assert changes_of(report) == {"moved": 2}
    assert calls_of(iterable, count) == {MOVE: 2}
    check(iterable, new)
    record = records_of(runs)[3]
    assert record["email_change"] == {
        "from": email_of(3),
        "outcome": "moved",
        "code": "Success",
        "http_status": 200,
    }
    assert records_of(runs)[5]["email_change"] is None
    count = len(iterable.calls)
    assert counts_of(runs.run()) == {"unchanged": 20}
    assert len(iterable.calls) == count


def test_what_else_changed_is_sent_after_the_wait_and_the_event_keeps_its_id(
    runs: Runs, iterable: IterableSandbox, embedded: SourceDatabase, mode: str
) -> None:
    readdress(embedded, {3: "three.new@example.com", 4: "four.new@example.com"})
    embedded.run_sql("UPDATE customers SET candidate = 'maybe' WHERE id = 3")
    view_again(embedded, 4)
    count = len(iterable.calls)
    report = runs.run()
    assert counts_of(report) == {"successful": 2, "unchanged": 18}
    update, track = ("users/update", "events/track")
    if mode == "bulk":
        update, track = ("users/bulkUpdate", "events/trackBulk")
    calls = calls_of(iterable, count)
    assert calls.keys() == {MOVE, update, track}
    assert (calls[MOVE], calls[update]) == (2, 1)
    assert calls[track] == 2 if mode == "per-user" else calls[track] in (1, 2)
    waited = iterable.project.shortest_wait_after_email_change
    assert waited is not None
    assert waited >= 0.5
    events = Counter(event.email for event in iterable.project.events.values())
    assert events["three.new@example.com"] == 1, "the event of the former address was updated"
    assert events["four.new@example.com"] == 2, "the second view is a second event"
    assert counts_of(runs.run()) == {"unchanged": 20}
    settings = Settings.from_environment(runs.settings)
    findings = Counter(each.comparison for each in verify(settings, 40, threading.Event()))
    assert findings == {Comparison.AS_SENT: 40}


def test_a_user_is_moved_again_and_a_later_change_of_the_event_uses_its_first_id(
    runs: Runs, iterable: IterableSandbox, embedded: SourceDatabase
) -> None:
    for email in ("one@example.com", "two@example.com"):
        readdress(embedded, {3: email})
        assert changes_of(runs.run()) == {"moved": 1}
    # Also after the setting has changed, an event is not sent under a second id.
    runs.settings["EMAIL_CHANGES"] = "new"
    embedded.run_sql("UPDATE page_views SET location = 'Bonn' WHERE user_id = 3")
    assert counts_of(runs.run()) == {"successful": 1, "unchanged": 19}
    events = [e for e in iterable.project.events.values() if e.email == "two@example.com"]
    assert [event.data_fields["location"] for event in events] == ["Bonn"]


def test_a_chain_is_moved_from_its_free_end(
    runs: Runs, iterable: IterableSandbox, embedded: SourceDatabase
) -> None:
    new = {3: email_of(4), 4: email_of(5), 5: "free@example.com"}
    readdress(embedded, new)
    count = len(iterable.calls)
    assert changes_of(runs.run()) == {"moved": 3}
    assert calls_of(iterable, count) == {MOVE: 3}, "nothing was delivered again"
    for number, email in new.items():
        assert iterable.project.users[email].data_fields == profile_of(number)
    assert len(iterable.project.users) == len(iterable.project.events) == 20
    assert counts_of(runs.run()) == {"unchanged": 20}


def test_an_event_that_the_query_names_is_not_sent_again_after_a_move(
    mariadb: SourceDatabase, iterable: IterableSandbox, tmp_path: Path
) -> None:
    add_users(mariadb.run_sql, range(1, 6))
    runs = Runs.between(tmp_path, mariadb, iterable, EMAIL_CHANGES="move")
    runs.with_query(QUERY_WITH_SCORE.format("CONCAT('view-', p.id)").replace("score", "event_id"))
    assert counts_of(runs.run()) == {"successful": 5}
    readdress(mariadb, {3: "three@example.com"})
    count = len(iterable.calls)
    assert changes_of(runs.run()) == {"moved": 1}
    assert calls_of(iterable, count) == {MOVE: 1}


def test_what_stands_behind_a_link_that_is_not_moved_fails_and_is_not_sent(
    runs: Runs, iterable: IterableSandbox, embedded: SourceDatabase
) -> None:
    readdress(embedded, {3: email_of(4), 4: "forgotten@example.com"})
    before = {email: user.data_fields for email, user in iterable.project.users.items()}
    report = runs.run()
    assert counts_of(report) == {"total_failures": 2, "unchanged": 18}
    assert changes_of(report) == {"failed": 2}
    assert report.summary.status == "completed_with_failures"
    assert {email: user.data_fields for email, user in iterable.project.users.items()} == before
    assert [(each.endpoint, each.code, each.rows) for each in report.new_failures] == [
        (MOVE, "EmailAlreadyExists", 2)
    ]
    assert "could not be moved" in records_of(runs)[3]["reason"]
    again = runs.run()
    assert (again.new_failures, again.summary.failures["known"]) == ([], 2)
    readdress(embedded, {4: "free@example.com"})
    resolved = runs.run()
    assert changes_of(resolved) == {"moved": 2}
    assert resolved.summary.failures["resolved"] == 2


def test_swapped_addresses_are_neither_moved_nor_sent(
    runs: Runs, iterable: IterableSandbox, embedded: SourceDatabase
) -> None:
    readdress(embedded, {3: email_of(4), 4: email_of(3)})
    count = len(iterable.calls)
    report = runs.run()
    assert counts_of(report) == {"total_failures": 2, "unchanged": 18}
    assert len(iterable.calls) == count
    assert "exchanged with those of other users" in records_of(runs)[3]["reason"]
    readdress(embedded, {3: email_of(3), 4: email_of(4)})
    assert counts_of(runs.run()) == {"unchanged": 20}


def test_an_address_that_iterable_has_already_gets_the_requests_and_nothing_is_merged(
    runs: Runs,
    iterable: IterableSandbox,
    embedded: SourceDatabase,
    caplog: pytest.LogCaptureFixture,
) -> None:
    iterable.project.update_user({"email": "taken@example.com", "dataFields": {"own": 1}})
    readdress(embedded, {3: "taken@example.com"})
    report = runs.run()
    assert (counts_of(report), changes_of(report)) == (
        {"successful": 1, "unchanged": 19},
        {"already_there": 1},
    )
    assert "Iterable already has the new address of 1 user" in caplog.text
    assert iterable.project.users["taken@example.com"].data_fields == {"own": 1, **profile_of(3)}
    assert email_of(3) in iterable.project.users
    assert changes_of(runs.run()) == {}


def test_a_user_who_is_not_in_iterable_is_simply_sent(
    runs: Runs, iterable: IterableSandbox, embedded: SourceDatabase
) -> None:
    del iterable.project.users[email_of(3)]
    readdress(embedded, {3: "new@example.com"})
    report = runs.run()
    assert (counts_of(report), changes_of(report)) == ({"successful": 1, "unchanged": 19}, {})
    assert iterable.project.users["new@example.com"].data_fields == profile_of(3)
    assert counts_of(runs.run()) == {"unchanged": 20}


@pytest.mark.parametrize("was_applied", [True, False])
def test_a_move_of_a_killed_run_is_repeated(
    runs: Runs, iterable: IterableSandbox, embedded: SourceDatabase, was_applied: bool
) -> None:
    """The kill came between the note and the result."""
    readdress(embedded, {3: "new@example.com"})
    note_move(runs, 3, "new@example.com")
    if was_applied:
        iterable.project.update_email({"currentEmail": email_of(3), "newEmail": "new@example.com"})
    report = runs.run()
    assert counts_of(report) == {"successful": 1, "unchanged": 19}
    assert changes_of(report) == {"moved": 1}
    check(iterable, {3: "new@example.com"})
    assert counts_of(runs.run()) == {"unchanged": 20}


@pytest.mark.parametrize("was_applied", [True, False])
@pytest.mark.parametrize("email", [email_of(3), "third@example.com"])
def test_an_address_that_changes_once_more_after_a_kill_is_right_in_the_end(
    runs: Runs, iterable: IterableSandbox, embedded: SourceDatabase, was_applied: bool, email: str
) -> None:
    note_move(runs, 3, "new@example.com")
    if was_applied:
        iterable.project.update_email({"currentEmail": email_of(3), "newEmail": "new@example.com"})
    readdress(embedded, {3: email})
    runs.run()
    check(iterable, {3: email})
    assert counts_of(runs.run()) == {"unchanged": 20}


def note_move(runs: Runs, number: int, email: str) -> None:
    """Note an attempt as a run does before it makes it."""
    change_state(
        runs,
        f"INSERT INTO noted_moves VALUES ('{number}', {to_user_key(email)}, '{email}', 1, 0)",
    )


def test_in_a_partial_read_a_row_that_would_be_moved_is_not_attempted(
    runs: Runs,
    iterable: IterableSandbox,
    embedded: SourceDatabase,
    caplog: pytest.LogCaptureFixture,
) -> None:
    readdress(embedded, {3: "new@example.com"})
    count = len(iterable.calls)
    report = runs.run(limit=5)
    assert counts_of(report) == {"unchanged": 4, "not_attempted": 1}
    assert report.summary.status == "completed_with_failures"
    reason = records_of(runs)[3]["reason"]
    assert "only a run that reads all rows" in reason
    assert f"Rows that are not sent ({reason}): 1" in caplog.messages  # news for --quiet
    assert len(iterable.calls) == count
    assert changes_of(runs.run()) == {"moved": 1}


@pytest.mark.parametrize("options", [{}, {"limit": 5}])
def test_the_next_run_waits_until_a_move_has_settled(
    runs: Runs, iterable: IterableSandbox, embedded: SourceDatabase, options: dict[str, Any]
) -> None:
    runs.settle_seconds = 2.0
    readdress(embedded, {3: "new@example.com"})
    assert changes_of(runs.run()) == {"moved": 1}
    embedded.run_sql("UPDATE customers SET candidate = 'maybe' WHERE id = 3")
    assert counts_of(runs.run(**options))["successful"] == 1
    waited = iterable.project.shortest_wait_after_email_change
    assert waited is not None
    assert waited >= 2.0


def test_a_dry_run_says_how_many_would_be_moved_and_changes_nothing(
    runs: Runs, iterable: IterableSandbox, embedded: SourceDatabase
) -> None:
    readdress(embedded, {3: "new@example.com"})
    before, count = runs.state_file.read_bytes(), len(iterable.calls)
    report = runs.run(dry_run=True)
    assert "1 user would be moved to a new e-mail address, and nothing else" in report.lines()[0]
    assert "Changed e-mail addresses: 1 would be moved" in "\n".join(report.lines())
    assert (runs.state_file.read_bytes(), len(iterable.calls)) == (before, count)
    assert changes_of(runs.run()) == {"moved": 1}


def test_a_limited_dry_run_prints_only_what_a_limited_run_sends(
    runs: Runs, embedded: SourceDatabase
) -> None:
    readdress(embedded, {3: "new@example.com"})
    embedded.run_sql("UPDATE customers SET candidate = 'maybe' WHERE id IN (3, 4)")
    runs.run(dry_run=True, limit=5)
    text = b"".join(body for _endpoint, body in runs.payloads)
    assert email_of(4).encode() in text
    assert b"new@example.com" not in text


def test_a_full_refresh_moves_a_user_and_sends_profile_and_event_again(
    runs: Runs, iterable: IterableSandbox, embedded: SourceDatabase
) -> None:
    iterable.project.update_user({"email": email_of(3), "dataFields": {"first_name": "Spoiled"}})
    readdress(embedded, {3: "new@example.com"})
    report = runs.run(full_refresh=True)
    assert (counts_of(report), changes_of(report)) == ({"successful": 20}, {"moved": 1})
    assert records_of(runs)[3]["events_track"]["success"]
    check(iterable, {3: "new@example.com"})


def test_a_user_of_whom_two_addresses_are_remembered_is_moved_from_the_last_one(
    runs: Runs, iterable: IterableSandbox, embedded: SourceDatabase
) -> None:
    runs.settings |= {"EMAIL_CHANGES": "new", "ON_LEAVE": "clear"}
    runs.run()
    change_state(runs, "UPDATE delivered SET profile_at = profile_at - 86400")
    readdress(embedded, {3: "second@example.com"})
    runs.run()
    runs.settings["EMAIL_CHANGES"] = "move"
    runs.run()
    readdress(embedded, {3: "third@example.com"})
    assert changes_of(runs.run()) == {"moved": 1}
    assert {"third@example.com", email_of(3)} <= set(iterable.project.users)
    assert "second@example.com" not in iterable.project.users


def test_a_lost_state_file_only_takes_the_baseline(
    runs: Runs, iterable: IterableSandbox, embedded: SourceDatabase
) -> None:
    runs.state_file.unlink()
    readdress(embedded, {3: "new@example.com"})
    assert changes_of(runs.run()) == {}
    assert {email_of(3), "new@example.com"} <= set(iterable.project.users)


def test_addresses_stay_in_the_state_file_only_while_they_are_needed(runs: Runs) -> None:
    assert email_of(1).encode() in runs.state_file.read_bytes()
    runs.settings["EMAIL_CHANGES"] = "new"
    runs.run()
    assert b"@example.com" not in runs.state_file.read_bytes()


def test_without_move_a_run_warns_how_many_addresses_changed(
    runs: Runs, embedded: SourceDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    runs.settings["EMAIL_CHANGES"] = "new"
    runs.run()
    assert "another e-mail address" not in caplog.text
    readdress(embedded, {3: "new@example.com", 4: "other@example.com"})
    runs.run()
    assert "2 users with another e-mail address than before" in caplog.text
    caplog.clear()
    runs.run()
    assert "another e-mail address" not in caplog.text


def test_a_moved_row_that_is_read_late_waits_like_the_others(
    runs: Runs, iterable: IterableSandbox, embedded: SourceDatabase
) -> None:
    """The outbox is read a thousand rows at a time: the move is over before the second page is."""
    add_users(embedded.run_sql, range(21, 1_101))
    runs.run()
    readdress(embedded, {1_100: "new@example.com"})
    embedded.run_sql("UPDATE customers SET candidate = 'maybe'")
    runs.settle_seconds = 4.0
    runs.settings["USERS_UPDATE_RPS"] = "500"
    assert counts_of(runs.run()) == {"successful": 1_100}
    waited = iterable.project.shortest_wait_after_email_change
    assert waited is not None
    assert waited >= 4.0


def test_another_column_of_user_ids_moves_nobody_onto_somebody_else(
    runs: Runs, iterable: IterableSandbox, embedded: SourceDatabase
) -> None:
    """The new column has the number 3 for the second customer."""
    query = QUERY_WITH_SCORE.format("c.id + 1").replace("score", "account_id")
    runs.with_query(query.replace("ORDER BY", "AND c.plan_type = 'pro' ORDER BY"))
    runs.settings["USER_ID_COLUMN"] = "account_id"
    embedded.run_sql("UPDATE customers SET plan_type = 'free' WHERE id = 3")
    readdress(embedded, {2: "new@example.com"})
    assert "would be moved" not in "\n".join(runs.run(dry_run=True).lines())
    assert changes_of(runs.run()) == {}
    assert email_of(3) in iterable.project.users
    readdress(embedded, {2: "newer@example.com"})
    assert changes_of(runs.run()) == {"moved": 1}, "the first run noted the new numbers"
    assert iterable.project.users["newer@example.com"].data_fields == profile_of(2)
