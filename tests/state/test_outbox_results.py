"""Recording results in the outbox: what is remembered, reported and cleared."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

from records.identity import to_key_of_user_id
from records.mapping import RowMapping
from records.outcomes import Verdict
from records.rows import Failure, Finished, RequestKind
from state.database import StateError
from state.outbox import Outbox
from tests.support.rows import (
    COLUMNS,
    MAPPING,
    call_result,
    contents,
    deliver_all,
    email_of,
    failures_of,
    fill,
    finished,
    later,
    outcomes_of,
    row,
    rows,
    run_python,
)

# Recording


@pytest.mark.parametrize("verdict", [Verdict.REJECTED, Verdict.UNAVAILABLE, Verdict.REFUSED])
@pytest.mark.parametrize("kind", RequestKind)
def test_only_delivered_requests_are_remembered(
    outbox: Outbox, verdict: Verdict, kind: RequestKind
) -> None:
    other = RequestKind.EVENT if kind is RequestKind.PROFILE else RequestKind.PROFILE
    fill(outbox, rows(1))
    outbox.record(finished(outbox.pending(), kind, verdict))
    assert outcomes_of(outbox) == {email_of(1): "total_failure"}
    known = row(1, first_name="Ann", page="settings")  # as any user who was delivered once
    fill(outbox, [known])
    deliver_all(outbox)
    fill(outbox, rows(1))
    (waiting,) = outbox.pending()
    assert waiting.profile
    assert waiting.event
    outbox.record(finished([waiting], other))
    fill(outbox, rows(1))
    (waiting,) = outbox.pending()
    assert bool(waiting.profile) == (kind is RequestKind.PROFILE)
    assert bool(waiting.event) == (kind is RequestKind.EVENT)


def test_the_event_of_a_user_whose_profile_was_never_delivered_stays_in_doubt(
    outbox: Outbox,
) -> None:
    fill(outbox, rows(1))
    (waiting,) = outbox.pending()
    outbox.record(finished([waiting], RequestKind.PROFILE, Verdict.UNAVAILABLE))
    outbox.record(finished([waiting], RequestKind.EVENT))
    assert outcomes_of(outbox) == {email_of(1): "partial_failure"}
    fill(outbox, rows(1))
    (again,) = outbox.pending()
    assert again.event == waiting.event
    deliver_all(outbox)
    assert fill(outbox, rows(1)).to_send == 0
    # A later failure of the profile does not put a new event in doubt.
    fill(outbox, [row(1, first_name="Ann", page="settings")])
    (waiting,) = outbox.pending()
    outbox.begin_delivery()
    outbox.record(finished([waiting], RequestKind.PROFILE, Verdict.UNAVAILABLE))
    outbox.record(finished([waiting], RequestKind.EVENT))
    fill(outbox, [row(1, first_name="Ann", page="settings")])
    (waiting,) = outbox.pending()
    assert (bool(waiting.profile), bool(waiting.event)) == (True, False)


def test_in_a_project_that_may_be_another_one_an_event_before_its_profile_was_not_sent_again(
    outbox: Outbox,
) -> None:
    fill(outbox, rows(1))
    deliver_all(outbox)
    fill(outbox, [row(1, first_name="Ann", page="settings")])
    outbox.begin_delivery(is_project_proven=False)
    (waiting,) = outbox.pending()
    outbox.record(finished([waiting], RequestKind.PROFILE, Verdict.UNAVAILABLE))
    outbox.record(finished([waiting], RequestKind.EVENT))
    fill(outbox, [row(1, first_name="Ann", page="settings")])
    (waiting,) = outbox.pending()
    assert (bool(waiting.profile), bool(waiting.event)) == (True, True)


# In doubt


def test_a_value_that_goes_back_after_a_lost_response_was_called_unchanged(outbox: Outbox) -> None:
    fill(outbox, rows(1))
    deliver_all(outbox)
    fill(outbox, [row(1, first_name="Ann", page="settings")])
    outbox.begin_delivery()  # both may have reached Iterable, and nothing is recorded
    assert fill(outbox, rows(1)).to_send == 1
    (waiting,) = outbox.pending()
    assert waiting.profile
    assert waiting.event


@pytest.mark.parametrize("verdict", [Verdict.REJECTED, Verdict.UNAVAILABLE, None])
def test_a_failed_or_interrupted_full_refresh_was_forgotten(
    outbox: Outbox, verdict: Verdict | None
) -> None:
    fill(outbox, rows(1, 2, 3))
    deliver_all(outbox)
    fill(outbox, rows(1, 2, 3), full_refresh=True)
    one, two, _three = outbox.pending()
    outbox.begin_delivery()
    for kind in RequestKind:
        outbox.record(finished([one], kind))
        if verdict is not None:
            outbox.record(finished([two], kind, verdict))
    assert fill(outbox, rows(1, 2, 3)).to_send == 2
    assert [waiting.user_id for waiting in outbox.pending()] == [2, 3]


def test_a_fill_without_a_delivery_puts_nothing_in_doubt(outbox: Outbox) -> None:
    fill(outbox, rows(1))
    deliver_all(outbox)
    fill(outbox, rows(1), full_refresh=True)
    fill(outbox, [row(1, first_name="Ann")])
    assert fill(outbox, rows(1)).to_send == 0


# Event ids that the query gives

NAMED = (*COLUMNS, "event_id")


def named(number: int, event_id: object, **changes: Any) -> tuple[Any, ...]:
    return (*row(number, **changes), event_id)


def fill_named(outbox: Outbox, *found: tuple[Any, ...]) -> dict[str, str]:
    """Fill the outbox; return what waits by e-mail."""
    fill(outbox, found, RowMapping(NAMED))
    return {
        str(each.email): f"{'profile ' * bool(each.profile)}{'event' * bool(each.event)}".strip()
        for each in outbox.pending()
    }


def test_an_event_that_changes_hands_and_comes_back_was_called_unchanged(outbox: Outbox) -> None:
    ann, bob = email_of(1), email_of(2)
    assert fill_named(outbox, named(1, "E-1")) == {ann: "profile event"}
    deliver_all(outbox)
    assert fill_named(outbox, named(1, "E-1", email=bob)) == {bob: "profile event"}
    deliver_all(outbox)
    assert fill_named(outbox, named(1, "E-1")) == {ann: "event"}
    deliver_all(outbox)
    assert fill_named(outbox, named(1, "E-1")) == {}
    assert fill_named(outbox, named(1, "E-1", email=bob)) == {bob: "event"}


def test_an_event_that_may_have_changed_hands_is_sent_again(outbox: Outbox) -> None:
    fill_named(outbox, named(1, "E-1"))
    deliver_all(outbox)
    fill_named(outbox, named(1, "E-1", email=email_of(2)))
    outbox.begin_delivery()  # the response is lost
    assert fill_named(outbox, named(1, "E-1")) == {email_of(1): "event"}


def test_rows_of_two_users_with_one_event_id_are_invalid_and_name_each_other(
    outbox: Outbox,
) -> None:
    waiting = fill_named(outbox, named(1, "E-1"), named(2, "E-2"))
    deliver_all(outbox)
    waiting = fill_named(outbox, *[named(n, "E-1") for n in (1, 2, 3)], named(4, "E-4"))
    assert waiting == {email_of(4): "profile event"}
    assert [each.reason for each in outbox.settled()] == [
        "the event_id is not unique: user 2 has it, too",
        "the event_id is not unique: user 3 has it, too",
        "the event_id is not unique: user 1 has it, too",
        None,
    ]
    assert failures_of(outbox) == [Failure("row", "invalid", "the event_id is not unique", 3, 1)]


def test_an_older_row_of_the_same_user_shares_no_event_id(outbox: Outbox) -> None:
    waiting = fill_named(
        outbox, named(1, "E-1"), named(2, "E-1", email=email_of(1), event_time=later(1))
    )
    assert waiting == {email_of(1): "profile event"}


# Two runs on one file


def test_a_run_whose_state_file_another_run_has_taken_over_records_nothing(
    path: Path, outbox: Outbox
) -> None:
    fill(outbox, rows(1, 2))
    outbox.begin_delivery()
    waiting = list(outbox.pending())
    other = Outbox(path)
    fill(other, [row(1, first_name="Ann"), *rows(3, 4)])
    other.begin_delivery()
    for attempt in (
        lambda: outbox.record(finished(waiting, RequestKind.PROFILE)),
        lambda: list(outbox.pending()),
        lambda: outbox.events_of([0]),
        lambda: outbox.begin_delivery(),
    ):
        with pytest.raises(StateError, match="Another run has taken over the state file"):
            attempt()
    # Its results file still accounts for its own rows.
    assert [each.user_id for each in outbox.take_settled(1, 9)] == [1]
    assert [each.user_id for each in outbox.settled()] == [2]
    deliver_all(other)
    assert fill(other, [row(1, first_name="Ann"), *rows(3, 4, 2)]).to_send == 1
    other.close()


@pytest.mark.parametrize(
    ("update", "event", "outcome"),
    [
        ("delivered", "delivered", "successful"),
        ("delivered", "rejected", "partial_failure"),
        ("delivered", None, "partial_failure"),
        ("unavailable", "delivered", "partial_failure"),
        ("rejected", "unavailable", "total_failure"),
        ("refused", None, "total_failure"),
        (None, None, "not_attempted"),
    ],
)
def test_an_outcome_follows_from_both_verdicts(
    outbox: Outbox, update: str | None, event: str | None, outcome: str
) -> None:
    fill(outbox, rows(1))
    (waiting,) = outbox.pending()
    for kind, verdict in ((RequestKind.PROFILE, update), (RequestKind.EVENT, event)):
        if verdict is not None:
            outbox.record(finished([waiting], kind, Verdict(verdict)))
    assert outcomes_of(outbox) == {email_of(1): outcome}


def deliver_older_rows(outbox: Outbox) -> None:
    """Make users 1 to 3 known to Iterable, with other values than `rows` gives."""
    fill(outbox, [row(n, first_name="Old", page="settings") for n in (1, 2, 3)])
    deliver_all(outbox)


@pytest.mark.parametrize("kind", RequestKind)
def test_a_request_delivered_by_an_earlier_run_counts_as_delivered(
    outbox: Outbox, kind: RequestKind
) -> None:
    other = RequestKind.EVENT if kind is RequestKind.PROFILE else RequestKind.PROFILE
    deliver_older_rows(outbox)
    fill(outbox, rows(1, 2, 3))
    outbox.record(finished(outbox.pending(), kind))
    fill(outbox, rows(1, 2, 3))
    one, two, _three = outbox.pending()
    outbox.record(finished([one], other))
    outbox.record(finished([two], other, Verdict.REJECTED))
    assert list(outcomes_of(outbox).values()) == ["successful", "partial_failure", "not_attempted"]


@pytest.mark.parametrize("kind", RequestKind)
def test_equal_verdicts_are_counted_by_what_was_delivered_before(
    outbox: Outbox, kind: RequestKind
) -> None:
    other = RequestKind.EVENT if kind is RequestKind.PROFILE else RequestKind.PROFILE
    deliver_older_rows(outbox)
    fill(outbox, rows(1, 2, 3))
    outbox.record(finished(list(outbox.pending())[:1], kind))
    fill(outbox, rows(1, 2, 3))
    outbox.record(finished(outbox.pending(), other))
    assert Counter(outcomes_of(outbox).values()) == {"successful": 1, "partial_failure": 2}


@pytest.mark.parametrize("kind", RequestKind)
def test_a_result_is_stored_as_reported_with_its_time(outbox: Outbox, kind: RequestKind) -> None:
    fill(outbox, rows(1, 2))
    _one, two = outbox.pending()
    reported = call_result(
        Verdict.REJECTED, http_status=400, code="BadParams", params={"ж": [1]}, attempts=3
    )
    outbox.record([Finished(two.seq, kind, reported, 1_768_400_000.25)])
    untouched, settled = outbox.settled()
    results = [settled.update_result, settled.event_result]
    result, other = results if kind is RequestKind.PROFILE else reversed(results)
    assert isinstance(result, str)
    assert orjson.loads(result) == reported.to_json()
    assert (other, settled.settled_at) == (None, 1_768_400_000.25)
    assert (settled.user_id, settled.email, settled.reason) == (2, email_of(2), None)
    assert (untouched.reason, untouched.update_result, untouched.event_result) == (None, None, None)
    assert untouched.settled_at is None


@pytest.mark.parametrize("kind", RequestKind)
def test_a_delivery_is_remembered_for_its_own_user_only(outbox: Outbox, kind: RequestKind) -> None:
    all_rows = rows(1, 2, 3)
    deliver_older_rows(outbox)
    fill(outbox, all_rows)
    outbox.record(finished(list(outbox.pending())[1:2], kind))
    fill(outbox, all_rows)
    one, two, three = outbox.pending()
    assert all([one.profile, one.event, three.profile, three.event])
    assert (two.profile is None, two.event is None) == (
        kind is RequestKind.PROFILE,
        kind is RequestKind.EVENT,
    )


def test_only_hashes_event_ids_and_times_are_remembered(path: Path, outbox: Outbox) -> None:
    expected: list[Any] = 9 * [None]
    for kind, found, at in (
        (RequestKind.PROFILE, row(1), 1_768_400_000),
        (RequestKind.EVENT, row(1), 1_768_400_001),
        (RequestKind.PROFILE, row(1, first_name="Ann"), 1_768_400_002),
        (RequestKind.EVENT, row(1, first_name="Ann", page="settings"), 1_768_400_003),
    ):
        fill(outbox, [found])
        (waiting,) = outbox.pending()
        outbox.record([Finished(waiting.seq, kind, call_result(), at + 0.75)])
        key = MAPPING.key(found)
        assert key is not None
        expected[0] = key.user_key
        if kind is RequestKind.PROFILE:
            expected[1:3] = key.profile_hash, at
            expected[8] = to_key_of_user_id("1")  # a hash of the row's id
        else:
            event_id = orjson.loads(waiting.event or b"")["id"]
            expected[3:7] = key.event_hash, MAPPING.event_settings, event_id, at
        with sqlite3.connect(path) as second:
            remembered = second.execute("SELECT * FROM delivered").fetchall()
        second.close()
        assert remembered == [tuple(expected)]


def test_recording_no_results_does_not_need_the_lock_of_the_file(
    path: Path, outbox: Outbox
) -> None:
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        outbox.record([])
    other.close()


def test_recorded_results_survive_a_kill(path: Path) -> None:
    script = """
import os, signal, sys
from pathlib import Path
from state.database import StateError
from state.outbox import Outbox
from tests.support.rows import deliver_all, fill, rows
outbox = Outbox(Path(sys.argv[1]))
fill(outbox, rows(1, 2))
deliver_all(outbox)
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert run_python(script, path) == -signal.SIGKILL
    outbox = Outbox(path)
    assert fill(outbox, rows(1, 2, 3)).to_send == 1
    outbox.close()


def test_a_kill_during_a_fill_leaves_no_personal_data_and_forgets_nothing(path: Path) -> None:
    outbox = Outbox(path)
    fill(outbox, rows(1))
    deliver_all(outbox)
    outbox.close()
    script = """
import os, signal, sys
from pathlib import Path
from state.outbox import Outbox
from tests.support.rows import MAPPING, rows
def breaking():
    for number in range(10, 4_000):
        yield rows(number)
    os.kill(os.getpid(), signal.SIGKILL)
Outbox(Path(sys.argv[1])).fill(breaking(), MAPPING)
"""
    assert run_python(script, path) == -signal.SIGKILL
    assert b"example.com" not in b"".join(contents(path.parent).values())
    outbox = Outbox(path)
    assert list(outbox.settled()) == []
    assert fill(outbox, rows(1, 2)).to_send == 1
    outbox.close()


# Telling


def test_failures_are_grouped_by_reason_the_most_frequent_first(outbox: Outbox) -> None:
    fill(outbox, rows(1))
    deliver_all(outbox)
    invalid = [row(7, email="nobody", id=user_id) for user_id in (7, 6, None, 6)]
    invalid += [row(9, email=None), row(10, email=None)]
    earlier = row(4, email=email_of(5), event_time=later(-1))  # a duplicate
    fill(outbox, [*rows(1, 5, 2, 3), *invalid, earlier])
    waiting = list(outbox.pending())
    outbox.record(finished(waiting, RequestKind.PROFILE, Verdict.REJECTED))
    outbox.record(finished(waiting[1:2], RequestKind.EVENT, Verdict.UNAVAILABLE))
    assert failures_of(outbox) == [
        Failure("row", "invalid", "malformed e-mail address", 4, 7),
        Failure("users/update", "rejected", "Success", 3, 5),
        Failure("row", "invalid", "no e-mail address", 2, 9),
        Failure("events/track", "unavailable", "Success", 1, 2),
    ]


@pytest.mark.parametrize("kind", RequestKind)
def test_failures_differ_by_verdict_and_by_code(outbox: Outbox, kind: RequestKind) -> None:
    verdicts = [
        *(6 * [(Verdict.REJECTED, "BadParams")]),
        *(3 * [(Verdict.REJECTED, "GenericError")]),
        *(2 * [(Verdict.UNAVAILABLE, "GenericError")]),
        (Verdict.UNAVAILABLE, None),
        *(5 * [(Verdict.DELIVERED, "Success")]),
    ]
    found = rows(*range(len(verdicts)))
    found[1:3] = [row(1, id=None), row(2, id=5)]  # two with the same id, one with none
    fill(outbox, found)
    outbox.record(
        [
            Finished(waiting.seq, kind, call_result(verdict, code=code), 0.0)
            for waiting, (verdict, code) in zip(outbox.pending(), verdicts, strict=True)
        ]
    )
    endpoint = "users/update" if kind is RequestKind.PROFILE else "events/track"
    assert failures_of(outbox) == [
        Failure(endpoint, "rejected", "BadParams", 6, 0),
        Failure(endpoint, "rejected", "GenericError", 3, 6),
        Failure(endpoint, "unavailable", "GenericError", 2, 9),
        Failure(endpoint, "unavailable", None, 1, 11),
    ]


# Rows that are done


def test_taken_rows_are_in_the_querys_order_and_gone_from_the_outbox(outbox: Outbox) -> None:
    invalid = row(9, email="nobody")
    fill(outbox, [row(5), invalid, *rows(3, 1)])
    five, three, _one = outbox.pending()
    outbox.record(finished([five, three], RequestKind.PROFILE))
    assert [each.user_id for each in outbox.take_settled(before_seq=3, limit=2)] == [5, 9]
    (third,) = outbox.take_settled(before_seq=3, limit=2)
    assert (third.user_id, third.state.update) == (3, "delivered")
    assert outbox.take_settled(before_seq=3, limit=2) == []
    assert [each.user_id for each in outbox.settled()] == [1]


def test_taking_rows_shrinks_the_file_of_the_outbox(path: Path, outbox: Outbox) -> None:
    outbox.fill([rows(*range(3_000))], MAPPING)
    size_before = size_of_outbox(path)
    outbox.take_settled(before_seq=2_899, limit=3_000)
    outbox.take_settled(before_seq=2_900, limit=3_000)  # releases the space of the rows before
    assert size_of_outbox(path) < size_before / 10
    assert len(list(outbox.pending())) == 100


def size_of_outbox(path: Path) -> int:
    """Return the size of the outbox that this process has open; its file has no name."""
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if os.readlink(descriptor).startswith(f"{path}-outbox"):
                return descriptor.stat().st_size
    raise AssertionError("no outbox is open")


# Personal data


def test_no_file_that_has_a_name_ever_contains_personal_data(path: Path) -> None:
    outbox = Outbox(path)
    found = [row(n, first_name=f"Canary{n}", location=f"Nowhere {n}") for n in range(500)]
    outbox.fill([found], MAPPING)
    deliver_all(outbox)
    for moment in ("open", "closed"):
        written = b"".join(contents(path.parent).values())
        personal = (b"example.com", b"Canary", b"Nowhere", b"Johnson")
        assert not [word for word in personal if word in written], moment
        if moment == "open":
            outbox.close()
    assert os.listdir(path.parent) == ["state.sqlite3"]


@pytest.mark.parametrize("make", ["file", "link", "hard link"])
def test_whatever_has_the_name_of_the_outbox_is_not_written_to(path: Path, make: str) -> None:
    victim, name = path.with_name("precious"), path.with_name("state.sqlite3-outbox")
    victim.write_text("precious")
    if make == "file":
        name.write_text("left behind")
    elif make == "link":
        name.symlink_to(victim)
    else:
        name.hardlink_to(victim)
    outbox = Outbox(path)
    fill(outbox, rows(1))
    outbox.close()
    assert victim.read_text() == "precious"
    assert sorted(os.listdir(path.parent)) == ["precious", "state.sqlite3"]
