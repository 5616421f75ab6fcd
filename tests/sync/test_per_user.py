"""The calls of one row to a client that records them: bodies and reports."""

from __future__ import annotations

from iterable_api.responses import EVENTS_TRACK, USERS_UPDATE
from records.outcomes import Verdict
from sync.dispatcher import CallReport
from sync.per_user import PerUserSender
from tests.support.rows import call_result
from tests.support.senders import NotedCalls, waiting_row


def test_a_row_needs_an_update_and_an_event_or_the_event_alone() -> None:
    calls = NotedCalls()
    PerUserSender(calls).send([waiting_row(7)], lambda _report: True)
    assert calls.calls == [
        (USERS_UPDATE, b"profile", "user 7"),
        (EVENTS_TRACK, b"event", "user 7"),
    ]
    PerUserSender(calls).send([waiting_row(8, None)], lambda _report: True)
    assert calls.calls[2:] == [(EVENTS_TRACK, b"event", "user 8")]


def test_the_endpoint_of_a_row_is_that_of_its_first_call() -> None:
    sender = PerUserSender(NotedCalls())
    assert sender.endpoint([waiting_row(1)]) == USERS_UPDATE
    assert sender.endpoint([waiting_row(1, None)]) == EVENTS_TRACK


def test_a_row_without_an_event_is_not_delayed() -> None:
    reports: list[object] = []

    def note(report: object) -> bool:
        reports.append(report)
        return True

    row = waiting_row(1)._replace(event=None)
    calls = NotedCalls()
    PerUserSender(calls, delays_events=True).send([row], note)
    assert [type(report) for report in reports] == [CallReport]
    assert [call[0] for call in calls.calls] == [USERS_UPDATE]


def test_a_call_that_was_not_made_is_not_reported() -> None:
    calls = NotedCalls(call_result(Verdict.UNAVAILABLE, attempts=0))

    def refuse_reports(report: object) -> bool:
        raise AssertionError(report)

    for row in (waiting_row(1), waiting_row(2, None)):
        PerUserSender(calls).send([row], refuse_reports)
    assert [call[0] for call in calls.calls] == [USERS_UPDATE, EVENTS_TRACK]
