"""Bulk mode: how rows become batches, and the two calls of each batch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iterable_api.circuit_breaker import CircuitBreakers
from iterable_api.responses import EVENTS_TRACK_BULK, USERS_BULK_UPDATE
from iterable_client import bulk_body
from records.outcomes import CallResult, Verdict
from records.rows import Finished, PendingRow, RequestKind
from sync.bulk import MAX_REQUEST_BYTES, BulkSender, to_batches
from sync.dispatcher import AnyReport, CallReport, DelayedEvents
from tests.support.fake_bulk_client import FakeBulkClient, Kind, row, rows_of

UPDATE, TRACK = USERS_BULK_UPDATE, EVENTS_TRACK_BULK


# Batches


def sizes(
    rows: Sequence[PendingRow], batch_size: int, max_bytes: int = MAX_REQUEST_BYTES
) -> list[int]:
    return [len(batch) for batch in to_batches(iter(rows), batch_size, max_bytes)]


def of_bytes(seq: int, profile_bytes: int, event_bytes: int) -> PendingRow:
    return PendingRow(seq, seq, f"p{seq}@b.com", b"p" * profile_bytes, b"e" * event_bytes)


@pytest.mark.parametrize(
    ("count", "batch_size", "expected"),
    [
        (0, 10, []),
        (1, 10, [1]),
        (2, 10, [2]),
        (11, 10, [10, 1]),
        (30, 10, [10, 10, 10]),
        (4, 1, [1, 1, 1, 1]),
    ],
)
def test_rows_are_sent_in_full_batches(count: int, batch_size: int, expected: list[int]) -> None:
    assert sizes([row(seq) for seq in range(count)], batch_size) == expected


@pytest.mark.parametrize("kind", ["profile", "event"])
def test_neither_request_of_a_batch_exceeds_the_byte_limit(kind: str) -> None:
    # `{"events":[]}` is 13 bytes, and a row of 100 takes 101 with its comma: nine make 922.
    bytes_of = {"profile": (100, 1), "event": (1, 100)}[kind]
    rows = [of_bytes(seq, *bytes_of) for seq in range(19)]
    assert sizes(rows, 1_000, max_bytes=922) == [9, 9, 1]
    assert sizes(rows, 1_000, max_bytes=921) == [8, 8, 3]


def test_a_row_too_large_for_any_request_is_a_batch_of_its_own() -> None:
    rows = [of_bytes(seq, 5_000 if seq in (0, 3) else 10, 10) for seq in range(6)]
    assert sizes(rows, 1_000, max_bytes=1_000) == [1, 2, 1, 2]


def test_the_byte_limit_is_iterables_four_megabytes() -> None:
    rows = [of_bytes(seq, 32_000, 1_000) for seq in range(1_001)]
    batches = list(to_batches(iter(rows), 1_000))
    assert [len(batch) for batch in batches] == [124] * 8 + [9]
    users = [
        b'{"users":[%b]}' % b",".join(row.profile or b"" for row in batch) for batch in batches
    ]
    assert max(map(len, users)) < 4_000_000


def test_the_option_for_new_fields_counts_as_bytes_of_the_body() -> None:
    rows = [of_bytes(seq, 100, 1) for seq in range(19)]
    for max_bytes in range(900, 1_000):
        for batch in to_batches(iter(rows), 1_000, max_bytes, has_option=True):
            bodies = [row.profile or b"" for row in batch]
            body = bulk_body(USERS_BULK_UPDATE, bodies, create_new_fields=False)
            assert len(body) <= max_bytes


def test_batches_are_made_while_rows_are_still_being_read() -> None:
    def endless() -> object:
        seq = 0
        while True:
            yield row(seq)
            seq += 1

    batches = to_batches(endless(), 3)  # type: ignore[arg-type]
    assert [len(next(batches)) for _ in range(3)] == [3, 3, 3]


def body_of_size(size: int | None) -> bytes | None:
    return None if size is None else b"x" * size


@given(
    bodies=st.lists(st.tuples(st.integers(0, 60) | st.none(), st.integers(0, 60) | st.none())),
    batch_size=st.integers(1, 7),
    max_bytes=st.integers(20, 200),
)
def test_batches_hold_every_row_once_in_order_and_within_the_limits(
    bodies: list[tuple[int | None, int | None]], batch_size: int, max_bytes: int
) -> None:
    rows = [
        PendingRow(seq, seq, "", body_of_size(profile), body_of_size(event))
        for seq, (profile, event) in enumerate(bodies)
    ]
    batches = list(to_batches(iter(rows), batch_size, max_bytes))
    assert [row for batch in batches for row in batch] == rows
    for batch in batches:
        assert 1 <= len(batch) <= batch_size
        profiles = [row.profile for row in batch if row.profile is not None]
        events = [row.event for row in batch if row.event is not None]
        if len(batch) > 1:
            assert len(b'{"users":[%b]}' % b",".join(profiles)) < max_bytes
            assert len(b'{"events":[%b]}' % b",".join(events)) < max_bytes


# The calls of a batch


class Reports:
    """Collects what a sender reports; `goes_on` is the value returned to it."""

    def __init__(self, *, goes_on: bool = True) -> None:
        self.finished: list[Finished] = []
        self.calls: list[CallResult] = []
        self.delayed: list[int] = []
        self.goes_on = goes_on

    def __call__(self, report: AnyReport) -> bool:
        if isinstance(report, DelayedEvents):
            self.delayed += report.seqs
        elif isinstance(report, CallReport):
            self.calls.append(report.call)
            self.finished += report.finished
        else:
            return True
        return self.goes_on


def send(
    iterable: FakeBulkClient,
    rows: Sequence[PendingRow],
    *,
    delays_events: bool = False,
    goes_on: bool = True,
) -> Reports:
    reports = Reports(goes_on=goes_on)
    sender = BulkSender(iterable, delays_events=delays_events)
    sender.send(rows, reports)
    return reports


def test_the_events_of_a_batch_are_sent_after_its_profiles() -> None:
    kinds = [Kind.FINE] * 3
    iterable = FakeBulkClient(dict(enumerate(kinds)))
    reports = send(iterable, rows_of(kinds))
    assert iterable.requests == [(UPDATE, [0, 1, 2]), (TRACK, [0, 1, 2])]
    assert [(f.seq, f.kind) for f in reports.finished] == [
        *((seq, RequestKind.PROFILE) for seq in range(3)),
        *((seq, RequestKind.EVENT) for seq in range(3)),
    ]
    assert all(finished.result.delivered for finished in reports.finished)
    assert len(reports.calls) == 2


def test_only_the_requests_that_a_row_needs_are_sent() -> None:
    iterable = FakeBulkClient(dict.fromkeys(range(4), Kind.FINE))
    rows = [row(0), row(1, event=False), row(2, profile=False), row(3)]
    send(iterable, rows)
    assert iterable.requests == [(UPDATE, [0, 1, 3]), (TRACK, [0, 2, 3])]


def test_a_batch_with_requests_of_one_kind_makes_one_call() -> None:
    iterable = FakeBulkClient(dict.fromkeys(range(2), Kind.FINE))
    send(iterable, [row(0, event=False), row(1, event=False)])
    send(iterable, [row(0, profile=False), row(1, profile=False)])
    assert iterable.requests == [(UPDATE, [0, 1]), (TRACK, [0, 1])]


def test_the_endpoint_of_a_batch_is_that_of_its_first_call() -> None:
    sender = BulkSender(FakeBulkClient({}))
    assert sender.endpoint([row(0, profile=False), row(1)]) == UPDATE
    assert sender.endpoint([row(0, profile=False)]) == TRACK


def test_units_have_the_batch_size_of_the_sender() -> None:
    sender = BulkSender(FakeBulkClient({}), batch_size=4)
    assert [len(unit) for unit in sender.units(row(seq) for seq in range(6))] == [4, 2]


def test_events_are_sent_except_for_users_that_cannot_be_reached() -> None:
    kinds = [Kind.FINE, Kind.INVALID, Kind.FORGOTTEN, Kind.BAD_VALUE, Kind.UNNAMED, Kind.DOWN]
    updates = dict(enumerate(kinds[:-1]))
    iterable = FakeBulkClient(updates, dict.fromkeys(range(6), Kind.FINE))
    send(iterable, rows_of(kinds[:-1]))
    assert iterable.requests[-1] == (TRACK, [0, 3, 4])


def test_events_are_sent_after_an_unavailable_profile() -> None:
    iterable = FakeBulkClient({0: Kind.DOWN}, {0: Kind.FINE})
    reports = send(iterable, [row(0)])
    assert [f.result.verdict for f in reports.finished] == [Verdict.UNAVAILABLE, Verdict.DELIVERED]


def test_nothing_is_reported_of_a_batch_that_met_only_an_outage() -> None:
    class Stopped(FakeBulkClient):
        def bulk_update_users(
            self, users: Sequence[bytes], subject: str = "", **options: Any
        ) -> CallResult:
            call = super().bulk_update_users(users, subject, **options)
            return replace(call, met_only_outage=True)

    iterable = Stopped({0: Kind.DOWN, 1: Kind.DOWN})
    reports = send(iterable, [row(0), row(1)])
    assert (reports.finished, reports.calls) == ([], [])
    assert iterable.requests == [(UPDATE, [0, 1])]


def test_a_batch_without_an_answer_is_split_until_the_row_at_fault_stands_alone() -> None:
    """A batch that is answered 500 as long as one row is in it never got its other rows through."""
    for place in (0, 499, 500, 999):
        kinds = {seq: Kind.FINE for seq in range(1_000)} | {place: Kind.DOWN}
        iterable = FakeBulkClient(kinds, dict.fromkeys(kinds, Kind.FINE))
        reports = send(iterable, [row(seq) for seq in kinds])
        failed = [f for f in reports.finished if not f.result.delivered]
        assert [(f.seq, f.result.verdict) for f in failed] == [(place, Verdict.UNAVAILABLE)]
        assert len(reports.finished) == 2_000
        assert len(iterable.requests) <= 2 * 10 + 2
        # Only the whole batch and the row that stands alone have all the attempts.
        failing = [
            (len(seqs), most)
            for (_, seqs), most in zip(iterable.requests, iterable.max_attempts, strict=True)
            if place in seqs
        ]
        assert {most for rows, most in failing if 1 < rows < 1_000} == {2}
        assert {most for rows, most in failing if rows in (1, 1_000)} == {None}


def test_eight_parts_in_a_row_without_an_answer_open_the_circuit_breaker() -> None:
    """From then on their attempts do not count before something else is answered."""
    kinds = [Kind.DOWN] * 64
    iterable = FakeBulkClient(dict(enumerate(kinds)), dict.fromkeys(range(64), Kind.FINE))
    iterable.breakers = CircuitBreakers([UPDATE], 300)
    opened_at: list[int] = []

    class Noting(Reports):
        def __call__(self, report: AnyReport) -> bool:
            if iterable.breakers.is_open(UPDATE) and not opened_at:
                opened_at.append(len(iterable.requests))
            return super().__call__(report)

    reports = Noting()
    BulkSender(iterable).send(rows_of(kinds), reports)
    assert opened_at == [1 + 8]
    assert iterable.suspects[: 1 + 8] == [False, *8 * [True]]
    assert not any(iterable.suspects[1 + 8 : 1 + 2 + 4 + 8 + 16 + 32 + 64])
    assert {f.result.verdict for f in reports.finished} == {Verdict.UNAVAILABLE, Verdict.DELIVERED}


def test_many_bad_rows_of_one_batch_were_an_outage_though_other_batches_were_answered() -> None:
    kinds = [Kind.DOWN] * 64
    iterable = FakeBulkClient(dict(enumerate(kinds)), dict.fromkeys(range(64), Kind.FINE))
    iterable.breakers = CircuitBreakers([UPDATE], 300)

    class OthersAnswered(Reports):
        def __call__(self, report: AnyReport) -> bool:
            iterable.breakers[UPDATE].note_answer()
            return super().__call__(report)

    BulkSender(iterable).send(rows_of(kinds), OthersAnswered())
    assert not iterable.breakers.have_opened


def test_parts_of_a_batch_are_suspects_again_once_one_of_them_is_answered() -> None:
    kinds = [Kind.DOWN] * 8 + [Kind.FINE] * 8
    iterable = FakeBulkClient(dict(enumerate(kinds)))
    send(iterable, rows_of(kinds))
    assert iterable.suspects[:4] == [False, True, True, True]
    assert all(iterable.suspects[1 : 1 + 2 + 2 + 4])


def test_a_batch_that_a_stop_cut_short_is_not_split() -> None:
    iterable = FakeBulkClient({0: Kind.DOWN, 1: Kind.DOWN})
    iterable._stop.set()
    reports = send(iterable, [row(0, event=False), row(1, event=False)])
    assert iterable.requests == [(UPDATE, [0, 1])]
    assert [f.result.verdict for f in reports.finished] == 2 * [Verdict.UNAVAILABLE]


def test_nothing_is_sent_after_a_refused_batch() -> None:
    iterable = FakeBulkClient(dict.fromkeys(range(3), Kind.FINE), refuses_from=0)
    reports = send(iterable, [row(seq) for seq in range(3)])
    assert iterable.requests == [(UPDATE, [0, 1, 2])]
    assert {f.result.verdict for f in reports.finished} == {Verdict.REFUSED}


def test_nothing_is_sent_after_a_part_of_the_batch_was_refused() -> None:
    """Events of rows delivered before were still sent with the refused key."""
    iterable = FakeBulkClient({0: Kind.FINE, 1: Kind.POISON}, refuses_from=2)
    reports = send(iterable, [row(0), row(1)])
    assert iterable.requests == [(UPDATE, [0, 1]), (UPDATE, [0]), (UPDATE, [1])]
    assert [(f.seq, f.result.verdict) for f in reports.finished] == [
        (0, Verdict.DELIVERED),
        (1, Verdict.REFUSED),
    ]


def test_nothing_is_sent_or_reported_after_a_stop() -> None:
    iterable = FakeBulkClient({0: Kind.FINE, 1: Kind.POISON}, stops_after=2)
    reports = send(iterable, [row(0), row(1)])
    assert [f.seq for f in reports.finished] == [0]
    assert len(reports.calls) == 2


def test_nothing_more_is_sent_after_another_worker_aborted_the_run() -> None:
    """Events of a batch were still sent after another batch had been refused."""
    iterable = FakeBulkClient({0: Kind.FINE, 1: Kind.FINE})
    send(iterable, [row(0), row(1)], goes_on=False)
    assert iterable.requests == [(UPDATE, [0, 1])]


def test_only_events_of_updates_delivered_now_are_delayed() -> None:
    iterable = FakeBulkClient({0: Kind.FINE, 1: Kind.BAD_VALUE}, dict.fromkeys(range(4), Kind.FINE))
    rows = [row(0), row(1), row(2, profile=False)]
    reports = send(iterable, rows, delays_events=True)
    assert reports.delayed == [0]
    assert iterable.requests == [(UPDATE, [0, 1]), (TRACK, [1, 2])]


def test_dropped_fields_are_warned_of_once_and_created_fields_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Dropping(FakeBulkClient):
        def bulk_update_users(
            self, users: Sequence[bytes], subject: str = "", **options: Any
        ) -> CallResult:
            call = super().bulk_update_users(users, subject, **options)
            fields = {"filteredOutFields": ["b", "a"], "createdFields": ["c"]}
            return replace(call, params={**call.params, **fields})

    iterable = Dropping({0: Kind.FINE})
    sender = BulkSender(iterable)
    with caplog.at_level(logging.INFO, "sync.bulk"):
        for _ in range(3):
            sender.send([row(0)], Reports())
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "Iterable dropped unknown fields of the profiles: a, b"),
        ("INFO", "Iterable created fields of the profiles: c"),
    ]


def test_a_bulk_request_holds_the_bodies_of_single_calls() -> None:
    seen: list[object] = []

    class Looking(FakeBulkClient):
        def bulk_update_users(
            self, users: Sequence[bytes], subject: str = "", **options: Any
        ) -> CallResult:
            seen.extend(orjson.loads(user) for user in users)
            return super().bulk_update_users(users, subject, **options)

    send(Looking({7: Kind.FINE}), [row(7, fields='{"a": 1}')])
    assert seen == [{"email": "User.7@Example.com", "dataFields": {"a": 1}}]
