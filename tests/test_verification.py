"""`--verify`: what changed behind our back is found, and what comes late is waited for."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from outcomes import Half
from sandbox.iterable_api import IterableSandbox
from sandbox.profiles import Event
from settings import Settings
from sync_run import Options, StopSignal, SyncRun
from tests.conftest import SourceDatabase
from tests.mariadb import free_port
from tests.people import WINDOW, add_people, email_of, event_of
from verification import (
    WAITS_SECONDS,
    Finding,
    Found,
    VerificationError,
    VerificationTally,
    verify,
)

KEY = "c0ffee00c0ffee00c0ffee00c0ffee00"
PEOPLE = 12
LATER = 10**10  # long after the delivery: nothing is waited for


class Synced:
    """A database and an Iterable that one real run has brought into step."""

    def __init__(self, folder: Path, source: SourceDatabase, iterable: IterableSandbox) -> None:
        self.source, self.iterable = source, iterable
        self.settings = Settings.from_environment(
            {
                **source.settings(),
                **WINDOW,
                "ITERABLE_API_KEY": KEY,
                "ITERABLE_API_BASE_URL": iterable.url,
                "STATE_FILE": str(folder / "state.sqlite3"),
                "RESULTS_DIR": str(folder),
                "LOG_FILE": str(folder / "run.log"),
            }
        )

    def sync(self, **options: Any) -> None:
        report = SyncRun(self.settings, Options(**options), StopSignal()).execute()
        assert report.error is None

    def findings(self, count: int = 100, now: Callable[[], float] = lambda: LATER) -> list[Finding]:
        return list(verify(self.settings, count, threading.Event(), now=now))

    def wrong(self) -> list[Finding]:
        return [each for each in self.findings() if each.found is not Found.AS_SENT]

    def event(self, number: int) -> Event:
        events = self.iterable.project.events.values()
        return next(event for event in events if event.email == email_of(number))

    def change_profile(self, number: int, **fields: Any) -> None:
        user = self.iterable.project.users[email_of(number)]
        changed = {**user.data_fields, **fields}
        user.fields_json = orjson.dumps({k: v for k, v in changed.items() if v != "gone"}).decode()


@pytest.fixture
def synced(tmp_path: Path, embedded: SourceDatabase) -> Any:
    add_people(embedded.run_sql, range(1, PEOPLE + 1))
    with IterableSandbox(api_key=KEY) as iterable:
        both = Synced(tmp_path, embedded, iterable)
        both.sync()
        yield both


def test_what_was_delivered_is_found_as_it_was_sent(synced: Synced) -> None:
    findings = synced.findings()
    assert {finding.found for finding in findings} == {Found.AS_SENT}
    assert {f.user_id for f in findings if f.half is Half.EVENT} == {*range(1, PEOPLE + 1)}
    tally = VerificationTally()
    for finding in findings:
        tally.add(finding)
    assert str(tally) == "12 profiles and 12 events as sent"
    assert tally.is_complete
    assert not tally.has_differences


def test_reading_back_changes_nothing(synced: Synced) -> None:
    writes_before = [call for call in synced.iterable.calls if call.body]
    state_before = synced.settings.state_file.read_bytes()
    synced.findings()
    assert [call for call in synced.iterable.calls if call.body] == writes_before
    assert synced.settings.state_file.read_bytes() == state_before


def test_a_field_changed_behind_our_back_is_found_with_both_values(synced: Synced) -> None:
    synced.change_profile(3, first_name="Mallory")
    (finding,) = synced.wrong()
    assert (finding.user_id, finding.found) == (3, Found.DIFFERENT)
    assert str(finding) == (
        'user 3: the profile differs: first_name was sent as "First3" and is "Mallory"'
    )


def test_every_field_that_differs_is_named_and_none_that_does_not(synced: Synced) -> None:
    synced.change_profile(4, last_name="gone", recent_page_view=1, plan_type="pro ")
    (finding,) = synced.wrong()
    assert str(finding) == (
        'user 4: the profile differs: last_name was sent as "Last4" and is absent; '
        'plan_type was sent as "pro" and is "pro "; recent_page_view was sent as true and is 1'
    )
    assert "First4" not in str(finding)


def test_fields_of_others_are_nobodys_business(synced: Synced) -> None:
    synced.change_profile(5, favourite_colour="red", phoneNumber="+15550100")
    assert not synced.wrong()


def test_a_profile_that_is_gone_is_missing(synced: Synced) -> None:
    del synced.iterable.project.users[email_of(6)]
    (finding,) = synced.wrong()
    assert (finding.half, finding.found) == (Half.PROFILE, Found.MISSING)
    assert str(finding) == "user 6: the profile is not in Iterable"


def test_an_event_that_is_gone_is_missing(synced: Synced) -> None:
    del synced.iterable.project.events[synced.event(7).id]
    synced.iterable.project._events_by_email = {}
    (finding,) = synced.wrong()
    assert (finding.user_id, finding.half, finding.found) == (7, Half.EVENT, Found.MISSING)


def test_an_event_with_another_field_or_time_is_different(synced: Synced) -> None:
    event = synced.event(8)
    event.fields_json = orjson.dumps({**event_of(8), "page": "home"}).decode()
    event.created_at += 1
    (finding,) = synced.wrong()
    assert finding.found is Found.DIFFERENT
    assert finding.details[0].startswith("differs: createdAt was sent as 176831")
    assert finding.details[1] == 'page was sent as "pricing" and is "home"'


def test_an_event_beyond_what_iterable_shows_is_said_to_be_so(synced: Synced) -> None:
    project, ours = synced.iterable.project, synced.event(2)
    for number in range(200):
        newer = replace(ours, id=f"newer-{number}", created_at=ours.created_at + 1 + number)
        project.events[newer.id] = newer
    project._events_by_email = {}
    (finding,) = synced.wrong()
    assert "not among the newest 200" in str(finding)


def test_a_person_who_left_or_changed_since_is_not_compared(synced: Synced) -> None:
    synced.source.run_sql("DELETE FROM page_views WHERE user_id = 1")
    synced.source.run_sql("UPDATE customers SET first_name = 'New' WHERE id = 2")
    synced.change_profile(1, first_name="Mallory")
    synced.change_profile(2, first_name="Mallory")
    asked = {(finding.user_id, finding.half) for finding in synced.findings()}
    assert not {(1, Half.PROFILE), (1, Half.EVENT), (2, Half.PROFILE)} & asked
    assert (2, Half.EVENT) in asked


def test_an_event_that_was_never_delivered_is_not_looked_for(
    tmp_path: Path, embedded: SourceDatabase
) -> None:
    add_people(embedded.run_sql, range(1, 4))
    with IterableSandbox(api_key=KEY, disallowed_events=["page_view"]) as iterable:
        synced = Synced(tmp_path, embedded, iterable)
        synced.sync()
        findings = synced.findings()
    assert [finding.half for finding in findings] == [Half.PROFILE] * 3


def test_no_more_people_than_asked_are_read_back(synced: Synced) -> None:
    assert len(synced.findings(5)) == 10
    assert len({finding.user_id for finding in synced.findings(5)}) == 5


def test_those_of_the_last_run_come_first(synced: Synced) -> None:
    with sqlite3.connect(synced.settings.state_file) as state:  # as if that had been yesterday
        state.execute("UPDATE delivered SET profile_at = profile_at - 86400, event_at = 1")
    synced.source.run_sql(
        "UPDATE customers SET first_name = 'New' WHERE id IN (3, 9); UPDATE customers"
        " SET candidate = NULL WHERE id = 5"
    )
    synced.sync()
    assert {finding.user_id for finding in synced.findings(3)} == {3, 5, 9}


def test_addresses_of_any_form_are_read_back(tmp_path: Path, embedded: SourceDatabase) -> None:
    for number, email in enumerate(
        ("a+b@example.com", "o''brien/x@example.com", "50%off?&x=1#y@example.com", "Q@EXAMPLE.com"),
        start=1,
    ):
        embedded.run_sql(
            f"INSERT INTO customers (id, email, plan_type) VALUES ({number}, ' {email} ', 'pro');"
            "INSERT INTO page_views (user_id, page, event_time)"
            f" VALUES ({number}, 'pricing', '2026-01-13 14:30:45')"
        )
    with IterableSandbox(api_key=KEY) as iterable:
        synced = Synced(tmp_path, embedded, iterable)
        synced.sync()
        assert len(synced.findings()) == 8
        assert not synced.wrong()


class TestPatience:
    WAITS = (0.05, 0.05, 0.1, 0.2, 0.4, 0.8)

    def test_lasts_the_minute_that_iterable_advises(self) -> None:
        assert sum(WAITS_SECONDS) == 60

    def test_waits_for_what_appears_late(self, synced: Synced) -> None:
        project, late = synced.iterable.project, synced.event(7)
        del project.events[late.id]
        project._events_by_email = {}

        def appear() -> None:
            project.events[late.id] = late
            project._events_by_email = {}

        delivered_at = time.time()
        timer = threading.Timer(0.3, appear)
        timer.start()
        findings = list(
            verify(
                synced.settings,
                100,
                threading.Event(),
                waits_seconds=self.WAITS,
                now=lambda: delivered_at - 1,
            )
        )
        timer.join()
        assert {finding.found for finding in findings} == {Found.AS_SENT}
        # What had agreed at once was not asked for again, and stands before what came late.
        assert (findings[-1].user_id, findings[-1].half) == (7, Half.EVENT)
        asked = [call.email for call in synced.iterable.calls if call.endpoint == "events/{email}"]
        assert asked.count(email_of(7)) > 2
        assert asked.count(email_of(6)) == 1

    def test_ends_and_then_the_difference_is_told(self, synced: Synced) -> None:
        synced.change_profile(3, first_name="Mallory")
        delivered_at = time.time()
        findings = list(
            verify(
                synced.settings,
                100,
                threading.Event(),
                waits_seconds=(0.01, 0.02),
                now=lambda: delivered_at - 1,
            )
        )
        assert findings[-1].found is Found.DIFFERENT
        asked = [call for call in synced.iterable.calls if call.endpoint == "users/getByEmail"]
        assert len([call for call in asked if call.email == email_of(3)]) == 3

    def test_is_not_spent_on_what_was_delivered_long_ago(self, synced: Synced) -> None:
        synced.change_profile(3, first_name="Mallory")
        started_at = time.monotonic()
        assert len(synced.wrong()) == 1
        assert time.monotonic() - started_at < 0.9  # the first wait would be a second

    def test_ends_at_once_when_asked_to_stop(self, synced: Synced) -> None:
        synced.change_profile(3, first_name="Mallory")
        stop = threading.Event()
        threading.Timer(0.2, stop.set).start()
        started_at = time.monotonic()
        findings = list(
            verify(
                synced.settings, 100, stop, waits_seconds=(60.0,), now=lambda: started_at - 10**6
            )
        )
        assert time.monotonic() - started_at < 5
        assert len(findings) == 2 * PEOPLE - 1

    def test_with_an_answer_that_hangs_ends_at_once_too(self, synced: Synced) -> None:
        synced.iterable.set_faults([{"fault": "hang", "endpoint": "users/getByEmail"}])
        stop = threading.Event()
        threading.Timer(0.2, stop.set).start()
        started_at = time.monotonic()
        list(verify(synced.settings, 1, stop))
        assert time.monotonic() - started_at < 2


class TestTrouble:
    def test_that_passes_is_asked_through(self, synced: Synced) -> None:
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
        assert {finding.found for finding in findings} == {Found.AS_SENT}

    def test_that_stays_with_one_person_is_told_of_that_one(self, synced: Synced) -> None:
        synced.iterable.set_faults(
            [{"fault": "status", "status": 500, "endpoint": "users/getByEmail", "email": E2}]
        )
        findings = list(verify(synced.settings, 100, threading.Event(), waits_seconds=(0.01,)))
        (wrong,) = [finding for finding in findings if finding.found is not Found.AS_SENT]
        assert str(wrong) == "user 2: the profile could not be read back (HTTP 500)"
        tally = VerificationTally()
        for finding in findings:
            tally.add(finding)
        assert not tally.is_complete
        assert not tally.has_differences
        assert str(tally) == "11 profiles and 12 events as sent; 1 profile unanswered"

    def test_with_everything_ends_it_and_asks_no_more(self, synced: Synced) -> None:
        synced.iterable.set_faults([{"fault": "status", "status": 503}])
        with pytest.raises(VerificationError, match="trouble of its own"):
            list(verify(synced.settings, 100, threading.Event(), waits_seconds=(0.01,)))

    def test_too_many_requests_slow_it_down_and_lose_nothing(self, synced: Synced) -> None:
        synced.iterable.set_faults([{"fault": "rate_limited", "reset": 0.05, "times": 3}])
        assert not synced.wrong()

    def test_a_refused_key_ends_it_with_the_reason(self, synced: Synced) -> None:
        settings = replace(synced.settings, iterable_api_key="f" * 32)
        with pytest.raises(VerificationError, match="refuses the key"):
            list(verify(settings, 100, threading.Event()))

    def test_nobody_there_ends_it_with_the_reason(self, synced: Synced) -> None:
        nobody = f"http://127.0.0.1:{free_port()}"
        settings = replace(synced.settings, iterable_api_base_url=nobody)
        with pytest.raises(VerificationError, match="cannot be reached"):
            list(verify(settings, 100, threading.Event(), waits_seconds=(0.01,)))

    def test_before_the_first_run_there_is_nothing_to_verify(
        self, synced: Synced, tmp_path: Path
    ) -> None:
        settings = replace(synced.settings, state_file=tmp_path / "none.sqlite3")
        with pytest.raises(VerificationError, match="Run a sync first"):
            list(verify(settings, 100, threading.Event()))
        assert not settings.state_file.exists()


E2 = email_of(2)


@pytest.mark.slow
def test_no_more_than_100_requests_a_second_are_made(
    tmp_path: Path, embedded: SourceDatabase
) -> None:
    add_people(embedded.run_sql, range(1, 151))
    with IterableSandbox(api_key=KEY) as iterable:
        synced = Synced(tmp_path, embedded, iterable)
        synced.sync()
        before = len(iterable.calls)
        assert len(synced.findings(150)) == 300
        times = [call.at for call in iterable.calls[before:] if call.endpoint == "events/{email}"]
    busiest = max(sum(start <= at < start + 1 for at in times) for start in times)
    # Unpaced it is all 150. On a busy machine some that left late arrive together with the next.
    assert 50 < busiest <= 110
