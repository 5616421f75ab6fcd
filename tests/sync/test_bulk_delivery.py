"""Bulk delivery: what a batch holds, and which row a failure belongs to."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from iterable_api.responses import EVENTS_TRACK_BULK, USERS_BULK_UPDATE
from records.rows import RequestKind
from sandbox.calls import CallRecord
from sandbox.iterable_api import IterableSandbox
from sandbox.request_schemas import rows_of
from sync.dispatcher import RunAborted
from tests.support.drains import busiest_second, drain, endpoints_of, outbox_with, stop_when
from tests.support.rows import (
    deliver_all,
    email_of,
    failures_of,
    fill,
    finished,
    outcomes_of,
    row,
    rows,
)

NUMBERS = range(1, 102)  # five batches of 20, then one row
BATCH_SIZE = 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.sqlite3"


def emails_in(call: CallRecord) -> list[str]:
    return [each["email"] for each in rows_of(call.endpoint, call.body)]


def calls_to(iterable: IterableSandbox, endpoint: str) -> list[CallRecord]:
    return [call for call in iterable.calls if call.endpoint == endpoint]


def check_only_these_failed(outcomes: dict[str | None, str], failed: dict[str | None, str]) -> None:
    expected = {email_of(n): failed.get(email_of(n), "successful") for n in NUMBERS}
    assert {e: o for e, o in outcomes.items() if o != expected[e or ""]} == {}


# Batches


def test_rows_are_sent_in_full_batches_profiles_first(
    path: Path, iterable: IterableSandbox
) -> None:
    with outbox_with(path, rows(*NUMBERS)) as outbox:
        client = drain(outbox, iterable.url, batch_size=BATCH_SIZE)
        check_only_these_failed(outcomes_of(outbox), {})
    everybody = [email_of(n) for n in NUMBERS]
    batches = [everybody[n : n + 20] for n in range(0, 101, 20)]
    for endpoint in (USERS_BULK_UPDATE, EVENTS_TRACK_BULK):
        assert sorted(map(emails_in, calls_to(iterable, endpoint))) == sorted(batches)
    updated_at = {emails_in(call)[0]: call.at for call in calls_to(iterable, USERS_BULK_UPDATE)}
    for call in calls_to(iterable, EVENTS_TRACK_BULK):
        assert call.at > updated_at[emails_in(call)[0]]
    assert client.call_count == 12


def test_the_bodies_are_those_of_single_calls(path: Path, iterable: IterableSandbox) -> None:
    with outbox_with(path, rows(1)) as outbox:
        (waiting,) = outbox.pending()
        drain(outbox, iterable.url, batch_size=BATCH_SIZE)
    update, event = iterable.calls
    assert waiting.profile
    assert waiting.event
    assert set(update.body) == {"users"}
    assert set(event.body) == {"events"}
    single = IterableSandbox()
    with single, outbox_with(path.with_name("other"), rows(1)) as outbox:
        drain(outbox, single.url)
        assert [update.body["users"], event.body["events"]] == [
            [call.body] for call in single.calls
        ]


def test_the_first_full_batch_is_sent_alone(path: Path) -> None:
    with (
        IterableSandbox(latency_seconds=0.05) as iterable,
        outbox_with(path, rows(*NUMBERS)) as outbox,
    ):
        drain(outbox, iterable.url, batch_size=BATCH_SIZE)
        first, *others = iterable.calls
        assert emails_in(first) == list(map(email_of, range(1, 21)))
        assert min(call.at for call in others) - first.at >= 0.05


def test_no_request_is_over_iterables_four_megabytes(path: Path, iterable: IterableSandbox) -> None:
    long = {"last_name": "x" * 30_000, "location": "y" * 31_000}
    with outbox_with(path, [row(number, **long) for number in range(300)]) as outbox:
        drain(outbox, iterable.url, batch_size=1_000)
        assert set(outcomes_of(outbox).values()) == {"successful"}
    statuses = Counter((call.endpoint, call.status) for call in iterable.calls)
    assert statuses == {(USERS_BULK_UPDATE, 200): 3, (EVENTS_TRACK_BULK, 200): 3}


def test_requests_that_were_delivered_before_are_in_no_batch(
    path: Path, iterable: IterableSandbox
) -> None:
    with outbox_with(path, rows(1, 2, 3, 4)) as outbox:
        deliver_all(outbox)
        new = {"first_name": "Ann"}
        seen = {"page": "settings"}
        fill(outbox, [row(1, **new, **seen), row(2, **seen), row(3, **new), row(4, **seen)])
        drain(outbox, iterable.url, batch_size=BATCH_SIZE)
        assert set(outcomes_of(outbox).values()) == {"successful"}
    assert [(call.endpoint, emails_in(call)) for call in iterable.calls] == [
        (USERS_BULK_UPDATE, [email_of(1), email_of(3)]),
        (EVENTS_TRACK_BULK, [email_of(1), email_of(2), email_of(4)]),
    ]


def test_a_batch_with_events_only_makes_no_update(path: Path, iterable: IterableSandbox) -> None:
    with outbox_with(path, rows(*NUMBERS)) as outbox:
        outbox.record(finished(outbox.pending(), RequestKind.PROFILE))
        fill(outbox, rows(*NUMBERS))
        drain(outbox, iterable.url, batch_size=BATCH_SIZE)
        check_only_these_failed(outcomes_of(outbox), {})
    assert endpoints_of(iterable.calls) == 6 * [EVENTS_TRACK_BULK]


# Rows that the response names


@pytest.mark.parametrize("is_sparse", [False, True], ids=["full responses", "sparse responses"])
@pytest.mark.parametrize(
    ("option", "outcome"),
    [
        ("invalid_emails", "total_failure"),
        ("forgotten", "total_failure"),
        ("conflict_emails", "partial_failure"),
        ("invalid_data_emails", "partial_failure"),
    ],
)
def test_a_named_failure_fails_only_its_own_row(
    path: Path, option: str, outcome: str, is_sparse: bool
) -> None:
    bad: dict[str | None, str] = {email_of(number): outcome for number in (1, 30, 31, 77)}
    options: dict[str, Any] = {option: list(bad)}
    with (
        IterableSandbox(**options, sparse_bulk_responses=is_sparse) as iterable,
        outbox_with(path, rows(*NUMBERS)) as outbox,
    ):
        drain(outbox, iterable.url, batch_size=BATCH_SIZE)
        check_only_these_failed(outcomes_of(outbox), bad)
        assert not set(bad) & set(iterable.project.users)
        events_of_bad = {e.email for e in iterable.project.events.values()} & set(bad)
        assert events_of_bad == (set(bad) if outcome == "partial_failure" else set())
        if not is_sparse:
            assert len(iterable.calls) <= 12


def test_a_user_that_cannot_be_reached_is_in_no_batch_of_events(path: Path) -> None:
    with (
        IterableSandbox(forgotten=[email_of(1), email_of(2)], invalid_emails=[email_of(3)]) as it,
        outbox_with(path, rows(1, 2, 3)) as outbox,
    ):
        drain(outbox, it.url, batch_size=BATCH_SIZE)
        assert set(outcomes_of(outbox).values()) == {"total_failure"}
        assert endpoints_of(it.calls) == [USERS_BULK_UPDATE]
        forgotten, invalid = failures_of(outbox)
    assert (forgotten.code, forgotten.rows) == ("failedUpdates.forgottenEmails", 2)
    assert (invalid.code, invalid.rows) == ("failedUpdates.invalidEmails", 1)


def test_a_failure_is_matched_although_iterable_lower_cases_the_email(path: Path) -> None:
    odd = "Ann.O'Hara@Example.COM"
    with (
        IterableSandbox(forgotten=[odd]) as iterable,
        outbox_with(path, [*rows(1, 2), row(3, email=odd)]) as outbox,
    ):
        drain(outbox, iterable.url, batch_size=BATCH_SIZE)
        assert outcomes_of(outbox)[odd] == "total_failure"
        assert len(iterable.calls) == 2


def test_a_disallowed_event_name_fails_the_event_of_every_row(path: Path) -> None:
    with (
        IterableSandbox(disallowed_events=["page_view"]) as iterable,
        outbox_with(path, rows(*NUMBERS)) as outbox,
    ):
        drain(outbox, iterable.url, batch_size=BATCH_SIZE)
        assert set(outcomes_of(outbox).values()) == {"partial_failure"}
        (failure,) = failures_of(outbox)
    assert (failure.code, failure.rows) == ("disallowedEventNames", 101)


# Fields that Iterable dropped or created


def test_dropped_fields_are_warned_of_once(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sync.bulk")
    with (
        IterableSandbox(drop_unknown_fields=True) as iterable,
        outbox_with(path, rows(*NUMBERS)) as outbox,
    ):
        drain(outbox, iterable.url, batch_size=BATCH_SIZE)
        iterable.reset()
    warnings = [record.getMessage() for record in caplog.records if record.name == "sync.bulk"]
    assert warnings == [
        "Iterable dropped unknown fields of the profiles: "
        "candidate, first_name, last_name, plan_type, recent_page_view",
        "Iterable dropped unknown fields of the events: "
        "browser, candidate, location, page, timestamp",
    ]
    assert {record.levelname for record in caplog.records} == {"WARNING"}


def test_created_fields_are_logged(
    path: Path, iterable: IterableSandbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sync.bulk")
    with outbox_with(path, rows(*NUMBERS)) as outbox:
        drain(outbox, iterable.url, batch_size=BATCH_SIZE)
    assert [record.levelname for record in caplog.records] == ["INFO", "INFO"]
    assert caplog.messages[0].startswith("Iterable created fields of the profiles: ")


# Early ends


@pytest.mark.parametrize("status", [401, 403, 404, 302])
def test_nothing_else_is_sent_when_the_first_batch_is_refused(
    path: Path, iterable: IterableSandbox, status: int
) -> None:
    kind = {"fault": "redirect"} if status == 302 else {"fault": "status", "status": status}
    iterable.set_faults([kind])
    with outbox_with(path, rows(*NUMBERS)) as outbox:
        with pytest.raises(RunAborted, match=f"HTTP {status}"):
            drain(outbox, iterable.url, batch_size=BATCH_SIZE)
        assert list(outcomes_of(outbox).values()) == 20 * ["total_failure"] + 81 * ["not_attempted"]
    assert len(iterable.calls) == 1


def test_a_stop_between_batches_loses_and_repeats_nothing(path: Path) -> None:
    with (
        IterableSandbox(latency_seconds=0.05) as iterable,
        outbox_with(path, rows(*NUMBERS)) as outbox,
    ):
        stop = stop_when(lambda: len(iterable.project.events) >= 11)
        drain(
            outbox,
            iterable.url,
            batch_size=10,
            stop=stop,
            requests_per_second={USERS_BULK_UPDATE: 10},
        )
        outcomes = Counter(outcomes_of(outbox).values())
        assert outcomes["not_attempted"] == 101 - len(iterable.project.users) > 0
        assert outcomes["successful"] == len(iterable.project.events)
        fill(outbox, rows(*NUMBERS))
        drain(outbox, iterable.url, batch_size=10)
        assert {user.applied_count for user in iterable.project.users.values()} == {1}
        assert {event.applied_count for event in iterable.project.events.values()} == {1}
        assert len(iterable.project.events) == 101


def test_events_of_a_batch_can_be_delayed(path: Path, iterable: IterableSandbox) -> None:
    with outbox_with(path, rows(*NUMBERS)) as outbox:
        drain(outbox, iterable.url, batch_size=BATCH_SIZE, event_delay_seconds=0.3)
        check_only_these_failed(outcomes_of(outbox), {})
    assert endpoints_of(iterable.calls) == 6 * [USERS_BULK_UPDATE] + 6 * [EVENTS_TRACK_BULK]
    updated_at = {emails_in(call)[0]: call.at for call in calls_to(iterable, USERS_BULK_UPDATE)}
    for call in calls_to(iterable, EVENTS_TRACK_BULK):
        assert call.at - updated_at[emails_in(call)[0]] >= 0.3


@pytest.mark.slow
@pytest.mark.rate
def test_bulk_calls_respect_their_rate_limits(path: Path, iterable: IterableSandbox) -> None:
    with outbox_with(path, rows(*range(200))) as outbox:
        drain(
            outbox,
            iterable.url,
            batch_size=10,
            requests_per_second={USERS_BULK_UPDATE: 5, EVENTS_TRACK_BULK: 10},
        )
        assert set(outcomes_of(outbox).values()) == {"successful"}
    # One more may arrive: a call that took longer than those sent after it.
    assert 3 <= busiest_second(iterable, USERS_BULK_UPDATE) <= 6
    assert 3 <= busiest_second(iterable, EVENTS_TRACK_BULK) <= 11
