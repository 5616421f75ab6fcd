"""The guard against mass rejection: what it counts, and when it ends a kind of request."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest

from records.outcomes import CallResult, Verdict
from records.rows import PendingRow, RequestKind
from sync.mass_rejection import (
    MIN_JUDGED,
    SAMPLE_ROWS,
    RejectionGuard,
    choose_sample,
)
from tests.support.rows import call_result

PROFILE, EVENT = RequestKind.PROFILE, RequestKind.EVENT
WRONG_TYPE = "RequestFieldsTypesMismatched"
CLASH = {"validationErrors": {"page": {"expectedType": "long", "offendingValue": "pricing"}}}


def pending(seq: int, profile: bytes | None = b"p", event: bytes | None = b"e") -> PendingRow:
    return PendingRow(seq, f"id-{seq}", f"user{seq}@example.com", profile, event)


def delivered(*seqs: int) -> list[tuple[PendingRow, CallResult]]:
    return [(pending(seq), call_result()) for seq in seqs]


def rejected(
    *seqs: int, code: str | None = WRONG_TYPE, params: Any = None
) -> list[tuple[PendingRow, CallResult]]:
    result = call_result(Verdict.REJECTED, http_status=400, code=code, params=params)
    return [(pending(seq), result) for seq in seqs]


def ended_after(
    results: Sequence[tuple[PendingRow, CallResult]], percent: float = 50
) -> list[str | None]:
    guard = RejectionGuard(percent)
    guard.add(EVENT, results)
    return [each.code for each in guard.ended]


# What is counted, and when it is too much


def test_a_kind_ends_when_more_than_the_share_of_200_is_rejected() -> None:
    guard = RejectionGuard(50)
    guard.add(EVENT, [*rejected(*range(101)), *delivered(*range(101, 199))])
    assert guard.allows(EVENT)  # 101 of 199, too few to judge
    guard.add(EVENT, delivered(199))
    assert not guard.allows(EVENT)


def test_exactly_the_share_is_not_more_than_the_share() -> None:
    assert ended_after([*rejected(*range(100)), *delivered(*range(100, 200))]) == []
    assert ended_after([*rejected(*range(100)), *delivered(*range(100, 199))]) == []
    assert ended_after([*rejected(*range(101)), *delivered(*range(101, 201))]) == [WRONG_TYPE]


def test_the_share_is_that_of_the_whole_run() -> None:
    assert ended_after([*delivered(*range(1_000)), *rejected(*range(1_000, 2_000))]) == []
    assert ended_after([*delivered(*range(1_000)), *rejected(*range(1_000, 2_001))]) == [WRONG_TYPE]


def test_each_code_counts_for_itself() -> None:
    half = [*rejected(*range(100), code="A"), *rejected(*range(100, 200), code="B")]
    assert ended_after(half) == []
    assert ended_after([*half, *rejected(200, code="A")]) == ["A"]


def test_the_kinds_count_for_themselves() -> None:
    guard = RejectionGuard(50)
    guard.add(PROFILE, delivered(*range(1_000)))
    guard.add(EVENT, rejected(*range(MIN_JUDGED)))
    assert guard.allows(PROFILE)
    assert not guard.allows(EVENT)


@pytest.mark.parametrize("verdict", [Verdict.UNAVAILABLE, Verdict.REFUSED])
def test_a_request_without_a_judgement_of_its_content_does_not_count(verdict: Verdict) -> None:
    others = [(pending(seq), call_result(verdict, http_status=503)) for seq in range(500)]
    assert ended_after([*others, *rejected(*range(500, 699))]) == []
    assert ended_after([*others, *rejected(*range(500, 700))]) == [WRONG_TYPE]


def test_a_rejection_without_a_code_counts() -> None:
    assert ended_after(rejected(*range(200), code=None)) == [None]


@pytest.mark.parametrize(("percent", "ends"), [(0, True), (10, True), (25, False), (100, False)])
def test_the_share_is_a_setting_and_100_turns_the_guard_off(percent: float, ends: bool) -> None:
    results = [*rejected(*range(50)), *delivered(*range(50, 200))]
    assert ended_after(results, percent) == ([WRONG_TYPE] if ends else [])


def test_with_100_percent_a_kind_of_which_all_are_rejected_goes_on() -> None:
    assert ended_after(rejected(*range(1_000)), 100) == []
    assert not RejectionGuard(100).judges(EVENT)
    assert RejectionGuard(99.5).judges(EVENT)


def test_few_rejections_never_end_a_kind_unless_it_is_judged_for_a_reason() -> None:
    guard = RejectionGuard(50)
    guard.add(EVENT, [*rejected(1, 2), *delivered(3)])
    assert guard.allows(EVENT)
    assert not guard.accepts(EVENT)
    assert not guard.allows(EVENT)


def test_nothing_is_accepted_before_anything_was_counted() -> None:
    guard = RejectionGuard(50)
    assert not guard.accepts(EVENT)
    guard.add(EVENT, [(pending(1), call_result(Verdict.UNAVAILABLE))])
    assert not guard.accepts(EVENT)
    guard.add(EVENT, delivered(2))
    assert guard.accepts(EVENT)
    assert guard.allows(EVENT)


@pytest.mark.parametrize(("judged", "may_end"), [(SAMPLE_ROWS - 1, True), (SAMPLE_ROWS, False)])
def test_after_a_whole_sample_was_accepted_everything_is_sent(judged: int, may_end: bool) -> None:
    guard = RejectionGuard(50)
    guard.add(EVENT, delivered(*range(judged)))
    assert guard.accepts(EVENT)
    assert guard.judges(EVENT) is may_end
    guard.add(EVENT, rejected(*range(100, 400)))
    assert guard.allows(EVENT) is not may_end
    assert guard.judges(PROFILE)


def test_the_first_reason_stays() -> None:
    guard = RejectionGuard(50)
    guard.add(EVENT, rejected(*range(200), code="A"))
    guard.add(EVENT, rejected(*range(200, 900), code="B"))
    guard.add(PROFILE, rejected(*range(200), code="C"))
    assert [(each.kind, each.code) for each in guard.ended] == [(EVENT, "A"), (PROFILE, "C")]


# Samples of refused batches


def test_a_batch_of_rejected_rows_ends_a_kind_after_20_of_them() -> None:
    guard = RejectionGuard(50)
    assert guard.add_sample(EVENT, rejected(*range(SAMPLE_ROWS)), 1_000)
    assert not guard.allows(EVENT)


@pytest.mark.parametrize(("bad", "ends"), [(10, False), (11, True)])
def test_a_sample_ends_a_kind_when_more_than_the_share_is_rejected(bad: int, ends: bool) -> None:
    guard = RejectionGuard(50)
    guard.add_sample(EVENT, [*rejected(*range(bad)), *delivered(*range(bad, SAMPLE_ROWS))], 977)
    assert guard.allows(EVENT) is not ends


def test_a_bad_batch_after_many_good_ones_does_not_end_a_kind() -> None:
    guard = RejectionGuard(50)
    guard.add(EVENT, delivered(*range(3_000)))
    guard.add_sample(EVENT, rejected(*range(3_000, 3_020)), 1_000)
    assert guard.allows(EVENT)  # about a quarter


def test_bad_batches_end_a_kind_after_20_rows_of_each_also_if_the_first_batch_was_good() -> None:
    guard = RejectionGuard(50)
    guard.add(EVENT, delivered(*range(1_000)))
    guard.add_sample(EVENT, rejected(*range(1_000, 1_020)), 1_000)
    assert guard.allows(EVENT)  # a half
    guard.add_sample(EVENT, rejected(*range(2_000, 2_020)), 1_000)
    assert not guard.allows(EVENT)


def test_a_sample_with_rows_that_got_no_verdict_counts_as_it_is() -> None:
    guard = RejectionGuard(50)
    unavailable = (pending(0), call_result(Verdict.UNAVAILABLE))
    assert not guard.add_sample(EVENT, [unavailable, *rejected(*range(1, SAMPLE_ROWS))], 1_000)
    assert guard.allows(EVENT)  # 19 judged
    guard.add(EVENT, rejected(*range(20, 201)))
    assert not guard.allows(EVENT)  # 200


def test_the_first_sample_is_complete_before_another_one_is_taken() -> None:
    guard = RejectionGuard(50)
    steps: list[str] = []
    may_end = threading.Event()

    def second() -> None:
        with guard.sampling(EVENT):
            steps.append("second")

    thread = threading.Thread(target=second)
    with guard.sampling(EVENT):
        thread.start()
        may_end.wait(0.05)
        steps.append("first")
    thread.join()
    assert steps == ["first", "second"]


def test_later_samples_are_taken_at_the_same_time() -> None:
    guard = RejectionGuard(50)
    with guard.sampling(EVENT):
        pass
    both = threading.Barrier(2, timeout=10)

    def take() -> None:
        with guard.sampling(EVENT):
            both.wait()

    threads = [threading.Thread(target=take) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not both.broken


def test_a_sample_is_20_rows_in_their_order_and_the_same_ones_each_time() -> None:
    batch = [pending(seq) for seq in range(500, 1_500)]
    sample = choose_sample(batch)
    assert len({row.seq for row in sample}) == SAMPLE_ROWS
    assert set(sample) <= set(batch)
    assert sample == sorted(sample)
    assert choose_sample(batch) == sample
    assert sample[-1].seq - sample[0].seq > 500  # from all over the batch


def test_a_sample_of_20_rows_is_all_of_them() -> None:
    batch = [pending(seq) for seq in range(SAMPLE_ROWS)]
    assert choose_sample(batch) == batch


# What is still sent


def test_rows_are_sent_without_the_request_that_has_ended() -> None:
    guard = RejectionGuard(50)
    rows = [pending(1), pending(2, profile=None), pending(3, event=None)]
    assert list(guard.wanted(rows)) == rows
    guard.add(EVENT, rejected(*range(200)))
    assert list(guard.wanted(rows)) == [pending(1, event=None), pending(3, event=None)]
    guard.add(PROFILE, rejected(*range(200)))
    assert list(guard.wanted(rows)) == []


def test_a_kind_may_end_while_the_rows_are_read() -> None:
    guard = RejectionGuard(50)
    wanted = guard.wanted(pending(seq) for seq in range(3))
    assert next(wanted) == pending(0)
    guard.add(PROFILE, rejected(*range(200)))
    assert list(wanted) == [pending(1, profile=None), pending(2, profile=None)]


# What the operator is told


def test_the_message_names_code_field_and_the_first_row_in_the_order_of_the_query() -> None:
    guard = RejectionGuard(50)
    guard.add(EVENT, [*rejected(*range(7, 207), params=CLASH), *rejected(3, code="Other")])
    guard.add(EVENT, rejected(*range(4, 300), params=CLASH))
    (ended,) = guard.ended
    assert str(ended) == (
        "Iterable rejected more than 50 % of the events with RequestFieldsTypesMismatched (field "
        "page, for example user id-7), so this run sends no more of them. Correct the field's "
        "values, or its type in Iterable; the next run tries some of these rows first."
    )
    assert ended.reason == "most events were rejected with RequestFieldsTypesMismatched"


def test_the_message_needs_neither_code_nor_field() -> None:
    guard = RejectionGuard(12.5)
    guard.add(PROFILE, rejected(*range(200), code=None))
    (ended,) = guard.ended
    assert str(ended) == (
        "Iterable rejected more than 12.5 % of the profiles with an error (for example user id-0), "
        "so this run sends no more of them. The results file has Iterable's responses; the next "
        "run tries some of these rows first."
    )
    assert ended.reason == ("most profiles were rejected with an error")
