"""Random faults of many kinds at once, with fixed seeds: runs are repeated until all is delivered.

A run may fail rows. None may lose a row, duplicate an event, or report as delivered what is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

import pytest

from iterable_api.responses import USERS_GET_FIELDS
from sandbox.iterable_api import IterableSandbox
from tests.support.fault_runs import (
    Request,
    Stage,
    delivered,
    received_count,
    remembered,
    requests_of,
    run_once,
    stage,
)
from tests.support.faults_and_ends import BATCH_SIZE, MODES, Rule
from tests.support.users import check_project

USER_COUNT = 60
MOST_RUNS = 20  # a row may be unlucky several times
HARMLESS = ("delay", "huge_body")
CLEAN_CALLS = {
    "per-user": 2 * USER_COUNT,
    "bulk": 2 * ceil(USER_COUNT / BATCH_SIZE),
}
SEEDS = (20260113, 2, 3)

# An unreliable network.
NETWORK: list[Rule] = [
    {"fault": "drop_before", "probability": 0.08},
    {"fault": "drop_after", "probability": 0.08},
    {"fault": "half_body", "probability": 0.08},
    {"fault": "down", "probability": 0.05},
    {"fault": "delay", "seconds": 0.01, "probability": 0.2},
]
# An overloaded API behind a load balancer.
SERVERS: list[Rule] = [
    {"fault": "rate_limited", "reset": 0.05, "probability": 0.05},
    {"fault": "rate_limited", "reset": None, "retry_after": "soon", "probability": 0.03},
    {"fault": "status", "status": "any", "probability": 0.1},
    {"fault": "status", "status": 503, "applied": True, "retry_after": 1, "probability": 0.05},
    {"fault": "html_body", "status": 502, "probability": 0.05},
    {"fault": "empty_body", "applied": True, "probability": 0.03},
    {"fault": "success_code_on_error", "applied": True, "probability": 0.03},
]
# Responses that reject, or that contradict themselves.
RESPONSES: list[Rule] = [
    {"fault": "status", "status": 400, "probability": 0.05},
    {"fault": "status", "status": 409, "code": "UserIdAlreadyExists", "probability": 0.03},
    {"fault": "error_code_on_200", "code": "DatabaseError", "probability": 0.04},
    {"fault": "echo_request", "probability": 0.03},
    {"fault": "malformed_json", "probability": 0.05},
    {"fault": "miscount", "by": 1, "probability": 0.1},
    {"fault": "miscount", "probability": 0.1},
    {"fault": "huge_body", "bytes": 50_000, "probability": 0.05},
]
MIXES = {
    "network": NETWORK,
    "servers": SERVERS,
    "responses": RESPONSES,
    "all of them": [*NETWORK, *SERVERS, *RESPONSES],
}


@pytest.fixture(scope="module")
def prepared() -> Iterator[Stage]:
    with stage(USER_COUNT) as made:
        yield made


def deliver_all(made: Stage, iterable: IterableSandbox, mode: str) -> int:
    """Repeat the run until one ends with 0; check each.

    Return how many delivered events are sent again because they came before their user's profile.
    """
    runs = made.runs(iterable, mode, MAX_ATTEMPTS="3")
    known: set[Request] = set()
    doubtful_count = 0
    for _ in range(MOST_RUNS):
        received_before, sent_before = received_count(iterable), len(iterable.calls)
        ended = run_once(runs)
        made.check_honesty(iterable, ended, received_before)
        assert ended.status in (0, 3), ended.stderr
        sent = {each for call in iterable.calls[sent_before:] for each in requests_of(call)}
        assert not sent & known, "what was delivered is sent again"
        newly_known = remembered(ended, known)
        doubtful_count += len(delivered(ended) - newly_known)
        known |= newly_known
        if ended.status == 0:
            break
    assert known == made.requests
    check_project(iterable.project, made.numbers)
    received_before = received_count(iterable)
    last = run_once(runs)
    assert (last.status, last.counts) == (0, {"unchanged": USER_COUNT})
    assert received_count(iterable) == received_before
    return doubtful_count


def mixes_and_seeds() -> Iterator[tuple[str, int]]:
    """Pair all of the faults with every seed, and each part of them with the first."""
    for mix in MIXES:
        for seed in SEEDS if mix == "all of them" else SEEDS[:1]:
            yield mix, seed


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("mix", "seed"), list(mixes_and_seeds()))
def test_repeated_runs_deliver_everything_through_a_mix_of_faults(
    prepared: Stage, mix: str, seed: int, mode: str
) -> None:
    with IterableSandbox(seed=seed, faults=MIXES[mix]) as iterable:
        doubtful_count = deliver_all(prepared, iterable, mode)
        fault_count = sum(
            rule["fired"] for rule in iterable.state()["faults"] if rule["fault"] not in HARMLESS
        )
        call_count = received_count(iterable)
        asked_count = sum(
            call.endpoint == USERS_GET_FIELDS and call.fault in (None, *HARMLESS)
            for call in iterable.calls
        )
    assert fault_count > 0
    extra_count = call_count - CLEAN_CALLS[mode]
    if mode == "per-user":
        # Each faulty call is repeated once, and no other but the events in doubt. Where all
        # attempts of a request that waits alone met a fault, getFields is asked.
        assert extra_count == fault_count + doubtful_count + asked_count
    else:
        assert extra_count <= 2 * fault_count  # a batch may be split in two


@pytest.mark.parametrize("mode", MODES)
def test_an_outage_ends_the_run_early_and_the_next_run_sends_the_rest(
    prepared: Stage, mode: str
) -> None:
    with IterableSandbox() as iterable:
        runs = prepared.runs(iterable, mode, BULK_BATCH_SIZE="1")
        iterable.set_faults([{"fault": "down"}])
        ended = run_once(runs)
        assert (ended.status, ended.results["status"]) == (1, "aborted")
        assert "Iterable has not answered any request to users/" in ended.stderr
        assert set(ended.counts) == {"not_attempted"}
        prepared.check_honesty(iterable, ended)
        prepared.check_recovery(runs, iterable, ended)
