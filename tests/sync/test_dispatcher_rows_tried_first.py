"""The dispatcher sends some rows of a kind that the last run ended before all others."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence

import pytest

from records.outcomes import Verdict
from records.rows import PendingRow, RequestKind, Rows
from sync.dispatcher import Dispatcher, Report
from sync.mass_rejection import RejectionGuard
from tests.support.rows import call_result
from tests.support.senders import (
    RowsInMemory,
    ScriptedSender,
    Sending,
    delivered,
    hold_back,
    report_of,
)

TRIED = [3, 7]


class Memory:
    """The kinds that were forgotten."""

    def __init__(self) -> None:
        self.forgotten: list[RequestKind] = []

    def forget(self, kind: RequestKind) -> None:
        self.forgotten.append(kind)


class RowsToTry(RowsInMemory):
    """Ten rows, of which two are to be tried first."""

    def __init__(self, kind: RequestKind = RequestKind.PROFILE) -> None:
        super().__init__(10)
        self.kind = kind
        self.memory = Memory()
        self.mass_rejections = self.memory  # type: ignore[assignment]
        self.ended: list[tuple[RequestKind, str | None]] = []

    def rows_to_try_first(self) -> Mapping[RequestKind, Sequence[PendingRow]]:  # type: ignore[override]
        return {self.kind: [self._rows[seq] for seq in TRIED]}

    def pending(self) -> Iterator[PendingRow]:
        recorded = {finished.seq for finished in self.recorded}
        return iter([row for row in self._rows if row.seq not in recorded])

    def end_kind(self, kind: RequestKind, code: str | None) -> None:
        self.ended.append((kind, code))


def guarded(send: Sending = delivered) -> ScriptedSender:
    sender = ScriptedSender(send)
    sender.guard = RejectionGuard(50)
    return sender


def judging(verdict: Verdict, code: str) -> ScriptedSender:
    """Return a sender that reports this result of each profile, and counts it."""
    result = call_result(verdict, code=code)

    def send(unit: Rows, report: Report) -> None:
        sender.guard.add(RequestKind.PROFILE, [(row, result) for row in unit])
        report(report_of(result, unit))

    sender = guarded(send)
    return sender


def sent_seqs(sender: ScriptedSender) -> list[int]:
    return [row.seq for unit in sender.sent for row in unit]


def test_they_are_sent_before_the_others_and_only_once() -> None:
    outbox, sender = RowsToTry(), judging(Verdict.DELIVERED, "Success")
    Dispatcher(outbox, sender, threading.Event()).run()
    assert sorted(sent_seqs(sender)[:2]) == TRIED
    assert sorted(sent_seqs(sender)) == list(range(10))
    assert outbox.memory.forgotten == [RequestKind.PROFILE]
    assert outbox.ended == []


def test_when_they_are_rejected_the_others_go_on_without_that_request() -> None:
    outbox, sender = RowsToTry(), judging(Verdict.REJECTED, "BadParams")
    Dispatcher(outbox, sender, threading.Event()).run()
    others = [row for unit in sender.sent for row in unit if row.seq not in TRIED]
    assert sorted((row.seq, row.profile, row.event) for row in others) == [
        (seq, None, b"event") for seq in range(10) if seq not in TRIED
    ]
    assert outbox.memory.forgotten == []
    assert outbox.ended == [(RequestKind.PROFILE, "BadParams")]


def test_when_none_got_a_verdict_nothing_is_forgotten_and_all_are_sent() -> None:
    outbox, sender = RowsToTry(), judging(Verdict.UNAVAILABLE, "Timeout")
    Dispatcher(outbox, sender, threading.Event()).run()
    assert sorted(sent_seqs(sender)) == list(range(10))
    assert outbox.memory.forgotten == []
    assert outbox.ended == []


def test_no_row_before_the_first_that_was_not_sent_counts_as_done() -> None:
    outbox, sender = RowsToTry(), guarded()
    done_before: list[tuple[int, set[int]]] = []
    Dispatcher(
        outbox,
        sender,
        threading.Event(),
        on_recorded=lambda seq: done_before.append((seq, {each.seq for each in outbox.recorded})),
    ).run()
    assert done_before[0] == (0, set(TRIED))
    assert all(set(range(seq)) <= recorded for seq, recorded in done_before)


def test_the_others_do_not_wait_for_their_delayed_events() -> None:
    outbox, sender = RowsToTry(), guarded(hold_back)
    Dispatcher(outbox, sender, threading.Event(), event_delay_seconds=0.5).run()
    profiles = [unit[0].seq for unit in sender.sent if unit[0].profile is not None]
    events = [unit[0].seq for unit in sender.sent if unit[0].profile is None]
    assert [unit[0].profile is not None for unit in sender.sent] == [True] * 10 + [False] * 10
    assert sorted(profiles) == sorted(events) == list(range(10))
    assert sorted(events[:2]) == TRIED


@pytest.mark.parametrize("when", ["at once", "while they are sent"])
def test_a_stop_ends_the_trying(when: str) -> None:
    outbox, stop = RowsToTry(), threading.Event()

    def send(unit: Rows, report: Report) -> None:
        stop.set()
        delivered(unit, report)

    sender = guarded(send)
    if when == "at once":
        stop.set()
    Dispatcher(outbox, sender, stop).run()
    assert set(sent_seqs(sender)) <= set(TRIED)
    assert outbox.memory.forgotten == []
