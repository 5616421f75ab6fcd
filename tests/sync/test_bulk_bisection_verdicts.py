"""Bisection gives each row one true verdict, whatever the responses are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log2

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from iterable_api.responses import EVENTS_TRACK_BULK, USERS_BULK_UPDATE
from records.outcomes import CallResult, Verdict
from records.rows import RequestKind
from sync.bulk import BulkSender
from sync.dispatcher import AnyReport, CallReport, Started
from tests.support.fake_bulk_client import TAKEN, FakeBulkClient, Kind, rows_of

ENDPOINT_OF = {RequestKind.PROFILE: USERS_BULK_UPDATE, RequestKind.EVENT: EVENTS_TRACK_BULK}
CODE_OF = {
    Kind.FINE: "Success",
    Kind.INVALID: "failedUpdates.invalidEmails",
    Kind.DEPRECATED: "failedUpdates.invalidEmails",
    Kind.NAMED_TWICE: "failedUpdates.invalidEmails",
    Kind.FORGOTTEN: "failedUpdates.forgottenEmails",
    Kind.BAD_VALUE: "failedUpdates.invalidDataEmails",
    Kind.UNNAMED: "NotNamed",
    Kind.POISON: "GenericError",
    Kind.NAMED_POISON: "BadJsonBody",
    Kind.MISTYPED: "RequestFieldsTypesMismatched",
    Kind.MISCOUNTED: "NotNamed",
}
UNREACHABLE = {Kind.INVALID, Kind.DEPRECATED, Kind.NAMED_TWICE, Kind.FORGOTTEN}


def sent(
    iterable: FakeBulkClient, kinds: Sequence[Kind]
) -> tuple[dict[RequestKind, dict[int, CallResult]], list[tuple[RequestKind, int, int]]]:
    """Send one batch; return each row's result, and (kind, row, requests made by then)."""
    results: dict[RequestKind, dict[int, CallResult]] = {kind: {} for kind in RequestKind}
    order: list[tuple[RequestKind, int, int]] = []

    def report(reported: AnyReport) -> bool:
        if isinstance(reported, Started):
            return True
        assert isinstance(reported, CallReport)
        for finished in reported.finished:
            assert finished.seq not in results[finished.kind], "a row has two verdicts"
            results[finished.kind][finished.seq] = finished.result
            order.append((finished.kind, finished.seq, len(iterable.requests)))
        return True

    BulkSender(iterable).send(rows_of(kinds), report)
    return results, order


def check_truth(
    iterable: FakeBulkClient,
    results: Mapping[RequestKind, Mapping[int, CallResult]],
    order: Sequence[tuple[RequestKind, int, int]],
) -> None:
    for kind, of_kind in results.items():
        endpoint = ENDPOINT_OF[kind]
        for seq, result in of_kind.items():
            if result.delivered:
                assert (endpoint, seq) in iterable.applied, "a false success"
    for kind, seq, requests_by_then in order:
        for endpoint, seqs in iterable.requests[requests_by_then:]:
            assert endpoint != ENDPOINT_OF[kind] or seq not in seqs, "sent after its verdict"


KINDS = st.lists(
    st.sampled_from([Kind.FINE] * 12 + [kind for kind in Kind if kind is not Kind.DOWN]),
    min_size=1,
    max_size=40,
)


@given(kinds=KINDS, most_rows=st.integers(1, 50))
@example(kinds=[Kind.POISON], most_rows=1)
@example(kinds=[Kind.UNNAMED, Kind.INVALID, Kind.MISCOUNTED], most_rows=50)
@example(kinds=[Kind.UNNAMED, Kind.MISCOUNTED], most_rows=50)
@example(kinds=list(Kind)[:-1], most_rows=50)
def test_every_row_gets_its_own_reason_whatever_else_is_in_the_batch(
    kinds: list[Kind], most_rows: int
) -> None:
    iterable = FakeBulkClient(dict(enumerate(kinds)), most_rows=most_rows)
    results, order = sent(iterable, kinds)
    check_truth(iterable, results, order)
    assert {seq: result.code for seq, result in results[RequestKind.PROFILE].items()} == {
        seq: CODE_OF[kind] for seq, kind in enumerate(kinds)
    }
    assert {seq: result.code for seq, result in results[RequestKind.EVENT].items()} == {
        seq: CODE_OF[kind] for seq, kind in enumerate(kinds) if kind not in UNREACHABLE
    }
    for of_kind in results.values():
        for seq, result in of_kind.items():
            expected = Verdict.DELIVERED if kinds[seq] is Kind.FINE else Verdict.REJECTED
            if kinds[seq] is Kind.MISCOUNTED:
                expected = Verdict.UNAVAILABLE  # it may be there: the next run will know
            assert result.verdict is expected
    assert len(iterable.requests) <= 2 * 3 * len(kinds)


@given(
    kinds=st.lists(st.sampled_from([Kind.FINE, *Kind]), min_size=1, max_size=30),
    event_kinds=st.lists(st.sampled_from([Kind.FINE, *Kind]), min_size=30, max_size=30),
    most_rows=st.integers(1, 40),
    stranger=st.booleans(),
)
def test_bisection_ends_with_one_true_verdict_for_each_row(
    kinds: list[Kind], event_kinds: list[Kind], most_rows: int, stranger: bool
) -> None:
    iterable = FakeBulkClient(
        dict(enumerate(kinds)),
        dict(enumerate(event_kinds)),
        most_rows=most_rows,
        stranger=stranger,
    )
    results, order = sent(iterable, kinds)
    check_truth(iterable, results, order)
    assert set(results[RequestKind.PROFILE]) == set(range(len(kinds)))
    assert len(iterable.requests) <= 2 * 3 * len(kinds)
    for kind, of_kind in ((RequestKind.PROFILE, kinds), (RequestKind.EVENT, event_kinds)):
        for seq, result in results[kind].items():
            assert result.verdict is not Verdict.DELIVERED or of_kind[seq] in TAKEN


@given(
    kinds=KINDS,
    stops_after=st.integers(0, 40),
    refuses_from=st.integers(0, 40),
)
def test_a_stop_or_a_refusal_during_bisection_leaves_no_false_verdict(
    kinds: list[Kind], stops_after: int, refuses_from: int
) -> None:
    iterable = FakeBulkClient(
        dict(enumerate(kinds)), stops_after=stops_after, refuses_from=refuses_from
    )
    results, order = sent(iterable, kinds)
    check_truth(iterable, results, order)
    assert len(iterable.requests) <= min(stops_after, refuses_from + 1)
    refused = [
        seq
        for of_kind in results.values()
        for seq, result in of_kind.items()
        if result.verdict is Verdict.REFUSED
    ]
    assert not refused or set(refused) <= set(iterable.requests[-1][1])


@pytest.mark.parametrize("place", [0, 1, 499, 500, 998, 999])
@pytest.mark.parametrize("kind", [Kind.POISON, Kind.UNNAMED])
def test_one_bad_row_in_a_thousand_costs_about_two_log2_n_requests(kind: Kind, place: int) -> None:
    kinds = {seq: Kind.FINE for seq in range(1_000)} | {place: kind}
    iterable = FakeBulkClient(kinds, {seq: Kind.FINE for seq in kinds})
    results, _ = sent(iterable, list(kinds.values()))
    assert [
        seq for seq, result in results[RequestKind.PROFILE].items() if not result.delivered
    ] == [place]
    assert len(results[RequestKind.EVENT]) == 1_000
    updates = [seqs for endpoint, seqs in iterable.requests if endpoint == USERS_BULK_UPDATE]
    assert len(updates) <= 2 * log2(1_000) + 2


@pytest.mark.parametrize(
    ("kind", "requests"), [(Kind.NAMED_POISON, 2), (Kind.MISTYPED, 3), (Kind.INVALID, 1)]
)
def test_a_bad_row_that_is_named_costs_one_or_two_more_requests(kind: Kind, requests: int) -> None:
    kinds = {seq: Kind.FINE for seq in range(1_000)} | {700: kind}
    iterable = FakeBulkClient(kinds)
    results, _ = sent(iterable, list(kinds.values()))
    assert [
        seq for seq, result in results[RequestKind.PROFILE].items() if not result.delivered
    ] == [700]
    updates = [seqs for endpoint, seqs in iterable.requests if endpoint == USERS_BULK_UPDATE]
    assert len(updates) == requests


def test_thirty_bad_rows_among_a_thousand_cost_the_documented_requests() -> None:
    bad = dict(enumerate([Kind.POISON] * 10 + [Kind.INVALID] * 10 + [Kind.FORGOTTEN] * 10))
    kinds = {seq: Kind.FINE for seq in range(1_000)} | {33 * n + 7: bad[n] for n in bad}
    iterable = FakeBulkClient(kinds)
    results, order = sent(iterable, list(kinds.values()))
    check_truth(iterable, results, order)
    assert {seq: result.code for seq, result in results[RequestKind.PROFILE].items()} == {
        seq: CODE_OF[kind] for seq, kind in kinds.items()
    }
    assert len(iterable.requests) < 300
