"""`--verify`: waits for late changes, retries, stop signals and errors."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from commands.verify.run import VerificationError, VerificationTally, verify
from iterable_api.comparison import WAITS_SECONDS, Comparison
from records.rows import RequestKind
from sandbox.iterable_api import IterableSandbox
from tests.conftest import SourceDatabase
from tests.support.sync_pair import USER_COUNT, SyncPair
from tests.support.users import add_users, email_of

pytest_plugins = ["tests.support.synced"]


def just_delivered() -> float:
    """A clock by which every delivery is recent."""
    return 0.0


WAITS = (0.01, 0.02, 0.03)  # no rate limiter waits for one of these


class Waits(threading.Event):
    """A stop event that calls `happens` in the second wait."""

    def __init__(self, happens: Callable[[Waits], None]) -> None:
        super().__init__()
        self._happens = happens

    def wait(self, timeout: float | None = None) -> bool:
        if timeout == WAITS[1]:
            self._happens(self)
        return super().wait(timeout)


def test_the_waits_add_up_to_the_minute_that_iterable_advises() -> None:
    assert sum(WAITS_SECONDS) == 60


def test_an_event_that_appears_late_is_found(synced: SyncPair) -> None:
    late = synced.event(7)
    synced.take_event(late)
    waits = Waits(lambda _waits: synced.put_event(late))
    findings = list(verify(synced.settings, 100, waits, waits_seconds=WAITS, now=just_delivered))
    assert {finding.comparison for finding in findings} == {Comparison.AS_SENT}
    # What was as sent in the first round is not read again, and comes before the late event.
    assert (findings[-1].user_id, findings[-1].kind) == (7, RequestKind.EVENT)
    asked = [call.email for call in synced.iterable.calls if call.endpoint == "events/{email}"]
    assert asked.count(email_of(7)) == 3
    assert asked.count(email_of(6)) == 1


def test_a_difference_is_reported_after_the_last_wait(synced: SyncPair) -> None:
    synced.change_profile(3, first_name="Mallory")
    findings = list(
        verify(
            synced.settings,
            100,
            threading.Event(),
            waits_seconds=(0.01, 0.02),
            now=just_delivered,
        )
    )
    assert findings[-1].comparison is Comparison.DIFFERENT
    asked = [call for call in synced.iterable.calls if call.endpoint == "users/getByEmail"]
    assert len([call for call in asked if call.email == email_of(3)]) == 3


def test_what_was_delivered_long_ago_is_read_only_once(synced: SyncPair) -> None:
    synced.change_profile(3, first_name="Mallory")
    assert len(synced.wrong()) == 1
    asked = [call for call in synced.iterable.calls if call.endpoint == "users/getByEmail"]
    assert len([call for call in asked if call.email == email_of(3)]) == 1


def test_a_stop_ends_the_waits_at_once(synced: SyncPair) -> None:
    synced.change_profile(3, first_name="Mallory")
    findings = list(
        verify(synced.settings, 100, Waits(Waits.set), waits_seconds=WAITS, now=just_delivered)
    )
    asked = [call for call in synced.iterable.calls if call.endpoint == "users/getByEmail"]
    assert len([call for call in asked if call.email == email_of(3)]) == 2
    assert len(findings) == 2 * USER_COUNT - 1


def test_a_stop_does_not_wait_for_a_hanging_response(synced: SyncPair) -> None:
    synced.iterable.set_faults([{"fault": "hang", "endpoint": "users/getByEmail"}])
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    started_at = time.monotonic()
    list(verify(synced.settings, 1, stop))
    assert time.monotonic() - started_at < 20  # the time-out is 30 seconds


@pytest.mark.slow
def test_a_stop_signal_interrupts_a_slow_query(tmp_path: Path, mariadb: SourceDatabase) -> None:
    add_users(mariadb.run_sql, [1])
    query = tmp_path / "slow.sql"
    query.write_text("SELECT customers.*, SLEEP(2) FROM customers", encoding="utf-8")

    class Interrupted(Exception):
        pass

    def interrupt(_number: int, _frame: object) -> None:
        raise Interrupted

    with IterableSandbox() as iterable:
        settings = replace(SyncPair(tmp_path, mariadb, iterable).settings, query_file=query)
        former = signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        started_at = time.monotonic()
        try:
            with pytest.raises(Interrupted):
                list(verify(settings, 5, threading.Event()))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, former)
    assert time.monotonic() - started_at < 1.5


def test_temporary_errors_are_retried(synced: SyncPair) -> None:
    synced.iterable.set_faults(
        [
            {"fault": "status", "status": 503, "times": 3},
            {"fault": "drop_before", "times": 1},
            {"fault": "html_body", "status": 502, "times": 1},
        ]
    )
    findings = list(
        verify(synced.settings, 100, threading.Event(), waits_seconds=(0.01, 0.01, 0.01))
    )
    assert {finding.comparison for finding in findings} == {Comparison.AS_SENT}


def test_a_lasting_error_is_reported_for_its_user_only(synced: SyncPair) -> None:
    synced.iterable.set_faults(
        [
            {
                "fault": "status",
                "status": 500,
                "endpoint": "users/getByEmail",
                "email": email_of(2),
            }
        ]
    )
    findings = list(verify(synced.settings, 100, threading.Event(), waits_seconds=(0.01,)))
    (wrong,) = [finding for finding in findings if finding.comparison is not Comparison.AS_SENT]
    assert str(wrong) == "user 2: the profile could not be read back (HTTP 500)"
    tally = VerificationTally()
    for finding in findings:
        tally.add(finding)
    assert not tally.is_complete
    assert not tally.has_differences
    assert str(tally) == "11 profiles and 12 events as sent; 1 profile not read back"


def test_a_verification_that_can_read_nothing_ends_with_the_reason(synced: SyncPair) -> None:
    synced.iterable.set_faults([{"fault": "status", "status": 503}])
    with pytest.raises(VerificationError, match="server error"):
        list(verify(synced.settings, 100, threading.Event(), waits_seconds=(0.01,)))


def test_a_429_delays_requests_and_loses_none(synced: SyncPair) -> None:
    synced.iterable.set_faults([{"fault": "rate_limited", "reset": 0.05, "times": 3}])
    assert not synced.wrong()


def test_a_refused_key_ends_the_verification_with_the_reason(synced: SyncPair) -> None:
    settings = replace(synced.settings, iterable_api_key="f" * 32)
    with pytest.raises(VerificationError, match="refused the API key"):
        list(verify(settings, 100, threading.Event()))


def test_an_unreachable_api_ends_the_verification_with_the_reason(synced: SyncPair) -> None:
    synced.iterable.stop()
    with pytest.raises(VerificationError, match="cannot be reached"):
        list(verify(synced.settings, 100, threading.Event(), waits_seconds=(0.01,)))


def test_before_the_first_run_there_is_nothing_to_verify(synced: SyncPair, tmp_path: Path) -> None:
    settings = replace(synced.settings, state_file=tmp_path / "none.sqlite3")
    with pytest.raises(VerificationError, match="Run a sync first"):
        list(verify(settings, 100, threading.Event()))
    assert not settings.state_file.exists()
