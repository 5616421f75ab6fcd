"""What the state file keeps of a kind of request that a run has ended."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import orjson
import pytest

from records.outcomes import Verdict
from records.rows import Finished, PendingRow, RequestKind
from state.outbox import Outbox
from tests.support.rows import MAPPING, Row, call_result, email_of, fill, row, rows

PROFILE, EVENT = RequestKind.PROFILE, RequestKind.EVENT
WRONG_TYPE = "RequestFieldsTypesMismatched"
NUMBERS = range(1, 301)


def begin(outbox: Outbox, found: Sequence[Row], *, hours: int = 24) -> list[PendingRow]:
    fill(outbox, found, MAPPING, rejected_retry_hours=hours)
    outbox.begin_delivery(is_complete_read=True)
    return list(outbox.pending())


def settle(
    outbox: Outbox,
    pending: Sequence[PendingRow],
    kind: RequestKind,
    verdict: Verdict = Verdict.REJECTED,
    code: str = WRONG_TYPE,
) -> None:
    result = call_result(verdict, http_status=400, code=code)
    outbox.record([Finished(each.seq, kind, result, time.time()) for each in pending])


def reject_some_events(outbox: Outbox, found: Sequence[Row], count: int = 40) -> None:
    """Deliver all profiles, have some events rejected, and end the events."""
    pending = begin(outbox, found)
    settle(outbox, pending, PROFILE, Verdict.DELIVERED, "Success")
    settle(outbox, pending[:count], EVENT)
    outbox.end_kind(EVENT, WRONG_TYPE)


def user_key(number: int) -> int:
    key = MAPPING.key(row(number))
    assert key is not None
    return key.user_key


def seqs_of(tried: Sequence[PendingRow]) -> list[int]:
    return [each.seq for each in tried]


def test_nothing_is_tried_first_where_no_kind_has_ended(outbox: Outbox) -> None:
    begin(outbox, rows(*NUMBERS))
    assert outbox.rows_to_try_first() == {}
    assert outbox.mass_rejections.code(EVENT) is None


def test_up_to_20_rows_that_were_left_out_are_tried_first(outbox: Outbox) -> None:
    reject_some_events(outbox, rows(*NUMBERS))
    assert outbox.mass_rejections.code(EVENT) == WRONG_TYPE
    begin(outbox, rows(*NUMBERS))
    tried = outbox.rows_to_try_first()
    assert list(tried) == [EVENT]
    seqs = seqs_of(tried[EVENT])
    assert len(set(seqs)) == 20
    assert seqs == sorted(seqs)
    assert 40 <= min(seqs) < 60
    assert max(seqs) > 200  # from all over the query
    assert all(each.profile is None and each.event for each in tried[EVENT])


def test_rejected_rows_are_tried_where_few_were_left_out(outbox: Outbox) -> None:
    reject_some_events(outbox, rows(*range(1, 51)), count=45)
    begin(outbox, rows(*range(1, 51)))
    seqs = seqs_of(outbox.rows_to_try_first()[EVENT])
    assert len(seqs) == 20
    assert seqs[-5:] == list(range(45, 50))
    assert all(seq < 45 for seq in seqs[:-5])


def test_others_are_tried_next_if_some_were_accepted_or_none_was_left_out(outbox: Outbox) -> None:
    reject_some_events(outbox, rows(*range(1, 51)), count=50)
    chosen = []
    for accepted in (0, 9):
        begin(outbox, rows(*NUMBERS))
        tried = outbox.rows_to_try_first()[EVENT]
        settle(outbox, tried[:accepted], EVENT, Verdict.DELIVERED, "Success")
        settle(outbox, tried[accepted:], EVENT)
        outbox.end_kind(EVENT, WRONG_TYPE)
        chosen.append(set(seqs_of(tried)))
    assert all(seq < 50 for seq in chosen[0])
    begin(outbox, rows(*NUMBERS))
    chosen.append(set(seqs_of(outbox.rows_to_try_first()[EVENT])))
    assert not chosen[1] & chosen[2]


def test_another_code_is_noted_with_other_rows(outbox: Outbox) -> None:
    reject_some_events(outbox, rows(*NUMBERS))
    begin(outbox, rows(*NUMBERS))
    settle(outbox, outbox.rows_to_try_first()[EVENT], EVENT, code="AnotherCode")
    outbox.end_kind(EVENT, "AnotherCode")
    assert outbox.mass_rejections.code(EVENT) == "AnotherCode"


def test_the_same_rows_are_tried_by_each_run(outbox: Outbox) -> None:
    reject_some_events(outbox, rows(*NUMBERS))
    chosen = []
    for _ in range(3):
        begin(outbox, rows(*NUMBERS))
        tried = outbox.rows_to_try_first()[EVENT]
        settle(outbox, tried, EVENT)
        outbox.end_kind(EVENT, WRONG_TYPE)
        chosen.append(seqs_of(tried))
    assert chosen[0] == chosen[1] == chosen[2]


def test_other_rows_are_noted_when_few_of_the_former_ones_are_left(outbox: Outbox) -> None:
    reject_some_events(outbox, rows(*NUMBERS))
    noted = set().union(*outbox.mass_rejections.users(EVENT))
    found = [each for each in NUMBERS if user_key(each) not in noted]
    still = [each for each in NUMBERS if user_key(each) in noted][:3]
    begin(outbox, rows(*found, *still))
    tried = outbox.rows_to_try_first()[EVENT]
    assert len(tried) == 3
    settle(outbox, tried, EVENT)
    outbox.end_kind(EVENT, WRONG_TYPE)
    begin(outbox, rows(*found))
    assert len(outbox.rows_to_try_first()[EVENT]) == 20


def test_a_user_whose_event_is_delivered_in_the_meantime_is_not_tried(outbox: Outbox) -> None:
    numbers = range(1, 23)
    reject_some_events(outbox, rows(*numbers), count=2)
    pending = begin(outbox, rows(1))
    settle(outbox, pending, EVENT, Verdict.DELIVERED, "Success")
    begin(outbox, rows(*numbers))
    tried = {each.email for each in outbox.rows_to_try_first()[EVENT]}
    assert len(tried) == 20
    assert tried <= {email_of(number) for number in numbers if number != 1}


@pytest.mark.parametrize(("count", "is_tried"), [(20, False), (21, True)])
def test_none_is_tried_first_where_no_more_than_20_wait(
    outbox: Outbox, count: int, is_tried: bool
) -> None:
    reject_some_events(outbox, rows(*NUMBERS))
    begin(outbox, rows(*range(1, count + 1)))
    assert bool(outbox.rows_to_try_first()) is is_tried
    assert (outbox.mass_rejections.code(EVENT) is not None) is is_tried


def test_rejections_with_the_code_are_not_remembered_before_and_after_the_end(
    outbox: Outbox,
) -> None:
    pending = begin(outbox, rows(1, 2, 3))
    settle(outbox, pending, PROFILE, Verdict.DELIVERED, "Success")
    settle(outbox, pending[:1], EVENT)
    outbox.end_kind(EVENT, WRONG_TYPE)
    settle(outbox, pending[1:2], EVENT)  # it was under way
    settle(outbox, pending[2:], EVENT, code="AnotherCode")
    assert seqs_of(begin(outbox, rows(1, 2, 3))) == [0, 1]


def test_rejections_of_an_earlier_run_stay_remembered(outbox: Outbox) -> None:
    pending = begin(outbox, rows(1, 2))
    settle(outbox, pending, PROFILE, Verdict.DELIVERED, "Success")
    long_ago = time.time() - 3_600
    result = call_result(Verdict.REJECTED, http_status=400, code=WRONG_TYPE)
    outbox.record([Finished(0, EVENT, result, long_ago)])
    pending = begin(outbox, rows(1, 2))
    assert seqs_of(pending) == [1]
    settle(outbox, pending, EVENT)
    outbox.end_kind(EVENT, WRONG_TYPE)
    assert seqs_of(begin(outbox, rows(1, 2))) == [1]


def test_the_note_is_on_the_disk_at_once(path: Path, outbox: Outbox) -> None:
    reject_some_events(outbox, rows(*NUMBERS))
    with closing(sqlite3.connect(path)) as second:
        (note,) = second.execute(
            "SELECT value FROM remembered WHERE name = 'mass_rejection_event'"
        ).fetchone()
    noted = orjson.loads(note)
    assert set(noted) == {"code", "left_out", "rejected"}
    assert len(noted["left_out"]) == 100
    assert len(noted["rejected"]) == 40
    assert all(isinstance(user, int) for user in [*noted["left_out"], *noted["rejected"]])


def test_a_million_rows_that_need_only_what_has_ended_are_not_read(outbox: Outbox) -> None:
    pending = begin(outbox, rows(1, 2, 3))
    settle(outbox, pending[:1], PROFILE, Verdict.DELIVERED, "Success")
    begin(outbox, rows(1, 2, 3))
    outbox.end_kind(EVENT, WRONG_TYPE)
    assert seqs_of(list(outbox.pending())) == [1, 2]
    outbox.end_kind(PROFILE, WRONG_TYPE)
    assert list(outbox.pending()) == []


def test_the_noted_users_are_from_all_over_the_query(outbox: Outbox) -> None:
    reject_some_events(outbox, rows(*range(1, 1_001)), count=1)
    numbers = {user_key(number): number for number in range(1, 1_001)}
    noted = sorted(numbers[user] for user in outbox.mass_rejections.users(EVENT).left_out)
    assert len(noted) == 100
    assert max(after - before for before, after in pairwise(noted)) < 50


def test_both_kinds_are_noted(outbox: Outbox) -> None:
    pending = begin(outbox, rows(*NUMBERS))
    settle(outbox, pending[:20], PROFILE, code="A")
    outbox.end_kind(PROFILE, "A")
    outbox.end_kind(EVENT, None)
    assert outbox.mass_rejections.code(PROFILE) == "A"
    assert outbox.mass_rejections.code(EVENT) == ""
    begin(outbox, rows(*NUMBERS))
    assert set(outbox.rows_to_try_first()) == {PROFILE, EVENT}
    outbox.mass_rejections.forget(PROFILE)
    assert outbox.mass_rejections.code(PROFILE) is None
    assert not any(outbox.mass_rejections.users(PROFILE))
    assert any(outbox.mass_rejections.users(EVENT))


@pytest.mark.parametrize(
    "value",
    [None, "", "no JSON", "[]", "7", '{"left_out": 7}', '{"rejected": ["a", null]}', b"\xff"],
)
def test_a_note_that_no_version_writes_counts_as_none(
    path: Path, outbox: Outbox, value: object
) -> None:
    with closing(sqlite3.connect(path)) as second:
        second.execute("INSERT INTO remembered VALUES ('mass_rejection_event', ?)", (value,))
        second.commit()
    begin(outbox, rows(1))
    assert not any(outbox.mass_rejections.users(EVENT))
    assert outbox.rows_to_try_first() == {}


def test_a_kind_that_ends_after_its_first_rows_got_through_is_noted_again(outbox: Outbox) -> None:
    reject_some_events(outbox, rows(*NUMBERS))
    pending = begin(outbox, rows(*NUMBERS))
    tried = outbox.rows_to_try_first()[EVENT]
    assert len(tried) == 20
    settle(outbox, tried, EVENT, Verdict.DELIVERED, "Success")
    outbox.mass_rejections.forget(EVENT)
    settle(outbox, [each for each in pending if each not in tried][:40], EVENT, code="AnotherCode")
    outbox.end_kind(EVENT, "AnotherCode")
    assert outbox.mass_rejections.code(EVENT) == "AnotherCode"
    begin(outbox, rows(*NUMBERS))
    assert len(outbox.rows_to_try_first()[EVENT]) == 20


def test_a_kind_that_ends_with_another_code_is_noted_with_it(outbox: Outbox) -> None:
    reject_some_events(outbox, rows(*NUMBERS))
    begin(outbox, rows(*NUMBERS))
    settle(outbox, outbox.rows_to_try_first()[EVENT], EVENT, code="AnotherCode")
    outbox.end_kind(EVENT, "AnotherCode")
    assert outbox.mass_rejections.code(EVENT) == "AnotherCode"
