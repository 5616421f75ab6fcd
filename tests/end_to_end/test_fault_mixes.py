"""Faults of many kinds at once, by chance of a fixed seed: runs back to back until all is there.

Each run may fail rows; none may lose one, double an event or call delivered what is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from typing import Any

import pytest

from sandbox.iterable_api import IterableSandbox
from tests.support.fault_runs import (
    BATCH_SIZE,
    Half,
    Stage,
    delivered,
    halves_of,
    received_count,
    run_once,
    stage,
)
from tests.support.faults_and_ends import MODES, Rule
from tests.support.users import check_project

PEOPLE_COUNT = 60
MOST_RUNS = 8
HARMLESS = ("delay", "huge_body")
CLEAN_CALLS = {
    "per-user": 2 * PEOPLE_COUNT,
    "bulk": 2 * (1 + ceil((PEOPLE_COUNT - 1) / BATCH_SIZE)),
}
SEEDS = (20260113, 2, 3, 4, 5)

# A network that loses what it can lose.
NETWORK: list[Rule] = [
    {"fault": "drop_before", "probability": 0.08},
    {"fault": "drop_after", "probability": 0.08},
    {"fault": "half_body", "probability": 0.08},
    {"fault": "down", "probability": 0.05},
    {"fault": "delay", "seconds": 0.01, "probability": 0.2},
]
# A busy Iterable behind a tired load balancer.
SERVERS: list[Rule] = [
    {"fault": "rate_limited", "reset": 0.05, "probability": 0.05},
    {"fault": "rate_limited", "reset": None, "retry_after": "soon", "probability": 0.03},
    {"fault": "status", "status": "any", "probability": 0.1},
    {"fault": "status", "status": 503, "applied": True, "retry_after": 1, "probability": 0.05},
    {"fault": "html_body", "status": 502, "probability": 0.05},
    {"fault": "empty_body", "applied": True, "probability": 0.03},
    {"fault": "success_code_on_error", "applied": True, "probability": 0.03},
]
# Answers that reject, mislead or do not add up.
ANSWERS: list[Rule] = [
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
    "answers": ANSWERS,
    "all of them": [*NETWORK, *SERVERS, *ANSWERS],
}


@pytest.fixture(scope="module")
def prepared() -> Iterator[Stage]:
    with stage(PEOPLE_COUNT) as made:
        yield made


def deliver_all(made: Stage, iterable: IterableSandbox, mode: str) -> None:
    """Run until a run ends with 0, checking each."""
    runs = made.runs(iterable, mode, MAX_ATTEMPTS="3")
    known: set[Half] = set()
    for _ in range(MOST_RUNS):
        received_before, sent_before = received_count(iterable), len(iterable.calls)
        ended = run_once(runs)
        made.check_honesty(iterable, ended, received_before)
        assert ended.status in (0, 3), ended.said
        sent = {half for call in iterable.calls[sent_before:] for half in halves_of(call)}
        assert not sent & known, "what was delivered is sent again"
        known |= delivered(ended)
        if ended.status == 0:
            break
    assert known == made.halves
    check_project(iterable.project, made.numbers)
    received_before = received_count(iterable)
    last = run_once(runs)
    assert (last.status, last.counts) == (0, {"unchanged": PEOPLE_COUNT})
    assert received_count(iterable) == received_before


def mixes_and_seeds() -> Iterator[Any]:
    """Pair all of the faults with every seed, and each part of them with two; one is quick."""
    for mix in MIXES:
        for seed in SEEDS if mix == "all of them" else SEEDS[:2]:
            is_quick = (mix, seed) == ("all of them", SEEDS[0])
            yield pytest.param(mix, seed, marks=() if is_quick else (pytest.mark.slow,))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("mix", "seed"), list(mixes_and_seeds()))
def test_runs_back_to_back_deliver_everything_through_any_mix_of_faults(
    prepared: Stage, mix: str, seed: int, mode: str
) -> None:
    with IterableSandbox(seed=seed, faults=MIXES[mix]) as iterable:
        deliver_all(prepared, iterable, mode)
        spoilt_count = sum(
            rule["fired"] for rule in iterable.state()["faults"] if rule["fault"] not in HARMLESS
        )
        call_count = received_count(iterable)
    assert spoilt_count > 0
    extra_count = call_count - CLEAN_CALLS[mode]
    if mode == "per-user":
        assert extra_count == spoilt_count  # each is made once more, and no other
    else:
        assert extra_count <= 2 * spoilt_count  # it may be split in two


@pytest.mark.parametrize("mode", MODES)
def test_an_iterable_that_is_down_ends_the_run_early_and_the_next_one_sends_the_rest(
    prepared: Stage, mode: str
) -> None:
    with IterableSandbox() as iterable:
        runs = prepared.runs(iterable, mode, BULK_BATCH_SIZE="1", MAX_ATTEMPTS="2")
        iterable.set_faults([{"fault": "down"}])
        ended = run_once(runs)
        assert (ended.status, ended.results["status"]) == (1, "aborted")
        assert "20 calls in a row failed" in ended.said
        prepared.check_honesty(iterable, ended)
        prepared.check_recovery(runs, iterable, ended)
