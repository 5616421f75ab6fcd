"""The memory of failures: what is held back, what is known, and what is resolved."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import orjson
import pytest

from records.mapping import RowMapping
from records.outcomes import Verdict
from records.rows import FailureAge, Finished, RequestKind
from reporting.summary import RunTally
from state.outbox import FillSummary, Outbox
from state.project import Project
from tests.support.rows import COLUMNS, Row, call_result, email_of, fill, outcomes_of, row, rows

START = datetime(2026, 1, 14, 12, tzinfo=timezone.utc)
PROFILE, EVENT = RequestKind.PROFILE, RequestKind.EVENT
DELIVERED, REJECTED, UNAVAILABLE = Verdict.DELIVERED, Verdict.REJECTED, Verdict.UNAVAILABLE
PROJECT = Project("https://api.iterable.com", "a key")
MISMATCH = "RequestFieldsTypesMismatched"

# The verdict and the code of a request; without an entry it is delivered.
Answers = dict[tuple[int, RequestKind], tuple[Verdict, str]]
Run = Callable[..., "Ran"]


class Ran:
    """A run of an outbox: what it sent, and what became of the rows."""

    def __init__(self, outbox: Outbox, filled: FillSummary, sent: list[tuple[int, str]]) -> None:
        self.filled, self.sent = filled, sent
        self.rows = {each.seq: each for each in outbox.settled()}
        self.outcomes = outcomes_of(outbox)
        self.resolved = outbox.resolved_failures
        tally = RunTally()
        tally.add(list(self.rows.values()))
        self.new, self.known = tally.new_count, tally.known_count
        self.failures, self.new_failures = tally.failures(), tally.new_failures()

    def ages(self, seq: int = 0) -> dict[str, FailureAge]:
        return dict(self.rows[seq].ages())

    def update(self, seq: int = 0) -> Any:
        return orjson.loads(self.rows[seq].update_result or "null")

    def event(self, seq: int = 0) -> Any:
        return orjson.loads(self.rows[seq].event_result or "null")

    @property
    def counts(self) -> tuple[int, int, int]:
        """New, known and resolved failures."""
        return self.new, self.known, self.resolved


@pytest.fixture
def run(path: Path) -> Run:
    """Run with these rows and answers, so many hours after the start."""

    def run_once(
        found: Sequence[Row],
        answers: Answers | None = None,
        *,
        hours: float = 0.0,
        retry_hours: int = 24,
        is_complete_read: bool = True,
        is_blocked: bool = False,
        unsent: Sequence[int] = (),
        http_status: int = 400,
        **options: Any,
    ) -> Ran:
        now = START + timedelta(hours=hours)
        with closing(Outbox(path)) as outbox:
            filled = fill(outbox, found, now=now, rejected_retry_hours=retry_hours, **options)
            outbox.begin_delivery(is_complete_read=is_complete_read)
            sent: list[tuple[int, str]] = []
            results: list[Finished] = []
            for pending in outbox.pending():
                number = int(str(pending.user_id))
                for kind, body in ((PROFILE, pending.profile), (EVENT, pending.event)):
                    if body is None or number in unsent:
                        continue
                    verdict, code = (answers or {}).get((number, kind), (DELIVERED, "Success"))
                    result = call_result(
                        verdict, code=code, http_status=http_status, is_blocked=is_blocked
                    )
                    sent.append((number, kind.value))
                    results.append(Finished(pending.seq, kind, result, now.timestamp()))
                    if code in ("ForgottenUserError", "failedUpdates.forgottenEmails"):
                        break  # as the senders do: no event can reach the user
            outbox.record(results)
            return Ran(outbox, filled, sent)

    return run_once


def stored(path: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT * FROM failures").fetchall()


PROFILE_REJECTED: Answers = {(1, PROFILE): (REJECTED, MISMATCH)}
EVENT_REJECTED: Answers = {(1, EVENT): (REJECTED, MISMATCH)}


# What is held back


def test_content_that_was_rejected_is_not_sent_again(run: Run) -> None:
    answers = {**PROFILE_REJECTED, **EVENT_REJECTED}
    assert run(rows(1), answers).sent == [(1, "profile"), (1, "event")]
    again = run(rows(1), hours=1)
    assert again.sent == []
    assert (again.filled.to_send, again.filled.held_back) == (0, 1)
    assert again.outcomes == {email_of(1): "total_failure"}
    assert (
        again.update()
        == again.event()
        == {
            "success": False,
            "verdict": "rejected",
            "http_status": 400,
            "attempts": 0,
            "request_id": None,
            "response": {"code": MISMATCH},
        }
    )


@pytest.mark.parametrize(
    ("hours", "retry_hours", "is_sent"),
    [
        (23.9, 24, False),
        (24, 24, True),
        (0.01, 0, True),
        (1.9, 2, False),
        (2, 2, True),
        (-1, 24, True),  # the clock was ahead when it was rejected
    ],
)
def test_it_is_sent_again_after_the_retry_hours(
    run: Run, hours: float, retry_hours: int, is_sent: bool
) -> None:
    run(rows(1), EVENT_REJECTED)
    again = run(rows(1), EVENT_REJECTED, hours=hours, retry_hours=retry_hours)
    assert again.sent == [(1, "event")] * is_sent
    assert again.counts == (0, 1, 0)


def test_a_rejection_after_the_retry_is_held_back_as_long_again(run: Run) -> None:
    run(rows(1), EVENT_REJECTED)
    assert run(rows(1), EVENT_REJECTED, hours=24).sent
    assert run(rows(1), EVENT_REJECTED, hours=47).sent == []
    assert run(rows(1), EVENT_REJECTED, hours=48).sent


def test_changed_content_is_sent_at_once(run: Run) -> None:
    run(rows(1), PROFILE_REJECTED)
    assert run([row(1, first_name="Mended")], hours=1).sent == [(1, "profile"), (1, "event")]
    assert run([row(1, first_name="Mended")], hours=2).outcomes == {email_of(1): "unchanged"}


def test_content_that_goes_back_to_what_was_delivered_before_is_sent(run: Run) -> None:
    run(rows(1))
    assert run([row(1, first_name="Refused")], PROFILE_REJECTED, hours=1).sent == [(1, "profile")]
    assert run(rows(1), hours=2).sent == [(1, "profile")]
    assert run([row(1, first_name="Refused")], hours=3).sent == [(1, "profile")]


def test_a_full_refresh_sends_what_was_rejected(run: Run) -> None:
    run(rows(1), PROFILE_REJECTED)
    again = run(rows(1), PROFILE_REJECTED, hours=1, full_refresh=True)
    assert again.sent == [(1, "profile"), (1, "event")]
    assert again.counts == (0, 1, 0)


@pytest.mark.parametrize("verdict", [UNAVAILABLE, Verdict.REFUSED])
def test_what_was_not_rejected_is_sent_by_every_run_and_is_known(
    run: Run, verdict: Verdict
) -> None:
    answers: Answers = {(1, PROFILE): (verdict, "ReadTimeout")}
    assert run(rows(1), answers).counts == (1, 0, 0)
    again = run(rows(1), answers, hours=0.2)
    assert (1, "profile") in again.sent
    assert again.counts == (0, 1, 0)


def test_what_a_firewall_blocked_is_sent_by_every_run(run: Run) -> None:
    run(rows(1), PROFILE_REJECTED, is_blocked=True, http_status=403)
    again = run(rows(1), PROFILE_REJECTED, hours=0.2, is_blocked=True, http_status=403)
    assert (1, "profile") in again.sent
    assert again.counts == (0, 1, 0)


def test_a_row_that_was_not_sent_keeps_its_memory(run: Run) -> None:
    run(rows(1, 2), {(2, PROFILE): (REJECTED, MISMATCH), (1, PROFILE): (UNAVAILABLE, "503")})
    assert run(rows(1, 2), hours=1, unsent=[1]).outcomes == {
        email_of(1): "not_attempted",
        email_of(2): "partial_failure",
    }
    later = run(rows(1, 2), {(1, PROFILE): (UNAVAILABLE, "503")}, hours=2)
    assert later.ages(0) == {"profile": FailureAge(int(START.timestamp()), 2)}
    assert later.ages(1) == {"profile": FailureAge(int(START.timestamp()), 3)}


# One of two requests


def test_a_rejected_event_is_held_back_beside_a_changed_profile(run: Run) -> None:
    run(rows(1), EVENT_REJECTED)
    again = run([row(1, first_name="New")], hours=1)
    assert again.sent == [(1, "profile")]
    assert again.outcomes == {email_of(1): "partial_failure"}
    assert (again.update()["success"], again.event()["attempts"]) == (True, 0)
    assert run([row(1, first_name="New")], hours=2).sent == []


def test_a_new_event_is_sent_beside_a_profile_that_is_held_back(run: Run) -> None:
    run(rows(1), PROFILE_REJECTED)
    again = run([row(1, page="settings")], hours=1)
    assert again.sent == [(1, "event")]
    assert again.outcomes == {email_of(1): "partial_failure"}
    assert (again.update()["attempts"], again.event()["success"]) == (0, True)


def test_an_event_that_was_delivered_before_its_profile_waits_for_the_profile(run: Run) -> None:
    assert run(rows(1), PROFILE_REJECTED).outcomes == {email_of(1): "partial_failure"}
    again = run(rows(1), hours=1)
    assert again.sent == []
    assert again.outcomes == {email_of(1): "partial_failure"}
    assert again.event() is None
    assert run(rows(1), hours=24).sent == [(1, "profile"), (1, "event")]


def test_such_an_event_is_sent_again_once_it_may_have_been_replaced(run: Run) -> None:
    run(rows(1), PROFILE_REJECTED)
    other: Answers = {(1, EVENT): (UNAVAILABLE, "ReadTimeout")}
    assert run([row(1, page="settings")], other, hours=1).sent == [(1, "event")]
    assert run(rows(1), hours=2).sent == [(1, "event")]
    assert run(rows(1), hours=3).sent == []


def test_the_event_of_a_user_who_cannot_be_reached_is_not_sent(run: Run) -> None:
    forgotten: Answers = {(1, PROFILE): (REJECTED, "ForgottenUserError")}
    assert run(rows(1), forgotten, http_status=409).sent == [(1, "profile")]
    again = run([row(1, page="settings")], hours=1)
    assert again.sent == []
    assert again.outcomes == {email_of(1): "total_failure"}
    assert (again.update()["http_status"], again.event()) == (409, None)


def test_an_event_that_was_not_sent_for_such_a_user_was_in_doubt(run: Run) -> None:
    """The event that was delivered before was then sent once more."""
    run([row(1, first_name="A", page="pricing")])
    forgotten: Answers = {(1, PROFILE): (REJECTED, "ForgottenUserError")}
    run([row(1, first_name="B", page="pricing")], forgotten)
    assert run([row(1, first_name="B", page="settings")], hours=1).sent == []
    assert run([row(1, first_name="A", page="pricing")], hours=2).sent == [(1, "profile")]


def test_a_row_that_became_a_duplicate_or_invalid_is_nothing_but_that(run: Run) -> None:
    run(rows(1, 2), {(1, PROFILE): (REJECTED, MISMATCH), (2, PROFILE): (REJECTED, MISMATCH)})
    winner = row(3, email=email_of(1), page="settings", event_time=datetime(2026, 1, 14, 9))  # noqa: DTZ001
    again = run([row(1), winner, row(2, event_time=None)], hours=1)
    assert [each.state.outcome.value for each in again.rows.values()] == [
        *("duplicate", "successful", "invalid")
    ]
    assert again.update(0) is None
    assert [each.code for each in again.failures] == ["no event time"]


def test_rows_that_share_an_event_id_are_invalid_and_not_held_back(run: Run) -> None:
    mapping = RowMapping((*COLUMNS, "event_id"))
    found = [(*row(1), "e1"), (*row(2), "e2")]
    run(found, PROFILE_REJECTED, mapping=mapping)
    shared = [(*row(1), "e1"), (*row(2), "e1")]
    assert run(shared, hours=1, mapping=mapping).new == 2
    # The reason names the other row, which may be another one in the next run.
    shared.append((*row(3), "e1"))
    assert run(shared, hours=2, mapping=mapping).counts == (1, 2, 0)


# New, known and resolved


def test_a_failure_is_known_while_the_code_is_the_same(run: Run) -> None:
    at = int(START.timestamp())
    first = run(rows(1), PROFILE_REJECTED)
    assert (first.counts, first.ages()) == ((1, 0, 0), {"profile": FailureAge(at, 1)})
    held = run(rows(1), hours=1)
    assert (held.counts, held.ages()) == ((0, 1, 0), {"profile": FailureAge(at, 2)})
    assert held.new_failures == []
    tried = run(rows(1), PROFILE_REJECTED, hours=24)
    assert (tried.counts, tried.ages()) == ((0, 1, 0), {"profile": FailureAge(at, 3)})
    other = run([row(1, first_name="B")], {(1, PROFILE): (REJECTED, "BadParams")}, hours=25)
    assert (other.counts, other.ages()) == (
        (1, 0, 0),
        {"profile": FailureAge(at + 25 * 3600, 1)},
    )
    assert [each.code for each in other.new_failures] == ["BadParams"]


def test_a_new_failure_of_the_other_request_makes_the_row_new(run: Run) -> None:
    run(rows(1), PROFILE_REJECTED)
    again = run([row(1, page="settings")], EVENT_REJECTED, hours=1)
    assert again.counts == (1, 0, 0)
    assert {kind: age.runs_failed for kind, age in again.ages().items()} == {
        "profile": 2,
        "event": 1,
    }
    assert [each.endpoint for each in again.new_failures] == ["events/track"]
    assert [each.endpoint for each in again.failures] == ["users/update", "events/track"]


def test_a_failure_is_resolved_when_the_row_succeeds(run: Run, path: Path) -> None:
    run(rows(1, 2), {**PROFILE_REJECTED, **EVENT_REJECTED})
    again = run(rows(1, 2), hours=24)
    assert again.counts == (0, 0, 1)  # a user, not two requests
    assert stored(path) == []


def test_a_user_with_a_failure_left_is_not_resolved(run: Run) -> None:
    run(rows(1), {**PROFILE_REJECTED, **EVENT_REJECTED})
    assert run(rows(1), EVENT_REJECTED, hours=24).counts == (0, 1, 0)
    assert run(rows(1), hours=48).counts == (0, 0, 1)


def test_a_failure_is_dropped_when_a_complete_read_lacks_the_row(run: Run, path: Path) -> None:
    run([*rows(1, 2), row(3, email=None)], PROFILE_REJECTED)
    partial = run(rows(2), hours=1, is_complete_read=False)
    assert (partial.counts, len(stored(path))) == ((0, 0, 0), 2)
    assert run(rows(2), hours=2).counts == (0, 0, 2)
    assert stored(path) == []
    assert run(rows(1), hours=3).sent == [(1, "profile"), (1, "event")]


def test_an_invalid_row_is_known_by_its_id_and_reason(run: Run) -> None:
    at = int(START.timestamp())
    assert run([row(1, email=None)]).ages() == {"row": FailureAge(at, 1)}
    again = run([row(2, email=None), row(1, email="somebody"), row(1, email=None)], hours=1)
    assert again.counts == (2, 1, 0)
    assert again.ages(2) == {"row": FailureAge(at, 2)}
    assert [(each.code, each.rows) for each in again.new_failures] == [
        ("malformed e-mail address", 1),
        ("no e-mail address", 1),
    ]
    assert run([row(1, email=None)], hours=2).counts == (0, 1, 2)
    assert run(rows(1), hours=3).counts == (0, 0, 1)


def test_an_id_is_known_whatever_its_type(run: Run) -> None:
    run([row(1, email=None)])
    assert run([row(1, email=None, id="1")], hours=1).counts == (0, 1, 0)


def test_invalid_rows_without_an_id_are_known_by_their_number(run: Run) -> None:
    nameless = row(0, id=None, email=None)
    assert run([nameless] * 2).counts == (2, 0, 0)
    assert run([nameless] * 3, hours=1).counts == (1, 2, 0)
    assert run([nameless], hours=2).counts == (0, 1, 2)
    assert run([], hours=3).counts == (0, 0, 1)


def test_a_partial_read_forgets_no_invalid_row_without_an_id(run: Run) -> None:
    nameless = row(0, id=None, email=None)
    run([nameless] * 3)
    assert run([nameless], hours=1, is_complete_read=False).counts == (0, 1, 0)
    assert run([nameless] * 3, hours=2).counts == (0, 3, 0)


def test_a_row_that_is_sent_for_the_first_time_after_it_was_invalid(run: Run) -> None:
    run([row(1, event_time=None)])
    again = run(rows(1), PROFILE_REJECTED, hours=1)
    assert again.counts == (1, 0, 1)
    assert [each.code for each in again.new_failures] == [MISMATCH]


# What is stored, and when


def test_nothing_personal_is_stored(run: Run, path: Path) -> None:
    run([row(1), row(2, email="canary"), row(3, id="canary", email=None)], PROFILE_REJECTED)
    assert b"canary" not in path.read_bytes()
    assert email_of(1).encode() not in b"".join(each.read_bytes() for each in path.parent.iterdir())
    assert {type(value) for found in stored(path) for value in found} == {int, str, type(None)}
    texts = {value for found in stored(path) for value in found if isinstance(value, str)}
    assert texts == {"row", "profile", "invalid", "rejected", MISMATCH}


def test_a_run_that_a_guard_stops_leaves_the_memory_as_it_was(run: Run, path: Path) -> None:
    run([row(1), row(2, email=None)], PROFILE_REJECTED)
    before = stored(path)
    with closing(Outbox(path)) as outbox:
        fill(outbox, [row(1), row(3, email=None)], rejected_retry_hours=24, now=START)
    assert stored(path) == before


def test_a_dry_run_knows_what_is_known_and_writes_nothing(run: Run, path: Path) -> None:
    run([row(1), row(2, email=None)], PROFILE_REJECTED)
    before = stored(path)
    with closing(Outbox(path, read_only=True)) as outbox:
        found = [row(1), row(2, email=None), row(3, email=None)]
        filled = fill(outbox, found, rejected_retry_hours=24, now=START + timedelta(hours=1))
        assert (filled.to_send, filled.held_back) == (0, 1)
        assert list(outbox.pending()) == []
        assert outbox.count_requests() == (0, 0)
        ran = Ran(outbox, filled, [])
        assert (ran.new, ran.known) == (1, 2)
    assert stored(path) == before


def test_what_was_recorded_is_known_after_a_crash(path: Path) -> None:
    with closing(Outbox(path)) as outbox:
        fill(outbox, rows(1, 2), now=START)
        outbox.begin_delivery()
        result = call_result(REJECTED, code=MISMATCH, http_status=400)
        outbox.record([Finished(0, PROFILE, result, START.timestamp())])
    with closing(Outbox(path)) as outbox:
        filled = fill(outbox, rows(1, 2), rejected_retry_hours=24, now=START + timedelta(hours=1))
        assert filled.held_back == 1
        pending = [
            (row.user_id, row.profile is None, row.event is None) for row in outbox.pending()
        ]
        assert pending == [(1, True, False), (2, False, False)]
        assert outbox.count_requests() == (1, 2)


def test_rejections_of_a_run_that_ends_the_kind_are_forgotten_and_stay_known(
    run: Run, path: Path
) -> None:
    def reject(outbox: Outbox, seq: int, kind: RequestKind, code: str) -> None:
        result = call_result(REJECTED, code=code, http_status=400)
        outbox.record([Finished(seq, kind, result, time.time())])

    run(rows(1), {(1, PROFILE): (REJECTED, MISMATCH)})  # by an earlier run
    with closing(Outbox(path)) as outbox:
        fill(outbox, rows(1, 2, 3, 4, 5), rejected_retry_hours=24, now=START)
        outbox.begin_delivery(is_complete_read=True)
        reject(outbox, 1, PROFILE, MISMATCH)
        reject(outbox, 2, PROFILE, "BadParams")
        reject(outbox, 3, EVENT, MISMATCH)
        outbox.end_kind(PROFILE, MISMATCH)
        reject(outbox, 4, PROFILE, MISMATCH)  # it was under way
    with closing(Outbox(path)) as outbox:
        now = datetime.now(timezone.utc)
        hours = 24 * 365 * 100
        fill(outbox, rows(1, 2, 3, 4, 5), rejected_retry_hours=hours, now=now)
        sent = {each.user_id: each.profile is not None for each in outbox.pending()}
        assert sent == {2: True, 3: False, 4: True, 5: True}
        outbox.begin_delivery(is_complete_read=True)
        reject(outbox, 1, PROFILE, MISMATCH)
        ages = next(each for each in outbox.settled() if each.seq == 1).ages()
        assert ages["profile"].runs_failed == 2


@pytest.mark.parametrize(
    "other",
    [Project("https://api.iterable.com", "b"), Project("https://api.eu.iterable.com", "a key")],
)
def test_another_project_is_sent_what_the_former_one_rejected(path: Path, other: Project) -> None:
    def sends(project: Project) -> bool:
        with closing(Outbox(path)) as outbox:
            hours = 24 if outbox.project.has_judged(project) else 0
            filled = fill(outbox, rows(1), rejected_retry_hours=hours, now=START)
            outbox.begin_delivery(project, is_complete_read=True)
            result = call_result(REJECTED, code="InvalidEmailAddressError", http_status=400)
            outbox.record(
                [
                    Finished(each.seq, PROFILE, result, START.timestamp())
                    for each in outbox.pending()
                ]
            )
            return filled.to_send == 1

    # Nothing was delivered, so the file takes any project.
    assert [sends(PROJECT), sends(PROJECT), sends(other), sends(other)] == [
        *(True, False, True, False)
    ]


def test_a_rejection_of_the_former_project_is_forgotten_for_rows_of_no_run(path: Path) -> None:
    other = Project("https://api.iterable.com", "b")
    for project, found in ((PROJECT, rows(1, 2)), (other, rows(1))):
        with closing(Outbox(path)) as outbox:
            fill(outbox, found, now=START)
            outbox.begin_delivery(project)
            result = call_result(REJECTED, code="BadParams", http_status=400)
            outbox.record(
                [
                    Finished(each.seq, PROFILE, result, START.timestamp())
                    for each in outbox.pending()
                ]
            )
    with closing(Outbox(path)) as outbox:
        assert fill(outbox, rows(1, 2), rejected_retry_hours=24, now=START).held_back == 1


# Damage


@pytest.mark.parametrize("value", ["'text'", "x'ff'", "NULL", "1e300", "-5", "9223372036854775807"])
@pytest.mark.parametrize(
    "column",
    [
        *("http_status", "content_hash", "event_hash", "judged_at", "first_failed_at"),
        *("runs_failed", "row_count", "verdict"),
    ],
)
def test_a_value_that_no_run_writes_breaks_nothing(
    run: Run, path: Path, column: str, value: str
) -> None:
    found = [row(1), row(2, email=None), row(0, id=None, email=None)]
    run(found, PROFILE_REJECTED)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"UPDATE failures SET {column} = {value}")
        connection.commit()
    again = run(found, PROFILE_REJECTED, hours=1)
    assert again.new + again.known == 3
    for each in again.rows.values():
        for age in each.ages().values():
            datetime.fromtimestamp(age.first_failed_at, timezone.utc)
            assert age.runs_failed >= 1
