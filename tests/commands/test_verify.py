"""`--verify`: differences between Iterable and what was delivered."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from commands.verify.delivered_rows import choose_delivered_rows
from commands.verify.run import VerificationError, VerificationTally, run_verify, verify
from errors import ExitStatus
from iterable_api.comparison import Comparison
from records.rows import RequestKind
from records.webhooks import Webhook, to_event_hash
from sandbox.iterable_api import IterableSandbox
from state.confirmations import ConfirmationsFile, Received
from tests.conftest import SourceDatabase, numbers
from tests.support.sync_pair import KEY, LATER, USER_COUNT, SyncPair
from tests.support.users import add_users, email_of, event_of

pytest_plugins = ["tests.support.synced"]


def test_users_that_nobody_changed_are_as_sent(synced: SyncPair) -> None:
    findings = synced.findings()
    assert {finding.comparison for finding in findings} == {Comparison.AS_SENT}
    assert {f.user_id for f in findings if f.kind is RequestKind.EVENT} == {
        *range(1, USER_COUNT + 1)
    }
    tally = VerificationTally()
    for finding in findings:
        tally.add(finding)
    assert str(tally) == "12 profiles and 12 events as sent"
    assert tally.is_complete
    assert not tally.has_differences


def test_verify_writes_neither_to_iterable_nor_to_the_state_file(synced: SyncPair) -> None:
    writes_before = [call for call in synced.iterable.calls if call.body]
    state_before = synced.settings.state_file.read_bytes()
    synced.findings()
    assert [call for call in synced.iterable.calls if call.body] == writes_before
    assert synced.settings.state_file.read_bytes() == state_before


def test_a_field_changed_in_iterable_is_reported_with_both_values(synced: SyncPair) -> None:
    synced.change_profile(3, first_name="Mallory")
    (finding,) = synced.wrong()
    assert (finding.user_id, finding.comparison) == (3, Comparison.DIFFERENT)
    assert str(finding) == (
        'user 3: the profile differs: first_name was sent as "First3" and is "Mallory"'
    )


def test_only_the_fields_that_differ_are_named(synced: SyncPair) -> None:
    synced.change_profile(4, last_name="gone", recent_page_view=1, plan_type="pro ")
    (finding,) = synced.wrong()
    assert str(finding) == (
        'user 4: the profile differs: last_name was sent as "Last4" and is absent; '
        'plan_type was sent as "pro" and is "pro "; recent_page_view was sent as true and is 1'
    )
    assert "First4" not in str(finding)


def test_fields_that_were_not_sent_are_ignored(synced: SyncPair) -> None:
    synced.change_profile(5, favourite_colour="red", phoneNumber="+15550100")
    assert not synced.wrong()


def test_a_profile_deleted_in_iterable_is_missing(synced: SyncPair) -> None:
    del synced.iterable.project.users[email_of(6)]
    assert [(each.comparison, str(each)) for each in synced.wrong()] == [
        (Comparison.MISSING, "user 6: the profile is not in Iterable"),
        (Comparison.MISSING, "user 6: the event is not in Iterable"),
    ]


def confirm(path: Path, event_id: str, at: float) -> None:
    file = ConfirmationsFile(path)
    file.add([Received(Webhook(1, "page_view", (to_event_hash(event_id),)), int(at))])
    file.close()


def test_an_event_that_a_webhook_has_confirmed_counts_as_found(synced: SyncPair) -> None:
    event = synced.event(7)
    synced.take_event(event)
    confirm(synced.settings.confirmations_file, event.id, time.time())
    assert not synced.wrong()


def test_a_confirmation_from_before_the_delivery_was_taken_as_its_proof(synced: SyncPair) -> None:
    """The event may have been sent once more since, with other fields and the same id."""
    event = synced.event(7)
    synced.take_event(event)
    confirm(synced.settings.confirmations_file, event.id, time.time() - 3_600)
    (finding,) = synced.wrong()
    assert (finding.user_id, finding.comparison) == (7, Comparison.MISSING)


def test_verify_failed_with_a_file_of_confirmations_that_cannot_be_used(
    synced: SyncPair, caplog: pytest.LogCaptureFixture
) -> None:
    synced.settings.confirmations_file.write_text("of another program")
    assert not synced.wrong()
    assert "is not a file of confirmations" in caplog.text
    assert "Every event is read back." in caplog.text


def test_an_event_deleted_in_iterable_is_missing(synced: SyncPair) -> None:
    synced.take_event(synced.event(7))
    (finding,) = synced.wrong()
    assert (finding.user_id, finding.kind, finding.comparison) == (
        7,
        RequestKind.EVENT,
        Comparison.MISSING,
    )


def test_an_event_with_another_field_or_time_is_different(synced: SyncPair) -> None:
    event = synced.event(8)
    event.fields_json = orjson.dumps({**event_of(8), "page": "home"}).decode()
    event.created_at += 1
    (finding,) = synced.wrong()
    assert finding.comparison is Comparison.DIFFERENT
    assert finding.details[0].startswith("differs: createdAt was sent as 176831")
    assert finding.details[1] == 'page was sent as "pricing" and is "home"'


def test_an_event_older_than_the_200_newest_is_reported_as_such(synced: SyncPair) -> None:
    ours = synced.event(2)
    for number in range(200):
        created_at = ours.created_at + 1 + number
        synced.put_event(replace(ours, id=f"newer-{number}", created_at=created_at))
    (finding,) = synced.wrong()
    assert "not among the newest 200" in str(finding)


def test_a_row_that_left_the_query_or_changed_is_not_compared(synced: SyncPair) -> None:
    synced.source.run_sql("DELETE FROM page_views WHERE user_id = 1")
    synced.source.run_sql("UPDATE customers SET first_name = 'New' WHERE id = 2")
    synced.change_profile(1, first_name="Mallory")
    synced.change_profile(2, first_name="Mallory")
    asked = {(finding.user_id, finding.kind) for finding in synced.findings()}
    assert not {(1, RequestKind.PROFILE), (1, RequestKind.EVENT), (2, RequestKind.PROFILE)} & asked
    assert (2, RequestKind.EVENT) in asked


def test_an_event_that_was_never_delivered_is_not_read(
    tmp_path: Path, embedded: SourceDatabase
) -> None:
    add_users(embedded.run_sql, range(1, 4))
    with IterableSandbox(api_key=KEY, disallowed_events=["page_view"]) as iterable:
        synced = SyncPair(tmp_path, embedded, iterable)
        synced.sync()
        findings = synced.findings()
    assert [finding.kind for finding in findings] == [RequestKind.PROFILE] * 3


def test_no_more_users_than_the_count_are_read(synced: SyncPair) -> None:
    assert len(synced.findings(5)) == 10
    assert len({finding.user_id for finding in synced.findings(5)}) == 5


def test_users_of_the_last_run_come_first(synced: SyncPair) -> None:
    with sqlite3.connect(synced.settings.state_file) as state:  # as if that had been yesterday
        state.execute("UPDATE delivered SET profile_at = profile_at - 86400, event_at = 1")
    synced.source.run_sql(
        "UPDATE customers SET first_name = 'New' WHERE id IN (3, 9); UPDATE customers"
        " SET candidate = NULL WHERE id = 5"
    )
    synced.sync()
    assert {finding.user_id for finding in synced.findings(3)} == {3, 5, 9}


def test_users_whose_rows_are_gone_are_replaced_by_others(synced: SyncPair) -> None:
    remember_other_users(synced)
    assert len({finding.user_id for finding in synced.findings(3)}) == 3


def remember_other_users(synced: SyncPair) -> None:
    """Add newer users, who are not in the query's result, to the state file."""
    with closing(sqlite3.connect(synced.settings.state_file)) as state, state:
        state.executemany(
            "INSERT INTO delivered (user_key, profile_hash, profile_at) VALUES (?, 1, ?)",
            [(number, LATER) for number in range(1_000)],
        )


@pytest.fixture
def with_many_rows(tmp_path: Path, mariadb: SourceDatabase, iterable: IterableSandbox) -> SyncPair:
    """A synced pair whose query then returns 100,000 rows more, after the 12 usual ones."""
    add_users(mariadb.run_sql, range(1, USER_COUNT + 1))
    pair = SyncPair(tmp_path, mariadb, iterable)
    pair.sync()
    usual = pair.settings.query_file.read_text(encoding="utf-8").strip().rstrip(";")
    columns = "1, CONCAT(seq, '@example.com'), 'x', 'x', 'pro', 'x', 'x', 'x', 'x', 'x', NOW()"
    query_file = tmp_path / "many.sql"
    query_file.write_text(
        f"SELECT * FROM ({usual}) AS usual UNION ALL SELECT {columns} FROM {numbers(100_000)}",
        encoding="utf-8",
    )
    pair.settings = replace(pair.settings, query_file=query_file)
    return pair


def test_rows_are_read_only_until_enough_users_are_found(with_many_rows: SyncPair) -> None:
    choice = choose_delivered_rows(with_many_rows.settings, 3, threading.Event())
    assert len(choice.rows) == 3
    assert choice.read_count < 10_000
    assert not choice.ran_out_of_time


def test_reading_ends_in_time_although_more_users_are_wanted(with_many_rows: SyncPair) -> None:
    choice = choose_delivered_rows(with_many_rows.settings, 13, threading.Event(), max_seconds=0)
    assert len(choice.rows) == USER_COUNT
    assert choice.read_count < 10_000
    assert choice.ran_out_of_time


def test_there_was_said_to_be_nothing_to_verify_when_most_rows_were_not_read(
    with_many_rows: SyncPair,
) -> None:
    with closing(sqlite3.connect(with_many_rows.settings.state_file)) as state, state:
        state.execute("UPDATE delivered SET profile_hash = 1, event_hash = 1")
    with pytest.raises(VerificationError, match="no row is unchanged") as caught:
        list(verify(with_many_rows.settings, 3, threading.Event(), max_read_seconds=0))
    assert "nothing to verify" not in str(caught.value)


def test_addresses_with_special_characters_are_read_back(
    tmp_path: Path, embedded: SourceDatabase
) -> None:
    for number, email in enumerate(
        ("a+b@example.com", "o''brien/x@example.com", "50%off?&x=1#y@example.com", "Q@EXAMPLE.com"),
        start=1,
    ):
        embedded.run_sql(
            f"INSERT INTO customers (id, email, plan_type) VALUES ({number}, ' {email} ', 'pro');"
            "INSERT INTO page_views (user_id, page, event_time)"
            f" VALUES ({number}, 'pricing', '2026-01-13 14:30:45')"
        )
    with IterableSandbox(api_key=KEY) as iterable:
        synced = SyncPair(tmp_path, embedded, iterable)
        synced.sync()
        assert len(synced.findings()) == 8
        assert not synced.wrong()


@pytest.mark.slow
def test_no_more_than_100_requests_a_second_are_made(
    tmp_path: Path, embedded: SourceDatabase
) -> None:
    add_users(embedded.run_sql, range(1, 151))
    with IterableSandbox(api_key=KEY) as iterable:
        synced = SyncPair(tmp_path, embedded, iterable)
        synced.sync()
        before = len(iterable.calls)
        assert len(synced.findings(150)) == 300
        times = [call.at for call in iterable.calls[before:] if call.endpoint == "events/{email}"]
    busiest = max(sum(start <= at < start + 1 for at in times) for start in times)
    # Without a rate limiter: 150. On a busy machine a few late ones arrive with the next.
    assert 50 < busiest <= 110


# What is printed


def test_verify_ignored_json(synced: SyncPair, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_verify(synced.settings, 100, as_json=True) == ExitStatus.OK
    as_sent = {"as_sent": 12, "different": 0, "missing": 0, "not_read_back": 0}
    assert json.loads(capsys.readouterr().out) == {
        "profiles": as_sent,
        "events": as_sent,
        "findings": [],
    }


def test_the_findings_are_json_with_their_details(synced: SyncPair) -> None:
    synced.change_profile(3, first_name="Mallory")
    (finding,) = synced.wrong()
    assert finding.to_json() == {
        "user_id": 3,
        "email": email_of(3),
        "request": "profile",
        "result": "different",
        "details": ['differs: first_name was sent as "First3" and is "Mallory"'],
    }


def test_a_quiet_verify_prints_nothing_if_all_is_as_sent(
    synced: SyncPair, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_verify(synced.settings, 100, quiet=True) == ExitStatus.OK
    assert capsys.readouterr().out == ""
    assert run_verify(synced.settings, 100) == ExitStatus.OK
    assert capsys.readouterr().out == "Result: 12 profiles and 12 events as sent\n"
