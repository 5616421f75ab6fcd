"""Moves without a response, killed runs and users who leave, with `EMAIL_CHANGES=move`."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from commands.verify.run import verify
from config.settings import Settings
from iterable_api.comparison import Comparison
from sandbox.iterable_api import IterableSandbox
from state.outbox import Outbox
from sync.email_changes import EmailChangeReport, prepare_moves
from sync.signals import StopSignal
from tests.conftest import SourceDatabase
from tests.support.runs import Runs, counts_of
from tests.support.users import add_user, add_users, email_of
from tests.sync.test_run_email_changes import (
    MOVE,
    calls_of,
    change_state,
    changes_of,
    check,
    note_move,
    readdress,
    records_of,
)
from tests.sync.test_run_leavers import age_deliveries, flags, leave, leavers_of, left_of

NEW = "new@example.com"
OUTAGE = {"fault": "status", "status": 503, "endpoint": MOVE}


@pytest.fixture
def iterable() -> Iterator[IterableSandbox]:
    with IterableSandbox(keep_calls=1_000, forgotten=["forgotten@example.com"]) as running:
        yield running


@pytest.fixture
def runs(embedded: SourceDatabase, iterable: IterableSandbox, tmp_path: Path) -> Runs:
    """Runs after a first one, which delivered twenty users a day ago."""
    add_users(embedded.run_sql, range(1, 21))
    made = Runs.between(tmp_path, embedded, iterable, EMAIL_CHANGES="move", ON_LEAVE="clear")
    assert counts_of(made.run()) == {"successful": 20}
    age_deliveries(made)
    return made


def noted_moves(runs: Runs) -> set[tuple[str, str]]:
    with closing(sqlite3.connect(runs.state_file)) as database:
        return set(database.execute("SELECT user_id, new_email FROM noted_moves"))


def first_names(iterable: IterableSandbox) -> dict[str, Any]:
    users = iterable.project.users.values()
    return {str(user.email): user.data_fields.get("first_name") for user in users}


def apply_move(iterable: IterableSandbox, number: int, email: str) -> None:
    iterable.project.update_email({"currentEmail": email_of(number), "newEmail": email})


@pytest.mark.parametrize(
    "fault", [{"fault": "drop_after"}, {"fault": "status", "status": 504, "applied": True}]
)
def test_a_user_whose_move_lost_its_response_and_was_retried_counts_as_moved(
    runs: Runs, iterable: IterableSandbox, embedded: SourceDatabase, fault: dict[str, Any]
) -> None:
    """The second attempt says that Iterable has no user with the former address."""
    runs.settings["MAX_ATTEMPTS"] = "3"
    readdress(embedded, {3: NEW})
    iterable.set_faults([{**fault, "endpoint": MOVE, "times": 1}])
    assert changes_of(runs.run()) == {"moved": 1}
    check(iterable, {3: NEW})
    assert counts_of(runs.run()) == {"unchanged": 20}


@pytest.mark.parametrize("was_applied", [True, False])
def test_a_new_customer_with_the_former_address_of_a_move_without_response_waits(
    runs: Runs, iterable: IterableSandbox, embedded: SourceDatabase, was_applied: bool
) -> None:
    readdress(embedded, {3: NEW})
    iterable.set_faults([{**OUTAGE, "applied": was_applied}])
    runs.run()
    iterable.set_faults([])
    add_user(embedded.run_sql, 40, email_of(3), first_name="Other")
    assert changes_of(runs.run()) == {"moved": 1}
    assert "another user may still have its address" in records_of(runs)[40]["reason"]
    assert counts_of(runs.run()) == {"successful": 1, "unchanged": 20}
    names = first_names(iterable)
    assert (names[NEW], names[email_of(3)]) == ("First3", "Other")


@pytest.mark.parametrize("email", [email_of(3), "third@example.com"])
def test_a_new_customer_with_an_address_that_was_tried_waits(
    runs: Runs, iterable: IterableSandbox, embedded: SourceDatabase, email: str
) -> None:
    """The user has one more address, or the former one again."""
    note_move(runs, 3, NEW)
    apply_move(iterable, 3, NEW)
    readdress(embedded, {3: email})
    add_user(embedded.run_sql, 40, NEW, first_name="Other")
    assert counts_of(runs.run()) == {"successful": 1, "unchanged": 19, "not_attempted": 1}
    runs.run()
    names = first_names(iterable)
    assert (names[NEW], names[email]) == ("Other", "First3")


def test_a_partial_read_does_not_send_to_an_address_of_a_move_without_response(
    runs: Runs, iterable: IterableSandbox, embedded: SourceDatabase
) -> None:
    """The user who may have the address is not among the rows that are read."""
    leave(embedded, range(1, 2))
    runs.run()
    readdress(embedded, {20: NEW})
    iterable.set_faults([OUTAGE])
    runs.run()
    iterable.set_faults([])
    change_state(runs, "DELETE FROM members WHERE user_id = '1'")
    readdress(embedded, {1: email_of(20)})
    leave(embedded, range(1, 2), plan="pro")
    assert counts_of(runs.run(limit=5)) == {"unchanged": 4, "not_attempted": 1}
    runs.run()
    runs.run()
    names = first_names(iterable)
    assert (names[NEW], names[email_of(20)]) == ("First20", "First1")


def test_a_partial_read_does_not_count_a_row_as_unchanged_while_a_move_has_no_response(
    runs: Runs, iterable: IterableSandbox
) -> None:
    """The row is back at the former address, and the user may be at the new one."""
    note_move(runs, 3, NEW)
    apply_move(iterable, 3, NEW)
    assert counts_of(runs.run(limit=5)) == {"unchanged": 4, "not_attempted": 1}
    assert changes_of(runs.run()) == {"moved": 1}
    check(iterable, {})


def test_a_move_behind_one_without_response_is_not_noted(
    runs: Runs, iterable: IterableSandbox, embedded: SourceDatabase
) -> None:
    readdress(embedded, {3: email_of(4), 4: NEW})
    iterable.set_faults([OUTAGE])
    runs.run()
    assert noted_moves(runs) == {("4", NEW)}


def test_a_move_that_a_rejected_one_blocks_keeps_the_note_of_an_earlier_run(
    runs: Runs, embedded: SourceDatabase
) -> None:
    note_move(runs, 3, email_of(4))
    readdress(embedded, {3: email_of(4), 4: "forgotten@example.com"})
    assert changes_of(runs.run()) == {"failed": 2}
    assert noted_moves(runs) == {("3", email_of(4))}


@pytest.mark.parametrize("is_present", [True, False])
def test_clearing_does_not_try_an_address_that_somebody_else_has(
    runs: Runs, iterable: IterableSandbox, embedded: SourceDatabase, is_present: bool
) -> None:
    """The user of a killed move leaves, and is gone from Iterable."""
    tried = email_of(7) if is_present else NEW
    note_move(runs, 3, tried)
    if not is_present:
        add_users(embedded.run_sql, [40])
        readdress(embedded, {40: NEW})
    del iterable.project.users[email_of(3)]
    leave(embedded, range(3, 4))
    assert leavers_of(runs.run()) == {"found": 1, "gone": 1}
    assert flags(iterable)[tried] is True


def test_who_was_cleared_at_the_address_of_a_killed_move_comes_back_with_one_event(
    runs: Runs, iterable: IterableSandbox, embedded: SourceDatabase
) -> None:
    note_move(runs, 3, NEW)
    apply_move(iterable, 3, NEW)
    readdress(embedded, {3: NEW})
    leave(embedded, range(3, 4))
    assert leavers_of(runs.run()) == {"found": 1, "cleared": 1}
    assert flags(iterable)[NEW] is False
    leave(embedded, range(3, 4), plan="pro")
    assert changes_of(runs.run()) == {"moved": 1}
    check(iterable, {3: NEW})
    assert counts_of(runs.run()) == {"unchanged": 20}


def test_a_clock_that_was_ahead_does_not_hold_a_run_up(
    runs: Runs, embedded: SourceDatabase
) -> None:
    readdress(embedded, {3: NEW})
    assert changes_of(runs.run()) == {"moved": 1}
    change_state(runs, f"UPDATE noted_moves SET attempted_at = {time.time() + 30}")
    embedded.run_sql("UPDATE customers SET candidate = 'maybe' WHERE id = 3")
    began_at = time.monotonic()
    assert counts_of(runs.run()) == {"successful": 1, "unchanged": 19}
    assert time.monotonic() - began_at < 15


def test_who_was_moved_a_moment_ago_and_leaves_is_cleared_by_a_later_run(
    runs: Runs, iterable: IterableSandbox, embedded: SourceDatabase
) -> None:
    runs.settle_seconds = 60.0
    readdress(embedded, {3: NEW})
    assert changes_of(runs.run()) == {"moved": 1}
    leave(embedded, range(3, 4))
    assert leavers_of(runs.run()) == {"found": 1}
    assert [(each["outcome"], each["users_update"]) for each in left_of(runs)] == [
        ("waiting", None)
    ]
    assert flags(iterable)[NEW] is True
    change_state(runs, "UPDATE noted_moves SET attempted_at = attempted_at - 60")
    assert leavers_of(runs.run()) == {"found": 1, "cleared": 1}


def test_verify_leaves_out_who_was_cleared_at_the_address_of_a_killed_move(
    runs: Runs, iterable: IterableSandbox, embedded: SourceDatabase
) -> None:
    """Which of the two addresses the user has is not noted."""
    note_move(runs, 3, NEW)
    apply_move(iterable, 3, NEW)
    leave(embedded, range(3, 5))
    assert leavers_of(runs.run()) == {"found": 2, "cleared": 2}
    settings = Settings.from_environment(runs.settings)
    findings = list(verify(settings, 40, threading.Event()))
    assert {each.comparison for each in findings} == {Comparison.AS_SENT}
    assert "4" in {str(each.user_id) for each in findings}


def test_who_comes_back_with_another_address_long_after_the_clearing_is_moved(
    runs: Runs, iterable: IterableSandbox, embedded: SourceDatabase
) -> None:
    leave(embedded, range(3, 4))
    assert leavers_of(runs.run()) == {"found": 1, "cleared": 1}
    change_state(runs, "UPDATE members SET cleared_at = cleared_at - 31 * 86400")
    runs.run()
    leave(embedded, range(3, 4), plan="pro")
    readdress(embedded, {3: NEW})
    assert changes_of(runs.run()) == {"moved": 1}
    check(iterable, {3: NEW})


def test_moves_that_a_stop_keeps_from_their_first_attempt_are_not_noted(
    runs: Runs, iterable: IterableSandbox, embedded: SourceDatabase
) -> None:
    readdress(embedded, {number: f"new{number}@example.com" for number in range(1, 21)})
    iterable.set_faults([{"fault": "delay", "seconds": 0.4, "endpoint": MOVE}])
    count = len(iterable.calls)
    stop = StopSignal()
    threading.Timer(0.6, stop.event.set).start()
    runs.run(stop)
    assert len(noted_moves(runs)) <= calls_of(iterable, count)[MOVE] < 20


def test_a_row_that_is_left_out_keeps_its_failure(
    runs: Runs, iterable: IterableSandbox, embedded: SourceDatabase
) -> None:
    """It counted as resolved, and as new in the next run."""
    add_user(embedded.run_sql, 40, NEW, first_name="Other")
    rejected = {"fault": "status", "status": 400, "endpoint": "users/update", "email": NEW}
    iterable.set_faults([rejected])
    assert runs.run().summary.failures == {"new": 1, "known": 0, "resolved": 0}
    note_move(runs, 3, NEW)
    embedded.run_sql("UPDATE customers SET first_name = 'Changed' WHERE id = 40")
    report = runs.run()
    assert records_of(runs)[40]["outcome"] == "not_attempted"
    assert report.summary.failures["resolved"] == 0


def test_a_run_without_moves_does_not_read_the_outbox_for_them(runs: Runs) -> None:
    outbox = Outbox(runs.state_file)
    statements: list[str] = []
    with closing(outbox):
        outbox._database.set_trace_callback(statements.append)
        prepare_moves(outbox, EmailChangeReport(), is_complete_read=True)
    reads = [each for each in statements if each.startswith("SELECT")]
    assert reads
    assert not [each for each in reads if "noted_moves JOIN outbox" in each]
    assert not [each for each in reads if "json_each('[]')" in each]


def test_a_settled_move_is_forgotten_after_a_day(
    runs: Runs, iterable: IterableSandbox, embedded: SourceDatabase
) -> None:
    """The note has an e-mail address."""
    readdress(embedded, {3: NEW})
    assert changes_of(runs.run()) == {"moved": 1}
    assert noted_moves(runs) == {("3", NEW)}
    change_state(runs, "UPDATE noted_moves SET attempted_at = attempted_at - 100000")
    runs.run()
    assert noted_moves(runs) == set()
    assert iterable.project.users[NEW].data_fields["first_name"] == "First3"
