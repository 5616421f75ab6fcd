"""Every fault of the sandbox, in either mode: the contract's end, nothing false, nothing lost.

`python -m tests.fault_table` prints the same table.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sandbox.faults import PARAMETERS
from sandbox.iterable_api import IterableSandbox
from tests.fault_runs import Stage, stage
from tests.faults_and_ends import KINDS, MODES, Case, When, all_cases


def is_quick(case: Case) -> bool:
    """Say whether a fast run tries it, too: one way of each kind, in the modes by turns."""
    if case.fault not in KINDS or case.when is not When.SOME:
        return False
    return case.mode == MODES[KINDS.index(case.fault) % 2]


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


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=str(case), marks=() if is_quick(case) else (pytest.mark.slow,))
        for case in all_cases()
    ],
)
def test_a_run_under_a_fault_ends_as_it_must_and_the_next_one_mends_it(
    prepared: tuple[Stage, IterableSandbox], case: Case
) -> None:
    made, iterable = prepared
    made.check(case, iterable)
