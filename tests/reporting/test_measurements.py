"""Measurements: rows, failures, retries, rates, throughput and latencies of a delivery."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.settings import Settings
from iterable_client import IterableClient
from records.outcomes import CallResult, Verdict
from records.rows import Finished, PendingRow, RequestKind
from reporting.measurements import (
    MAX_SAMPLES,
    Latencies,
    Measurements,
    ProgressSnapshot,
    Throughput,
    percentile_seconds,
)
from sandbox.iterable_api import IterableSandbox
from state.outbox import Outbox
from sync.bulk import BulkSender
from sync.dispatcher import Dispatcher, Sender
from sync.per_user import PerUserSender
from sync.progress import Call, Progress, ceiling_rows_per_second, progress_line

SETTINGS = {
    "DB_HOST": "localhost",
    "DB_USER": "reader",
    "DB_PASSWORD": "",
    "DB_NAME": "shop",
    "ITERABLE_API_KEY": "key",
}


class Clock:
    """A clock that only moves when a test sets it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def result(
    verdict: Verdict = Verdict.DELIVERED, attempts: int = 1, elapsed_seconds: float = 0.3
) -> CallResult:
    return CallResult(verdict, 200, "Success", "", None, attempts, elapsed_seconds)


def call(
    seq: int, kind: RequestKind = RequestKind.PROFILE, outcome: CallResult | None = None
) -> Call:
    outcome = outcome or result()
    return outcome, [Finished(seq, kind, outcome, 0.0)]


def test_a_row_whose_profile_and_event_both_fail_is_one_failure(clock: Clock) -> None:
    progress = Progress(10, 500, clock=clock)
    rejected = result(Verdict.REJECTED)
    progress.advance([call(3, RequestKind.PROFILE, rejected)], 0)
    progress.advance(
        [call(3, RequestKind.EVENT, rejected), call(900_000, RequestKind.EVENT, rejected)], 2
    )
    assert progress.snapshot().rows_failed == 2


def test_a_batch_counts_as_one_call(clock: Clock) -> None:
    progress = Progress(1000, 5000, clock=clock)
    batch = result(attempts=2, elapsed_seconds=1.5)
    progress.advance(
        [(batch, [Finished(n, RequestKind.PROFILE, batch, 0.0) for n in range(1000)])], 1000
    )
    assert progress.snapshot().retries == 1
    assert sum(bucket.calls for bucket in progress.measurements.latencies) == 1
    assert progress.measurements.slowest_seconds == 1.5


def test_delayed_events_do_not_reduce_the_count(clock: Clock) -> None:
    progress = Progress(10, 500, clock=clock)
    shown = []
    for rows_done in (5, 3, 4, 6):
        clock.now += 1
        progress.advance([], rows_done)
        shown.append(progress.snapshot().rows_done)
    assert shown == [5, 5, 5, 6]
    assert sum(sample.rows for sample in progress.measurements.samples) == pytest.approx(6)


def test_rate_and_time_left_are_those_of_the_last_minute(
    clock: Clock,
) -> None:
    progress = Progress(100_000, 500, clock=clock)
    for step in range(1, 241):  # a minute at 500 per second, then one at 100
        clock.now += 0.5
        progress.advance([], 250 * min(step, 120) + 50 * max(0, step - 120))
    snapshot = progress.snapshot()
    assert snapshot.rows_per_second == pytest.approx(100)
    assert snapshot.share_of_ceiling == pytest.approx(0.2)
    assert snapshot.seconds_left == pytest.approx((100_000 - 36_000) / 100)


def test_a_rate_of_zero_shows_no_time_left() -> None:
    assert "left" not in progress_line(ProgressSnapshot(5, 10, 0, 0, 0.0, 500))


def test_the_ceiling_is_that_of_the_slower_endpoint() -> None:
    def ceiling(**settings: str) -> float:
        return ceiling_rows_per_second(Settings.from_environment({**SETTINGS, **settings}))

    assert ceiling() == 500
    assert ceiling(EVENTS_TRACK_RPS="200") == 200
    assert ceiling(SYNC_MODE="bulk") == 5_000
    assert ceiling(SYNC_MODE="bulk", TRACK_BULK_RPS="2", BULK_BATCH_SIZE="100") == 200


@given(
    st.lists(
        st.tuples(st.floats(0.001, 500), st.integers(0, 10_000), st.integers(0, 50)), max_size=300
    )
)
def test_throughput_counts_every_row_in_a_bounded_number_of_samples(
    steps: list[tuple[float, int, int]],
) -> None:
    throughput, now = Throughput(), 0.0
    for seconds, rows, retries in steps:
        now += seconds
        throughput.add(now, rows, retries)
    samples = throughput.samples()
    assert len(samples) <= MAX_SAMPLES
    assert sum(sample.rows for sample in samples) == pytest.approx(sum(s[1] for s in steps))
    assert sum(sample.retries for sample in samples) == pytest.approx(sum(s[2] for s in steps))
    assert sum(sample.seconds for sample in samples) == pytest.approx(now)
    for before, after in pairwise(samples):
        assert after.starts_at_seconds == pytest.approx(before.starts_at_seconds + before.seconds)


def test_a_steady_rate_is_the_same_in_every_sample() -> None:
    throughput = Throughput()
    for step in range(1, 10_001):
        throughput.add(step * 0.504, 252, 0)
    assert {round(sample.rows_per_second) for sample in throughput.samples()} == {500}


def test_a_short_last_interval_is_merged_with_the_one_before() -> None:
    throughput = Throughput()
    for until in (0.5, 1.0, 1.5, 2.0):
        throughput.add(until, 250, 0)
    throughput.add(2.01, 40, 1)  # the calls in flight end together
    *_, last = throughput.samples()
    assert (last.starts_at_seconds, last.seconds) == pytest.approx((1.0, 1.01))
    assert last.rows_per_second == pytest.approx(540 / 1.01)
    assert last.retries == pytest.approx(1)


@given(st.lists(st.floats(0.001, 360), min_size=1, max_size=400), st.floats(0.01, 1))
def test_a_percentile_is_accurate_to_twenty_percent(elapsed: list[float], share: float) -> None:
    latencies = Latencies()
    for seconds in elapsed:
        latencies.add(seconds)
    measured = Measurements(500, (), latencies.buckets(), latencies.slowest_seconds)
    exact = sorted(elapsed)[ceil(share * len(elapsed)) - 1]
    assert exact <= percentile_seconds(measured, share) * 1.0001
    assert percentile_seconds(measured, share) <= exact * 1.2


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 0.001, 1.0, 371.0, 1e9])
def test_every_duration_has_a_bucket(seconds: float) -> None:
    latencies = Latencies()
    latencies.add(seconds)
    (bucket,) = latencies.buckets()
    assert bucket.calls == 1
    assert bucket.from_seconds <= seconds < bucket.to_seconds


class Rows(Outbox):
    """An outbox in memory whose rows need both requests."""

    def __init__(self, count: int) -> None:
        self._rows = [
            PendingRow(
                seq,
                seq,
                f"user{seq}@example.com",
                b'{"email":"user%d@example.com","dataFields":{}}' % seq,
                b'{"email":"user%d@example.com","eventName":"page_view","dataFields":{}}' % seq,
            )
            for seq in range(count)
        ]
        self.recorded: list[Finished] = []

    def pending(self) -> Iterator[PendingRow]:
        return iter(self._rows)

    def rows_to_try_first(self) -> dict[RequestKind, list[PendingRow]]:
        return {}

    def events_of(self, seqs: Iterable[int]) -> list[PendingRow]:
        return [self._rows[seq]._replace(profile=None) for seq in seqs]

    def record(self, finished: Sequence[Finished]) -> None:
        self.recorded += finished


@pytest.mark.parametrize("delay_seconds", [0.0, 0.2])
@pytest.mark.parametrize("mode", ["per-user", "bulk"])
def test_a_delivery_counts_each_row_once_when_its_last_request_is_settled(
    iterable: IterableSandbox, mode: str, delay_seconds: float
) -> None:
    rows, client = Rows(40), IterableClient("key", iterable.url)
    holds_back = delay_seconds > 0
    sender: Sender = PerUserSender(client, delays_events=holds_back)
    if mode == "bulk":
        sender = BulkSender(client, batch_size=20, delays_events=holds_back)
    with Progress(40, 500) as progress:
        Dispatcher(
            rows,
            sender,
            threading.Event(),
            event_delay_seconds=delay_seconds,
            on_progress=progress.advance,
        ).run()
    client.close()
    snapshot = progress.snapshot()
    assert (snapshot.rows_done, snapshot.rows_failed) == (40, 0)
    assert len(rows.recorded) == 80
    assert sum(bucket.calls for bucket in progress.measurements.latencies) == client.call_count
