"""Pages of a proxy or firewall: one blocked row harms no other; a run that gets nothing ends."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from iterable_api.responses import USERS_BULK_UPDATE, USERS_UPDATE
from sandbox.iterable_api import IterableSandbox
from sync.dispatcher import RunAborted
from tests.support.drains import drain, outbox_with, stop_when
from tests.support.rows import email_of, failures_of, fill, outcomes_of, rows

MODES = pytest.mark.parametrize("batch_size", [None, 10], ids=["per-user", "bulk"])
PAGE: dict[str, Any] = {"fault": "html_body", "status": 403, "applied": False}
BLOCKED = "A proxy or firewall between this machine and Iterable blocks the requests"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.sqlite3"


@MODES
@pytest.mark.parametrize("status", [403, 406, 418, 451])
@pytest.mark.parametrize("place", [1, 2, 30])
def test_a_row_that_a_firewall_blocks_ends_no_run_and_harms_no_other_row(
    path: Path, iterable: IterableSandbox, place: int, status: int, batch_size: int | None
) -> None:
    iterable.set_faults([{**PAGE, "status": status, "email": email_of(place)}])
    with outbox_with(path, rows(*range(1, 31))) as outbox:
        client = drain(outbox, iterable.url, batch_size=batch_size)
        outcomes = outcomes_of(outbox)
        assert outcomes.pop(email_of(place)) == "total_failure"
        assert set(outcomes.values()) == {"successful"}
        assert {(f.verdict, f.code) for f in failures_of(outbox)} == {
            ("rejected", "not an API response")
        }
    assert client.call_count == len(iterable.calls)


@MODES
def test_a_404_page_for_one_row_ends_no_run_once_the_api_has_answered(
    path: Path, iterable: IterableSandbox, batch_size: int | None
) -> None:
    iterable.set_faults([{**PAGE, "status": 404, "email": email_of(30)}])
    with outbox_with(path, rows(*range(1, 31))) as outbox:
        drain(outbox, iterable.url, batch_size=batch_size)
        assert Counter(outcomes_of(outbox).values()) == {"successful": 29, "total_failure": 1}


@MODES
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_a_run_that_gets_nothing_through_a_firewall_ends_after_three_rows(
    path: Path, iterable: IterableSandbox, count: int, batch_size: int | None
) -> None:
    iterable.set_faults([PAGE])
    with outbox_with(path, rows(*range(1, count + 1))) as outbox:
        with pytest.raises(RunAborted, match=BLOCKED):
            drain(outbox, iterable.url, batch_size=batch_size)
        expected = {"total_failure": min(count, 3), "not_attempted": max(0, count - 3)}
        assert Counter(outcomes_of(outbox).values()) == Counter(expected)
        assert {failure.verdict for failure in failures_of(outbox)} == {"refused"}
        iterable.set_faults([])
        fill(outbox, rows(*range(1, count + 1)))
        drain(outbox, iterable.url, batch_size=batch_size)
        assert set(outcomes_of(outbox).values()) == {"successful"}


@MODES
@pytest.mark.parametrize("count", [1, 2])
def test_iterable_is_asked_itself_where_too_few_rows_wait_to_tell(
    path: Path, iterable: IterableSandbox, count: int, batch_size: int | None
) -> None:
    """Its JSON shows that the key and the address work: only these rows are blocked."""
    iterable.set_faults([{**PAGE, "email": email_of(number)} for number in (1, 2)])
    with outbox_with(path, rows(*range(1, count + 1))) as outbox:
        client = drain(outbox, iterable.url, batch_size=batch_size)
        assert set(outcomes_of(outbox).values()) == {"total_failure"}
        assert {failure.verdict for failure in failures_of(outbox)} == {"rejected"}
    assert client.call_count == len(iterable.calls)
    assert iterable.calls[-1].endpoint == "users/getFields"


@MODES
def test_a_stop_while_iterable_was_asked_blamed_a_firewall(
    path: Path, iterable: IterableSandbox, batch_size: int | None
) -> None:
    asked = {"endpoint": "users/getFields"}
    iterable.set_faults(
        [{**asked, "fault": "delay", "seconds": 1}, {**asked, "fault": "drop_before"}, PAGE]
    )
    stop = stop_when(lambda: len(iterable.calls) == 3)  # update, event, and this question
    with outbox_with(path, rows(1)) as outbox:
        drain(outbox, iterable.url, batch_size=batch_size, stop=stop)
        assert {failure.verdict for failure in failures_of(outbox)} == {"unavailable"}


@MODES
def test_three_blocked_rows_at_the_beginning_ended_every_run(
    path: Path, iterable: IterableSandbox, batch_size: int | None
) -> None:
    iterable.set_faults([{**PAGE, "email": email_of(number)} for number in (1, 2, 3)])
    with outbox_with(path, rows(*range(1, 31))) as outbox:
        client = drain(outbox, iterable.url, batch_size=batch_size)
        assert Counter(outcomes_of(outbox).values()) == {"successful": 27, "total_failure": 3}
        assert {failure.verdict for failure in failures_of(outbox)} == {"rejected"}
    assert client.call_count == len(iterable.calls)


def test_many_batches_with_a_blocked_row_do_not_end_the_run(
    path: Path, iterable: IterableSandbox
) -> None:
    blocked = [email_of(number) for number in range(1, 301, 10)]
    iterable.set_faults([{**PAGE, "email": e, "endpoint": USERS_BULK_UPDATE} for e in blocked])
    with outbox_with(path, rows(*range(1, 301))) as outbox:
        drain(outbox, iterable.url, batch_size=10)
        outcomes = outcomes_of(outbox)
        assert {e for e, outcome in outcomes.items() if outcome != "successful"} == set(blocked)


def test_an_event_may_pass_although_its_update_was_blocked(
    path: Path, iterable: IterableSandbox
) -> None:
    iterable.set_faults([{**PAGE, "endpoint": USERS_UPDATE}])
    with outbox_with(path, rows(1)) as outbox:
        drain(outbox, iterable.url)
        assert outcomes_of(outbox) == {email_of(1): "partial_failure"}
    assert [call.endpoint for call in iterable.calls] == [USERS_UPDATE, "events/track"]
