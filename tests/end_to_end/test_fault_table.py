"""Every fault of the sandbox: the run ends as the table says, and the next run recovers.

`python -m tools.fault_table` prints the table.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.faults import PARAMETERS
from sandbox.iterable_api import IterableSandbox
from tests.support.fault_runs import Ended, Stage, stage
from tests.support.faults_and_ends import (
    BATCH_SIZE,
    Case,
    Effect,
    When,
    all_cases,
    cases_by_turns,
)
from tests.support.program import Program
from tests.support.rows import API_KEY


@pytest.fixture(scope="module")
def prepared() -> Iterator[tuple[Stage, IterableSandbox]]:
    with stage() as made, IterableSandbox() as iterable:
        yield made, iterable


def test_the_table_has_every_fault_and_every_parameter_of_the_sandbox() -> None:
    tried: dict[str, dict[str, set[object]]] = {name: {} for name in PARAMETERS}
    for case in all_cases():
        for parameter, value in case.fault.rule.items():
            tried[case.fault.rule["fault"]].setdefault(parameter, set()).add(value)
    for name, parameters in PARAMETERS.items():
        assert set(tried[name]) == {"fault", *parameters}
        if "applied" in parameters:
            assert tried[name]["applied"] == {False, True}


def test_no_case_is_in_the_table_twice() -> None:
    names = [str(case) for case in all_cases()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("case", cases_by_turns(), ids=str)
def test_a_run_under_a_fault_ends_as_the_table_says_and_the_next_run_recovers(
    prepared: tuple[Stage, IterableSandbox], case: Case
) -> None:
    made, iterable = prepared
    made.check(case, iterable)


def one_of_each_effect() -> list[Case]:
    """Return the table's first case of each effect that a fault has, on the first call."""
    cases: dict[Effect, Case] = {}
    for case in all_cases():
        if case.when is When.FIRST:
            cases.setdefault(case.fault.effect(case.mode), case)
    return list(cases.values())


@pytest.mark.parametrize("case", one_of_each_effect(), ids=str)
def test_the_program_as_a_process_ends_as_the_table_says(
    prepared: tuple[Stage, IterableSandbox], tmp_path: Path, case: Case
) -> None:
    made, iterable = prepared
    iterable.reset()
    iterable.set_faults(case.rules())
    settings = {"SYNC_MODE": case.mode, "BULK_BATCH_SIZE": str(BATCH_SIZE), "MAX_ATTEMPTS": "5"}
    settings["ITERABLE_API_KEY"] = API_KEY
    program = Program.between(tmp_path, made.source, iterable, **settings)
    runs = made.runs(iterable, case.mode, STATE_FILE=str(program.state_file))
    ending = program.run()
    assert API_KEY not in ending.output + program.log
    ended = Ended(ending.status, program.results, ending.output)
    made.check_end(case, iterable, ended)
    made.check_recovery(runs, iterable, ended)
