"""Which users are moved to another address; pure."""

from __future__ import annotations

import pytest

from records.outcomes import CallResult, Verdict
from state.email_changes import EmailChange
from sync.email_changes import MoveOutcome, MovePlan, outcome_of, plan_moves

A, B, C, D = 1, 2, 3, 4  # the user keys of four addresses


def change(seq: int, former: int, new: int, *, is_noted: bool = False) -> EmailChange:
    return EmailChange(
        *(seq, f"u{seq}", new, f"{new}@x.io", former, f"{former}@x.io", None, None, None), is_noted
    )


def moved(plan: MovePlan) -> list[int]:
    return [each.seq for each in plan.moves]


def test_a_user_whose_former_address_nobody_has_is_moved() -> None:
    assert moved(plan_moves([change(0, A, B)], set(), {})) == [0]


def test_a_user_id_that_several_rows_have_says_nothing() -> None:
    assert plan_moves([change(0, A, B)], {"u0"}, {}) == MovePlan()


@pytest.mark.parametrize("holder", [7, None])
def test_a_user_whose_former_address_another_row_has_is_not_moved(holder: int | None) -> None:
    assert plan_moves([change(0, A, B)], set(), {A: [holder]}) == MovePlan()


def test_a_chain_starts_at_its_free_end() -> None:
    changes = [change(0, A, B), change(1, B, C), change(2, C, D)]
    plan = plan_moves(changes, set(), {B: [0], C: [1]})
    assert (moved(plan), plan.needs) == ([0, 1, 2], {0: 1, 1: 2})
    assert not plan.circles


def test_nobody_in_a_chain_is_moved_onto_a_user_who_stays() -> None:
    """The row 1 cannot be moved, since a row names its former address; so row 0 is not, either."""
    changes = [change(0, A, B), change(1, B, C)]
    plan = plan_moves(changes, set(), {A: [], B: [0, 9]})
    assert (moved(plan), [each.seq for each in plan.blocked]) == ([], [0])
    assert plan_moves(changes, {"u0"}, {B: [0]}) == MovePlan()


def test_what_stands_behind_a_blocked_link_is_blocked() -> None:
    changes = [change(0, A, B), change(1, B, C), change(2, C, D)]
    plan = plan_moves(changes, {"u2"}, {B: [0], C: [1]})
    assert (moved(plan), [each.seq for each in plan.blocked]) == ([], [0, 1])


def test_nobody_in_a_circle_is_moved_and_what_leads_into_it_neither() -> None:
    swap = [change(0, A, B), change(1, B, A)]
    plan = plan_moves(swap, set(), {A: [1], B: [0]})
    assert (moved(plan), [each.seq for each in plan.circles]) == ([], [0, 1])


def test_an_uncertain_move_is_repeated_though_its_row_is_back_at_the_former_address() -> None:
    back = change(0, B, A, is_noted=True)
    assert moved(plan_moves([back], set(), {})) == [0]


def result(verdict: Verdict, code: str, message: str = "", status: int = 400) -> CallResult:
    return CallResult(verdict, status, code, message)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (result(Verdict.DELIVERED, "Success", status=200), MoveOutcome.MOVED),
        (result(Verdict.REJECTED, "UnknownEmailError"), MoveOutcome.NOT_IN_ITERABLE),
        (
            result(Verdict.REJECTED, "BadParams", "No user with email a@x.io exists"),
            MoveOutcome.NOT_IN_ITERABLE,
        ),
        (result(Verdict.REJECTED, "BadParams", "newEmail is required"), MoveOutcome.FAILED),
        (result(Verdict.REJECTED, "EmailAlreadyExists"), MoveOutcome.ALREADY_THERE),
        (
            result(Verdict.REJECTED, "EmailAlreadyExists", "b@x.io has been FORGOTTEN", 409),
            MoveOutcome.FAILED,
        ),
        (result(Verdict.REJECTED, "ForgottenUserError", status=409), MoveOutcome.FAILED),
        (result(Verdict.REJECTED, "InvalidEmailAddressError"), MoveOutcome.FAILED),
        (result(Verdict.UNAVAILABLE, "GenericError", status=500), MoveOutcome.FAILED),
    ],
)
def test_the_outcome_of_a_move_follows_from_code_and_message(
    call: CallResult, expected: MoveOutcome
) -> None:
    assert outcome_of(call) is expected
