"""The outcome of a row from its state in the outbox."""

from __future__ import annotations

from typing import Any

import pytest

from records.outcomes import Outcome, Verdict, row_outcome
from records.rows import RowState


@pytest.mark.parametrize("kind", ["unchanged", "invalid", "duplicate"])
def test_the_outcome_of_a_row_that_is_not_sent_is_decided_by_the_fill(kind: str) -> None:
    assert RowState(kind, True, True, None, None).outcome is Outcome(kind)


@pytest.mark.parametrize("update", [None, *Verdict])
@pytest.mark.parametrize("event", [None, *Verdict])
def test_a_state_as_the_outbox_stores_it_gives_the_outcome_of_its_verdicts(
    update: Verdict | None, event: Verdict | None
) -> None:
    stored = (verdict and verdict.value for verdict in (update, event))
    assert RowState(None, False, False, *stored).outcome is row_outcome(update, event)


def test_a_request_delivered_before_counts_in_the_form_that_sqlite_stores() -> None:
    one: Any = 1  # SQLite's booleans
    nought: Any = 0
    assert RowState(None, one, nought, None, "delivered").outcome is Outcome.SUCCESSFUL
    assert RowState(None, nought, one, "rejected", None).outcome is Outcome.PARTIAL_FAILURE
