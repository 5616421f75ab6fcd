"""Per-user delivery: which calls are made, in which order, and the outcome of each row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from iterable_api.responses import EVENTS_TRACK, USERS_UPDATE
from records.rows import RequestKind
from sandbox.iterable_api import IterableSandbox
from sync.dispatcher import RunAborted
from tests.support.drains import calls_by_user, drain, endpoints_of, outbox_with
from tests.support.recording_servers import make_self_signed, website
from tests.support.rows import (
    NoWaiting,
    deliver_all,
    email_of,
    failures_of,
    fill,
    finished,
    outcomes_of,
    row,
    rows,
)

NUMBERS = range(1, 41)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.sqlite3"


def test_every_row_gets_an_update_and_then_an_event(path: Path) -> None:
    with (
        IterableSandbox(latency_seconds=0.04, jitter_seconds=0.02) as iterable,
        outbox_with(path, rows(*NUMBERS)) as outbox,
    ):
        client = drain(outbox, iterable.url)
        assert outcomes_of(outbox) == {email_of(n): "successful" for n in NUMBERS}
        calls = calls_by_user(iterable)
        assert set(calls) == {email_of(n) for n in NUMBERS}
        for of_user in calls.values():
            assert endpoints_of(of_user) == [USERS_UPDATE, EVENTS_TRACK]
            assert of_user[1].at - of_user[0].at >= 0.02  # not before the response to the update
        assert (client.call_count, client.retry_count) == (80, 0)
        assert iterable.state()["endpoints"][USERS_UPDATE]["max_in_flight"] > 1
        assert len(iterable.project.events) == 40


def test_an_empty_outbox_ends_at_once(path: Path, iterable: IterableSandbox) -> None:
    with outbox_with(path, []) as outbox:
        drain(outbox, iterable.url)
    assert iterable.calls == []


@pytest.mark.parametrize("max_attempts", [1, 3])
def test_rows_are_delivered_despite_transient_errors(path: Path, max_attempts: int) -> None:
    with (
        IterableSandbox(failure_rate=0.15, seed=7) as iterable,
        outbox_with(path, rows(*NUMBERS)) as outbox,
    ):
        for _ in range(10):
            drain(outbox, iterable.url, max_attempts=max_attempts, stop=NoWaiting())
            if not fill(outbox, rows(*NUMBERS)).to_send:
                break
        assert set(outcomes_of(outbox).values()) == {"unchanged"}
        assert len(iterable.project.users) == len(iterable.project.events) == 40


# The first row


def test_the_first_row_is_sent_alone_until_its_update_has_a_verdict(path: Path) -> None:
    with (
        IterableSandbox(latency_seconds=0.08) as iterable,
        outbox_with(path, rows(*NUMBERS)) as outbox,
    ):
        drain(outbox, iterable.url)
        update, *others = iterable.calls
        assert (update.endpoint, update.email) == (USERS_UPDATE, email_of(1))
        assert min(call.at for call in others) - update.at >= 0.08


def test_the_other_rows_waited_for_the_event_of_the_first_row(path: Path) -> None:
    """A round trip of each run in which only one call was made."""
    with IterableSandbox() as iterable, outbox_with(path, rows(*NUMBERS)) as outbox:
        iterable.set_faults([{"fault": "delay", "seconds": 0.5, "endpoint": EVENTS_TRACK}])
        drain(outbox, iterable.url)
        updates = [call.at for call in iterable.calls if call.endpoint == USERS_UPDATE]
        assert updates[1] - updates[0] < 0.5
        assert set(outcomes_of(outbox).values()) == {"successful"}


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"fault": "status", "status": 401}, r"refused the API key \(HTTP 401 BadApiKey\)"),
        ({"fault": "status", "status": 403}, r"refused the API key \(HTTP 403 Forbidden\)"),
        ({"fault": "status", "status": 404}, r"does not lead to Iterable's API \(HTTP 404\)"),
        ({"fault": "redirect"}, r"does not lead to Iterable's API \(HTTP 302\)"),
    ],
)
def test_nothing_else_is_sent_when_the_first_row_is_refused(
    path: Path, iterable: IterableSandbox, fault: dict[str, Any], said: str
) -> None:
    iterable.set_faults([fault])
    with outbox_with(path, rows(*NUMBERS)) as outbox:
        with pytest.raises(RunAborted, match=said) as caught:
            drain(outbox, iterable.url)
        outcomes = list(outcomes_of(outbox).values())
    assert "ITERABLE_API_" in str(caught.value)
    assert len(iterable.calls) == 1
    assert outcomes == ["total_failure"] + 39 * ["not_attempted"]


def test_an_untrusted_certificate_ends_the_run_before_anything_is_sent(
    path: Path, tmp_path: Path
) -> None:
    certificate = make_self_signed(tmp_path, "IP:127.0.0.1")
    with website(certificate) as site, outbox_with(path, rows(*NUMBERS)) as outbox:
        with pytest.raises(RunAborted, match="not trusted, so the API key was not sent") as caught:
            drain(outbox, site.url, max_attempts=5)
        assert "REQUESTS_CA_BUNDLE" in str(caught.value)
        assert site.requests == []


@pytest.mark.parametrize("status", [400, 409, 500])
def test_the_other_rows_are_sent_when_the_first_fails_without_a_refusal(
    path: Path, iterable: IterableSandbox, status: int
) -> None:
    iterable.set_faults([{"fault": "status", "status": status, "email": email_of(1)}])
    with outbox_with(path, rows(*NUMBERS)) as outbox:
        drain(outbox, iterable.url)
        outcomes = outcomes_of(outbox)
    assert outcomes.pop(email_of(1)) == "total_failure"
    assert set(outcomes.values()) == {"successful"}


# One row's failure


@pytest.mark.parametrize(
    ("options", "outcome", "endpoints"),
    [
        ({"forgotten": [email_of(2)]}, "total_failure", [USERS_UPDATE]),
        ({"invalid_emails": [email_of(2)]}, "total_failure", [USERS_UPDATE]),
        ({"conflict_emails": [email_of(2)]}, "partial_failure", [USERS_UPDATE, EVENTS_TRACK]),
        ({"invalid_data_emails": [email_of(2)]}, "partial_failure", [USERS_UPDATE, EVENTS_TRACK]),
    ],
    ids=str,
)
def test_the_event_is_sent_unless_the_user_cannot_be_reached(
    path: Path, options: dict[str, Any], outcome: str, endpoints: list[str]
) -> None:
    with IterableSandbox(**options) as iterable, outbox_with(path, rows(1, 2, 3)) as outbox:
        drain(outbox, iterable.url)
        assert list(outcomes_of(outbox).values()) == ["successful", outcome, "successful"]
        assert endpoints_of(calls_by_user(iterable)[email_of(2)]) == endpoints


@pytest.mark.parametrize(
    ("fault", "endpoint", "outcome"),
    [
        ({"fault": "status", "status": 400}, USERS_UPDATE, "partial_failure"),
        ({"fault": "status", "status": 503}, USERS_UPDATE, "partial_failure"),
        ({"fault": "drop_before"}, USERS_UPDATE, "partial_failure"),
        ({"fault": "error_code_on_200"}, USERS_UPDATE, "partial_failure"),
        ({"fault": "status", "status": 400}, EVENTS_TRACK, "partial_failure"),
        ({"fault": "malformed_json"}, EVENTS_TRACK, "partial_failure"),
        ({"fault": "status", "status": 400}, None, "total_failure"),
        ({"fault": "status", "status": 503}, None, "total_failure"),
    ],
    ids=str,
)
def test_the_failure_of_one_row_does_not_affect_the_others(
    path: Path,
    iterable: IterableSandbox,
    fault: dict[str, Any],
    endpoint: str | None,
    outcome: str,
) -> None:
    where = {"endpoint": endpoint} if endpoint else {}
    iterable.set_faults([{**fault, **where, "email": email_of(2)}])
    with outbox_with(path, rows(1, 2, 3)) as outbox:
        drain(outbox, iterable.url)
        assert list(outcomes_of(outbox).values()) == ["successful", outcome, "successful"]
        assert len(iterable.calls) == 6
        iterable.set_faults([])
        fill(outbox, rows(1, 2, 3))
        drain(outbox, iterable.url)
        assert list(outcomes_of(outbox).values()) == ["unchanged", "successful", "unchanged"]
    # After a failed first update its event is sent again, since Iterable may have dropped it.
    assert len(iterable.calls) == 6 + (1 if endpoint == EVENTS_TRACK else 2)
    assert len(iterable.project.events) == 3


def test_a_disallowed_event_is_a_partial_failure_of_every_row(path: Path) -> None:
    with (
        IterableSandbox(disallowed_events=["page_view"]) as iterable,
        outbox_with(path, rows(*NUMBERS)) as outbox,
    ):
        drain(outbox, iterable.url)
        assert set(outcomes_of(outbox).values()) == {"partial_failure"}
        (failure,) = failures_of(outbox)
    assert (failure.endpoint, failure.verdict, failure.rows) == (EVENTS_TRACK, "rejected", 40)


# Pending requests


def test_only_the_pending_requests_of_a_row_are_sent(path: Path, iterable: IterableSandbox) -> None:
    with outbox_with(path, rows(1, 2, 3)) as outbox:
        deliver_all(outbox)
        fill(outbox, [row(n, first_name="Ann", page="settings") for n in (1, 2, 3)])
        deliver_all(outbox)
        fill(outbox, [row(1, first_name="Ann"), row(2, page="settings"), row(3)])
        drain(outbox, iterable.url)
        assert set(outcomes_of(outbox).values()) == {"successful"}
    calls = calls_by_user(iterable)
    assert [endpoints_of(calls[email_of(n)]) for n in (1, 2, 3)] == [
        [EVENTS_TRACK],
        [USERS_UPDATE],
        [USERS_UPDATE, EVENTS_TRACK],
    ]


# Delayed events


def test_delayed_events_do_not_delay_other_rows(path: Path, iterable: IterableSandbox) -> None:
    with outbox_with(path, rows(*NUMBERS)) as outbox:
        drain(outbox, iterable.url, event_delay_seconds=0.4)
        assert set(outcomes_of(outbox).values()) == {"successful"}
    endpoints = endpoints_of(iterable.calls)
    assert endpoints[:2] == 2 * [USERS_UPDATE]
    assert sorted(endpoints) == 40 * [EVENTS_TRACK] + 40 * [USERS_UPDATE]
    for update, event in calls_by_user(iterable).values():
        assert event.at - update.at >= 0.4


def test_only_events_of_profiles_delivered_now_are_delayed(path: Path) -> None:
    with (
        IterableSandbox(conflict_emails=[email_of(2)]) as iterable,
        outbox_with(path, rows(1, 2, 3)) as outbox,
    ):
        outbox.record(finished(list(outbox.pending())[2:], RequestKind.PROFILE))
        fill(outbox, rows(1, 2, 3))
        drain(outbox, iterable.url, event_delay_seconds=0.3)
        events = [call for call in iterable.calls if call.endpoint == EVENTS_TRACK]
        assert sorted(str(event.email) for event in events[:2]) == [email_of(2), email_of(3)]
        assert events[2].email == email_of(1)
        assert events[2].at - iterable.calls[0].at >= 0.3


def test_a_row_with_unusual_values_arrives_unchanged(path: Path, iterable: IterableSandbox) -> None:
    odd = {"first_name": "小龙 🚀", "last_name": "O'Hara \\ \"", "location": "a" * 32_000}
    with outbox_with(path, [row(1, **odd)]) as outbox:
        drain(outbox, iterable.url)
        assert outcomes_of(outbox) == {email_of(1): "successful"}
    update, event = iterable.calls
    assert update.body["dataFields"]["first_name"] == odd["first_name"]
    assert update.body["dataFields"]["last_name"] == odd["last_name"]
    assert event.body["dataFields"]["location"] == odd["location"]
