"""Model-based test: after any steps, Iterable is as the table says, and nothing was said wrongly.

`tests/support/contract_model.py` is the model, `model_machine.py` beside it the state machine.
`python -m tools.model` tries examples for as long as you like.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.support.contract_model import Row
from tests.support.model_machine import FIRST_TIME, Step, SyncMachine, repeat
from tests.support.model_world import TARGETS, Incident, SecondRun, World, world

pytestmark = pytest.mark.slow

ANN = Row(id="1", email="ann@example.com", event_time=FIRST_TIME, first_name="N0", event_id="e1")
BOB = Row(id="1", email="bob@example.com", event_time=FIRST_TIME, first_name="N0", event_id="e2")
LATER = FIRST_TIME + timedelta(seconds=1)
MODES = ("per-user", "bulk")
LOST_RESPONSES: Mapping[str, Mapping[str, Any]] = {
    "dropped": {"faults": [{"fault": "drop_after"}]},
    "malformed": {"faults": [{"fault": "malformed_json"}]},
    "does not add up": {"faults": [{"fault": "miscount"}]},
    "killed": {"incident": Incident("kill", at_call=1)},
}


@pytest.fixture(scope="module")
def servers() -> Iterator[World]:
    """The world of all tests of this module."""
    with world() as made:
        SyncMachine.world = made
        yield made


def start(*found: Row, has_event_id: bool = False) -> Step:
    arguments = {"found": found, "time_type": "DATETIME", "has_event_id": has_event_id}
    return "start", arguments


def run(mode: str = "per-user") -> Step:
    return "run", {"mode": mode}


def change(column: str, value: object, index: int = 0) -> Step:
    return "change_value", {"index": index, "change": (column, value)}


def leads_to(number: int) -> Step:
    return "change_project_or_key", {"leads_to": TARGETS[number]}


def check_steps(*steps: Step) -> None:
    broken, described = repeat(steps)
    assert broken is None, "\n".join([str(broken), *described])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.usefixtures("servers")
def test_a_user_stayed_unchanged_although_a_refresh_had_failed(mode: str) -> None:
    fault = {"fault": "status", "status": 503}
    arguments = {"is_full_refresh": True, "what": [fault], "max_attempts": 1}
    check_steps(start(ANN), run(mode), ("run_with_faults", {"mode": mode, **arguments}), run(mode))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("accident", LOST_RESPONSES)
@pytest.mark.parametrize("column", ["first_name", "event_time", "email"])
@pytest.mark.usefixtures("servers")
def test_a_value_that_went_there_and_back_was_lost(mode: str, accident: str, column: str) -> None:
    there = {"first_name": "N1", "event_time": LATER, "email": "dee@example.com"}
    arguments = {
        "index": 0,
        "other": 1,
        "change": (column, there[column]),
        "mode": mode,
        "accident": LOST_RESPONSES[accident],
    }
    check_steps(start(ANN, BOB), ("values_go_there_and_back", arguments))


@pytest.mark.parametrize("removes_lock_files", [False, True])
@pytest.mark.parametrize("name", ["state.sqlite3", "link.sqlite3", "hard_link.sqlite3"])
@pytest.mark.usefixtures("servers")
def test_a_second_run_was_let_in_by_another_path(name: str, removes_lock_files: bool) -> None:
    second = SecondRun(name, removes_lock_files)
    check_steps(start(ANN), ("two_runs_at_once", {"mode": "per-user", "second": second}))


@pytest.mark.parametrize("number", [2, 3])
@pytest.mark.usefixtures("servers")
def test_users_counted_as_unchanged_in_another_project(number: int) -> None:
    check_steps(start(ANN), run(), leads_to(number), run())


@pytest.mark.usefixtures("servers")
def test_a_new_key_of_the_same_project_sends_nothing_again() -> None:
    check_steps(start(ANN, BOB), run(), leads_to(1), run("bulk"))


@pytest.mark.usefixtures("servers")
def test_an_event_that_changed_hands_did_not_come_back() -> None:
    there, back = change("email", "bob@example.com"), change("email", "ann@example.com")
    check_steps(start(ANN, has_event_id=True), run(), there, run(), back, run())


@pytest.mark.usefixtures("servers")
def test_the_winner_of_equal_times_changed_with_the_order_of_the_rows() -> None:
    other = Row(id="2", email="ANN@example.com", event_time=FIRST_TIME, first_name="N1")
    shuffle = ("shuffle_rows", {"number": 2})
    check_steps(start(ANN, other), run(), shuffle, run(), shuffle, run())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.usefixtures("servers")
def test_a_stopped_run_counts_the_call_whose_response_it_did_not_wait_for(mode: str) -> None:
    arguments = {"mode": mode, "incident": Incident("stop hanging", at_call=1)}
    check_steps(start(ANN, BOB), ("run_that_is_ended", {"is_full_refresh": False, **arguments}))


@pytest.mark.usefixtures("servers")
def test_after_anything_that_can_happen_iterable_is_as_the_table_says() -> None:
    few = settings(
        max_examples=8,
        stateful_step_count=20,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],  # `python -m tools.model` finds the shortest steps
    )
    run_state_machine_as_test(SyncMachine, settings=few)  # type: ignore[no-untyped-call]
