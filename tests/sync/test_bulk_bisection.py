"""Bisection of batches that are rejected whole, or whose counts do not add up.

A batch is split until each bad row is sent alone: about 2 log2(n) requests for one.
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from iterable_api.responses import EVENTS_TRACK_BULK, USERS_BULK_UPDATE
from sandbox.iterable_api import IterableSandbox
from tests.support.drains import FAST, busiest_second, drain, endpoints_of, outbox_with
from tests.support.rows import NoWaiting, email_of, failures_of, fill, outcomes_of, row, rows

NUMBERS = range(1, 129)  # one batch
POISONED = email_of(77)
REQUESTS_FOR_ONE = 2 * math.log2(128) + 1
FAILURES: dict[str, Any] = {"fault": "status", "email": POISONED}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.sqlite3"


def count_calls(iterable: IterableSandbox, endpoint: str) -> int:
    return Counter(endpoints_of(iterable.calls))[endpoint]


def not_successful(outcomes: dict[str | None, str]) -> dict[str | None, str]:
    return {email: outcome for email, outcome in outcomes.items() if outcome != "successful"}


# Rejected whole


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_bad_row_that_iterable_does_not_name_is_found_by_bisection(
    path: Path, iterable: IterableSandbox, status: int
) -> None:
    iterable.set_faults([{**FAILURES, "status": status, "endpoint": USERS_BULK_UPDATE}])
    with outbox_with(path, rows(*NUMBERS)) as outbox:
        drain(outbox, iterable.url, batch_size=200)
        assert not_successful(outcomes_of(outbox)) == {POISONED: "partial_failure"}
    assert count_calls(iterable, USERS_BULK_UPDATE) <= REQUESTS_FOR_ONE
    assert count_calls(iterable, EVENTS_TRACK_BULK) == 1
    assert len(iterable.project.users) == 127


def test_a_bad_event_that_iterable_does_not_name_is_found_by_bisection(
    path: Path, iterable: IterableSandbox
) -> None:
    iterable.set_faults([{**FAILURES, "status": 400, "endpoint": EVENTS_TRACK_BULK}])
    with outbox_with(path, rows(*NUMBERS)) as outbox:
        drain(outbox, iterable.url, batch_size=200)
        assert not_successful(outcomes_of(outbox)) == {POISONED: "partial_failure"}
    assert count_calls(iterable, USERS_BULK_UPDATE) == 1
    assert count_calls(iterable, EVENTS_TRACK_BULK) <= REQUESTS_FOR_ONE


def test_several_bad_rows_are_all_found(path: Path, iterable: IterableSandbox) -> None:
    poisoned = [email_of(number) for number in (2, 64, 65, 128)]
    iterable.set_faults([{**FAILURES, "status": 400, "email": email} for email in poisoned])
    with outbox_with(path, rows(*NUMBERS)) as outbox:
        drain(outbox, iterable.url, batch_size=200)
        failed = not_successful(outcomes_of(outbox))
        assert failed == dict.fromkeys(poisoned, "total_failure")
    assert count_calls(iterable, USERS_BULK_UPDATE) <= 4 * REQUESTS_FOR_ONE


def test_a_value_of_the_wrong_type_is_found_by_the_offending_value_in_the_response(
    path: Path,
) -> None:
    found = [*rows(*NUMBERS)]
    found[76] = row(77, last_name=5)
    with (
        IterableSandbox(field_types={"last_name": "string"}) as iterable,
        outbox_with(path, found) as outbox,
    ):
        drain(outbox, iterable.url, batch_size=200)
        assert not_successful(outcomes_of(outbox)) == {POISONED: "partial_failure"}
        assert count_calls(iterable, USERS_BULK_UPDATE) == 3  # all, without it, it alone
        (failure,) = failures_of(outbox)
    assert failure.code == "RequestFieldsTypesMismatched"


def test_rows_with_different_bad_values_each_fail_on_their_own(path: Path) -> None:
    found = [row(n, last_name=n) if n % 5 == 0 else row(n) for n in range(1, 41)]
    with (
        IterableSandbox(field_types={"last_name": "string"}) as iterable,
        outbox_with(path, found) as outbox,
    ):
        drain(outbox, iterable.url, batch_size=200)
        wrong = {email_of(n): "partial_failure" for n in range(5, 41, 5)}
        assert not_successful(outcomes_of(outbox)) == wrong
        assert len(iterable.project.users) == 32
        assert len(iterable.project.events) == 40


def test_a_batch_that_iterable_finds_too_large_is_split(
    path: Path, iterable: IterableSandbox
) -> None:
    iterable.set_faults(
        [{"fault": "status", "status": 413, "endpoint": USERS_BULK_UPDATE, "nth": [1]}]
    )
    with outbox_with(path, rows(*NUMBERS)) as outbox:
        drain(outbox, iterable.url, batch_size=200)
        assert not_successful(outcomes_of(outbox)) == {}
    sizes = [len(call.body["users"]) for call in iterable.calls if "users" in call.body]
    assert sizes == [128, 64, 64]


# Counts


def test_a_batch_whose_counts_do_not_add_up_once_is_sent_again(
    path: Path, iterable: IterableSandbox
) -> None:
    iterable.set_faults([{"fault": "miscount", "by": -3, "nth": [1, 3]}])
    with outbox_with(path, rows(*NUMBERS)) as outbox:
        drain(outbox, iterable.url, batch_size=200)
        assert not_successful(outcomes_of(outbox)) == {}
    assert len(iterable.project.events) == 128


@pytest.mark.parametrize("by", [-1, 1, 7])
def test_rows_whose_counts_never_add_up_are_not_successful(
    path: Path, iterable: IterableSandbox, by: int
) -> None:
    iterable.set_faults([{"fault": "miscount", "by": by}])
    found = rows(*range(1, 18))
    with outbox_with(path, found) as outbox:
        drain(outbox, iterable.url, batch_size=200)
        assert set(outcomes_of(outbox).values()) == {"total_failure"}
        assert {failure.verdict for failure in failures_of(outbox)} == {"unavailable"}
        iterable.set_faults([])
        assert fill(outbox, found).to_send == 17
        drain(outbox, iterable.url, batch_size=200)
        assert set(outcomes_of(outbox).values()) == {"successful"}
    assert len(iterable.project.events) == 17


def test_wrong_counts_beside_a_named_failure_fail_only_that_row(path: Path) -> None:
    with (
        IterableSandbox(forgotten=[POISONED]) as iterable,
        outbox_with(path, rows(*NUMBERS)) as outbox,
    ):
        iterable.set_faults([{"fault": "miscount", "endpoint": USERS_BULK_UPDATE, "nth": [1]}])
        drain(outbox, iterable.url, batch_size=200)
        assert not_successful(outcomes_of(outbox)) == {POISONED: "total_failure"}


def test_failures_that_are_not_named_are_found_by_bisection(path: Path) -> None:
    with (
        IterableSandbox(forgotten=[POISONED], sparse_bulk_responses=True) as iterable,
        outbox_with(path, rows(*NUMBERS)) as outbox,
    ):
        drain(outbox, iterable.url, batch_size=200)
        assert not_successful(outcomes_of(outbox)) == {POISONED: "total_failure"}
        assert count_calls(iterable, USERS_BULK_UPDATE) <= REQUESTS_FOR_ONE
        codes = {failure.code for failure in failures_of(outbox)}
    assert codes == {"NotNamed"}


# Transient errors


@pytest.mark.parametrize(
    "fault",
    [
        {"fault": "status", "status": 500},
        {"fault": "drop_after"},
        {"fault": "drop_before"},
        {"fault": "half_body"},
        {"fault": "malformed_json"},
        {"fault": "html_body"},
        {"fault": "success_code_on_error"},
        {"fault": "rate_limited", "reset": 0.01},
        {"fault": "error_code_on_200"},
        {"fault": "huge_body", "bytes": 5_000_000},
    ],
    ids=str,
)
@pytest.mark.parametrize("endpoint", [USERS_BULK_UPDATE, EVENTS_TRACK_BULK])
def test_transient_errors_lose_no_row_and_double_no_event(
    path: Path, iterable: IterableSandbox, endpoint: str, fault: dict[str, Any]
) -> None:
    iterable.set_faults([{**fault, "endpoint": endpoint, "nth": [1]}])
    with outbox_with(path, rows(*range(1, 30))) as outbox:
        drain(outbox, iterable.url, batch_size=200, max_attempts=3, stop=NoWaiting())
        assert not_successful(outcomes_of(outbox)) == {}
    assert len(iterable.project.events) == len(iterable.project.users) == 29


@pytest.mark.parametrize(
    "fault", [{"fault": "status", "status": 500}, {"fault": "drop_before"}, {"fault": "html_body"}]
)
@pytest.mark.parametrize("endpoint", [USERS_BULK_UPDATE, EVENTS_TRACK_BULK])
def test_a_row_that_makes_iterable_fail_holds_back_no_other_row_of_the_only_batch(
    path: Path, iterable: IterableSandbox, endpoint: str, fault: dict[str, Any]
) -> None:
    rule = {**fault, "endpoint": endpoint, "email": POISONED}
    if fault["fault"] == "html_body":
        rule["applied"] = False
    iterable.set_faults([rule])
    with outbox_with(path, rows(*NUMBERS)) as outbox:
        client = drain(outbox, iterable.url, batch_size=200, max_attempts=5, stop=NoWaiting())
        assert not_successful(outcomes_of(outbox)) == {POISONED: "partial_failure"}
        assert {failure.verdict for failure in failures_of(outbox)} == {"unavailable"}
    received = iterable.state()
    assert client.call_count == received["calls"] + received["reset_connections"]
    # 7 splits: 5 attempts of the whole and of the row alone, 2 of each failing part between them,
    # one of each other part.
    assert count_calls(iterable, endpoint) == 5 + 6 * 2 + 5 + 7


def test_many_batches_with_a_row_that_makes_iterable_fail_do_not_end_the_run(
    path: Path, iterable: IterableSandbox
) -> None:
    poisoned = [email_of(number) for number in range(1, 129, 8)]
    faults = [{"fault": "status", "status": 500, "email": email} for email in poisoned]
    iterable.set_faults(faults)
    with outbox_with(path, rows(*NUMBERS)) as outbox:
        drain(outbox, iterable.url, batch_size=8, max_attempts=2, stop=NoWaiting())
        assert set(not_successful(outcomes_of(outbox))) == set(poisoned)


def test_the_other_batches_do_not_wait_until_the_row_at_fault_in_the_first_one_is_found(
    path: Path, iterable: IterableSandbox
) -> None:
    poison = {"fault": "status", "status": 500, "email": email_of(1)}
    iterable.set_faults([poison, {"fault": "delay", "seconds": 0.2, "email": email_of(1)}])
    with outbox_with(path, rows(*NUMBERS)) as outbox:
        drain(outbox, iterable.url, batch_size=64)
        assert not_successful(outcomes_of(outbox)) == {email_of(1): "total_failure"}
    sizes = [
        len(call.body["users"])
        for call in iterable.calls
        if call.endpoint.startswith("user") and call.body
    ]
    assert sizes.index(64, 1) < len(sizes) - 3


@pytest.mark.slow
@pytest.mark.rate
def test_the_parts_of_a_split_batch_respect_the_rate_limit(
    path: Path, iterable: IterableSandbox
) -> None:
    iterable.set_faults([{**FAILURES, "status": 400, "endpoint": USERS_BULK_UPDATE}])
    with outbox_with(path, rows(*NUMBERS)) as outbox:
        rates = {**FAST, USERS_BULK_UPDATE: 5}
        drain(outbox, iterable.url, batch_size=200, requests_per_second=rates)
        assert not_successful(outcomes_of(outbox)) == {POISONED: "partial_failure"}
    assert count_calls(iterable, USERS_BULK_UPDATE) == REQUESTS_FOR_ONE
    assert busiest_second(iterable, USERS_BULK_UPDATE) <= 6
