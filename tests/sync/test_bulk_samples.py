"""A batch that is refused whole: 20 of its rows go alone before it is split."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from iterable_api.responses import EVENTS_TRACK_BULK, USERS_BULK_UPDATE
from records.rows import PendingRow, RequestKind
from sync.bulk import BulkSender
from sync.dispatcher import AnyReport, CallReport
from sync.mass_rejection import RejectionGuard
from tests.support.fake_bulk_client import FakeBulkClient, Kind, rows_of

UPDATE, TRACK = USERS_BULK_UPDATE, EVENTS_TRACK_BULK
ROWS = 1_000


class Sent:
    """A batch that was sent: the sizes of its requests, and the rows with a result."""

    def __init__(
        self,
        kinds: Sequence[Kind],
        event_kinds: Sequence[Kind] | None = None,
        *,
        guard: RejectionGuard | None = None,
        rows: Sequence[PendingRow] | None = None,
        most_rows: int = 1_000_000,
    ) -> None:
        self.iterable = FakeBulkClient(
            dict(enumerate(kinds)),
            None if event_kinds is None else dict(enumerate(event_kinds)),
            most_rows=most_rows,
        )
        self.guard = guard or RejectionGuard(50)
        self.settled: dict[RequestKind, set[int]] = {kind: set() for kind in RequestKind}
        found = rows or rows_of(
            [
                a if a is not Kind.FINE else b
                for a, b in zip(kinds, event_kinds or kinds, strict=True)
            ]
        )
        BulkSender(self.iterable, guard=self.guard).send(found, self._report)

    def _report(self, report: AnyReport) -> bool:
        if isinstance(report, CallReport):
            for finished in report.finished:
                assert finished.seq not in self.settled[finished.kind]
                self.settled[finished.kind].add(finished.seq)
        return True

    def sizes(self, endpoint: str) -> list[int]:
        return [len(seqs) for each, seqs in self.iterable.requests if each == endpoint]


def fine(count: int = ROWS) -> list[Kind]:
    return [Kind.FINE] * count


def mixed(bad: Kind, every: int, count: int = ROWS) -> list[Kind]:
    return [bad if place % every == 0 else Kind.FINE for place in range(count)]


@pytest.mark.parametrize("bad", [Kind.POISON, Kind.MISTYPED])
def test_when_every_row_is_bad_22_requests_end_the_kind(bad: Kind) -> None:
    sent = Sent(fine(), [bad] * ROWS)
    sizes = sent.sizes(TRACK)
    assert sizes.count(1) == 20
    assert len(sizes) <= 22
    assert not sent.guard.allows(RequestKind.EVENT)
    assert sent.guard.allows(RequestKind.PROFILE)
    assert len(sent.settled[RequestKind.PROFILE]) == ROWS
    assert len(sent.settled[RequestKind.EVENT]) == 20


def test_events_of_a_batch_whose_profiles_are_bad_are_sent() -> None:
    sent = Sent([Kind.POISON] * ROWS, fine(), rows=rows_of(fine()))
    assert sent.sizes(UPDATE) == [ROWS, *[1] * 20]
    assert sent.sizes(TRACK) == [ROWS]
    assert len(sent.settled[RequestKind.EVENT]) == ROWS


def test_one_bad_row_costs_a_sample_and_a_bisection() -> None:
    kinds = fine()
    kinds[637] = Kind.POISON
    sent = Sent(fine(), kinds)
    sizes = sent.sizes(TRACK)
    assert sizes[0] == ROWS
    assert sizes[1:21] == [1] * 20
    assert abs(sizes[21] - 490) <= 1  # a half of the others
    assert len(sizes) <= 1 + 20 + 2 * 10
    assert len(sent.settled[RequestKind.EVENT]) == ROWS
    assert len([each for each in sent.iterable.applied if each[0] == TRACK]) == ROWS - 1


def test_a_value_that_the_response_names_is_found_without_a_sample() -> None:
    kinds = fine()
    kinds[637] = Kind.MISTYPED
    sent = Sent(fine(), kinds)
    assert sent.sizes(TRACK) == [ROWS, ROWS - 1, 1]


def test_rows_that_the_response_names_by_their_place_are_not_sent_alone() -> None:
    sent = Sent(fine(), mixed(Kind.NAMED_POISON, 10))
    assert sent.sizes(TRACK) == [ROWS, ROWS - 100]
    assert len(sent.settled[RequestKind.EVENT]) == ROWS


def test_named_rows_count_for_the_share() -> None:
    sent = Sent(fine(), [Kind.NAMED_POISON] * 600 + fine(400))
    assert sent.sizes(TRACK) == [ROWS]
    assert not sent.guard.allows(RequestKind.EVENT)


def test_a_third_of_bad_rows_does_not_end_the_kind() -> None:
    sent = Sent(fine(300), mixed(Kind.POISON, 3, 300))
    assert sent.guard.allows(RequestKind.EVENT)
    assert len(sent.settled[RequestKind.EVENT]) == 300
    assert len([each for each in sent.iterable.applied if each[0] == TRACK]) == 200


def test_rows_that_a_processed_batch_names_as_failed_end_the_kind() -> None:
    sent = Sent(mixed(Kind.BAD_VALUE, 1), fine(), rows=rows_of(fine()))
    assert sent.sizes(UPDATE) == [ROWS]
    assert not sent.guard.allows(RequestKind.PROFILE)
    assert len(sent.settled[RequestKind.PROFILE]) == ROWS
    assert sent.sizes(TRACK) == [ROWS]


def test_a_batch_that_is_too_large_is_split_without_a_sample() -> None:
    sent = Sent(fine(), most_rows=500)
    assert sent.sizes(UPDATE) == sent.sizes(TRACK) == [ROWS, 500, 500]


def test_a_batch_of_fewer_than_20_rows_is_split_as_before() -> None:
    sent = Sent(fine(19), [Kind.POISON] * 19)
    assert sent.sizes(TRACK)[:3] == [19, 9, 10]
    assert sent.guard.allows(RequestKind.EVENT)
    assert len(sent.settled[RequestKind.EVENT]) == 19


def test_a_batch_of_20_rows_is_sent_row_by_row() -> None:
    sent = Sent(fine(20), [Kind.POISON, *fine(19)])
    assert sent.sizes(TRACK) == [20, *[1] * 20]
    assert sent.guard.allows(RequestKind.EVENT)


def test_with_100_percent_no_sample_is_taken() -> None:
    kinds = fine()
    kinds[637] = Kind.POISON
    sent = Sent(fine(), kinds, guard=RejectionGuard(100))
    assert sent.sizes(TRACK)[:3] == [ROWS, 500, 500]
    assert len(sent.sizes(TRACK)) <= 1 + 2 * 10


def test_a_sample_is_taken_once_a_batch() -> None:
    sent = Sent(fine(), mixed(Kind.POISON, 50))
    assert sent.sizes(TRACK)[1:21] == [1] * 20
    assert sum(sent.sizes(TRACK)[21:23]) == ROWS - 20
    assert min(sent.sizes(TRACK)[21:25]) > 200


def test_a_kind_that_has_ended_is_not_sent_and_the_other_one_is() -> None:
    guard = RejectionGuard(50)
    Sent(fine(200), [Kind.POISON] * 200, guard=guard)
    sent = Sent(fine(), fine(), guard=guard)
    assert sent.sizes(UPDATE) == [ROWS]
    assert sent.sizes(TRACK) == []


@pytest.mark.parametrize("bad", [Kind.POISON, Kind.MISTYPED, Kind.UNNAMED, Kind.MISCOUNTED])
@pytest.mark.parametrize("every", [2, 3, 7])
def test_each_row_is_settled_once_below_the_share(bad: Kind, every: int) -> None:
    sent = Sent(fine(120), mixed(bad, every, 120), guard=RejectionGuard(99))
    assert len(sent.settled[RequestKind.EVENT]) == 120
