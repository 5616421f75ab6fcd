"""Another Iterable project behind the same state file: nothing is sent, the operator is told."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from config.settings import Settings
from iterable_api.http import IterableHTTP
from records.rows import RequestKind
from sandbox.iterable_api import IterableSandbox
from state.delivered_samples import DeliveredSample
from state.project import Project
from sync.project_check import OtherProjectError, check_key
from sync.signals import StopSignal
from tests.config.test_settings import REQUIRED_ONES
from tests.conftest import SourceDatabase
from tests.support.golden import SARAH, record_of
from tests.support.rows import NoWaiting, wait_until
from tests.support.runs import Runs, counts_of
from tests.support.users import add_users, check_project

NUMBERS = range(1, 13)
FIRST_CALLS = 25  # of the first run, which also asks for the types of the fields
OTHER_KEY = "another-key-0123456789abcdef"


@pytest.fixture
def runs(embedded: SourceDatabase, iterable: IterableSandbox, tmp_path: Path) -> Runs:
    """Runs between a database with twelve users and the sandbox, after the first run."""
    add_users(embedded.run_sql, NUMBERS)
    made = Runs.between(tmp_path, embedded, iterable)
    made.run()
    assert len(iterable.calls) == FIRST_CALLS
    return made


def age_deliveries(runs: Runs) -> None:
    """Make every delivery so old that it must be visible in Iterable."""
    with sqlite3.connect(runs.state_file) as database:
        database.execute("UPDATE delivered SET profile_at = 1, event_at = 1")
    database.close()


# Another address


def test_another_data_centre_was_told_that_its_users_are_unchanged(runs: Runs) -> None:
    with IterableSandbox() as other:
        runs.settings["ITERABLE_API_BASE_URL"] = other.url
        report = runs.run(ignore_guards=True)
        assert (report.summary.status, counts_of(report)) == ("aborted", {})
        assert report.error is not None
        for words in ("Nothing was sent", other.url, "set STATE_FILE to another file", "move"):
            assert words in str(report.error)
        assert list(other.calls) == []
        runs.state_file.rename(runs.folder / "former.sqlite3")
        assert counts_of(runs.run()) == {"successful": 12}
        check_project(other.project, NUMBERS)


def test_a_dry_run_only_warns_of_another_data_centre(
    runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    runs.settings["ITERABLE_API_BASE_URL"] = "http://127.0.0.1:9"
    assert counts_of(runs.run(dry_run=True)) == {"unchanged": 12}
    assert "remembers what was delivered to" in caplog.text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://api.iterable.com", "https://API.Iterable.com:443/"),
        ("http://localhost:80", "http://localhost"),
        ("https://api.iterable.com", "https://api.iterable.com."),
    ],
)
def test_addresses_of_one_place_are_equal(one: str, other: str) -> None:
    assert Project(one, "").normal_address == Project(other, "").normal_address


def test_the_state_file_holds_no_key(runs: Runs) -> None:
    key = runs.settings["ITERABLE_API_KEY"]
    assert key.encode() not in runs.state_file.read_bytes()
    assert key not in repr(Project("https://api.iterable.com", key))


def test_a_state_file_that_remembers_no_delivery_takes_any_project(
    runs: Runs, iterable: IterableSandbox
) -> None:
    runs.state_file.unlink()
    with IterableSandbox(api_key="a key that nobody has") as other:
        runs.settings["ITERABLE_API_BASE_URL"] = other.url
        assert runs.run().summary.status == "aborted"  # 401
    runs.settings["ITERABLE_API_BASE_URL"] = iterable.url
    assert counts_of(runs.run()) == {"successful": 12}


# Another key


@pytest.mark.parametrize(
    ("full_refresh", "counts"), [(False, {"unchanged": 12}), (True, {"not_attempted": 12})]
)
def test_a_new_key_of_another_project_in_the_same_data_centre_sends_nothing(
    runs: Runs, iterable: IterableSandbox, full_refresh: bool, counts: dict[str, int]
) -> None:
    age_deliveries(runs)
    iterable.reset()  # another project at the same address
    runs.settings["ITERABLE_API_KEY"] = OTHER_KEY
    for _ in range(2):  # the memory stays as it was
        report = runs.run(full_refresh=full_refresh)
        assert (report.summary.status, counts_of(report)) == ("aborted", counts)
        assert "none of 5 users that were read back" in str(report.error)
        assert "--ignore-guards" in str(report.error)
    assert {call.endpoint for call in iterable.calls} == {"events/{email}"}
    assert len(iterable.calls) == 10


@pytest.mark.no_cover  # see tests/sync/test_run_reading.py
def test_a_stop_signal_waited_for_iterable_to_answer_about_a_new_key(
    runs: Runs, iterable: IterableSandbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    runs.settings["ITERABLE_API_KEY"] = OTHER_KEY
    iterable.set_faults([{"fault": "hang"}])
    stop = StopSignal()
    former = signal.signal(signal.SIGTERM, stop)

    def send_signal() -> None:
        wait_until(lambda: len(iterable.calls) > FIRST_CALLS)
        os.kill(os.getpid(), signal.SIGTERM)

    sending = threading.Thread(target=send_signal)
    began_at = time.monotonic()
    sending.start()
    try:
        report = runs.run(stop)
    finally:
        sending.join()
        signal.signal(signal.SIGTERM, former)
    assert time.monotonic() - began_at < 5
    assert (report.summary.status, report.error) == ("interrupted", None)
    assert "belongs to the same project" not in caplog.text


def test_a_new_key_of_the_same_project_is_accepted_and_noted(
    runs: Runs, iterable: IterableSandbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    runs.settings["ITERABLE_API_KEY"] = OTHER_KEY
    report = runs.run()
    assert (counts_of(report), report.summary.api_calls) == ({"unchanged": 12}, 1)
    assert caplog.text.count("belongs to the same project") == 1
    assert len(iterable.calls) == FIRST_CALLS + 1  # one event as sent is enough
    assert counts_of(runs.run()) == {"unchanged": 12}
    assert len(iterable.calls) == FIRST_CALLS + 1


def test_profiles_are_read_back_where_no_event_is_remembered_as_it_is(
    runs: Runs, iterable: IterableSandbox, embedded: SourceDatabase
) -> None:
    embedded.run_sql(
        "UPDATE page_views SET page = CASE page WHEN 'pricing' THEN 'settings' ELSE 'pricing' END"
    )
    runs.settings["ITERABLE_API_KEY"] = OTHER_KEY
    assert counts_of(runs.run()) == {"successful": 12}
    assert [call.endpoint for call in iterable.calls].count("users/getByEmail") == 1


def test_ignore_guards_accepts_a_new_key(runs: Runs, iterable: IterableSandbox) -> None:
    age_deliveries(runs)
    iterable.reset()
    runs.settings["ITERABLE_API_KEY"] = OTHER_KEY
    assert counts_of(runs.run(ignore_guards=True)) == {"unchanged": 12}
    assert counts_of(runs.run()) == {"unchanged": 12}


def test_a_new_key_that_no_row_can_prove_made_other_rows_unchanged(
    runs: Runs,
    iterable: IterableSandbox,
    embedded: SourceDatabase,
    caplog: pytest.LogCaptureFixture,
) -> None:
    embedded.run_sql("UPDATE customers SET plan_type = 'free'")
    iterable.reset()
    runs.settings["ITERABLE_API_KEY"] = OTHER_KEY
    assert counts_of(runs.run()) == {}
    assert "everything is sent once more" in caplog.text
    embedded.run_sql("UPDATE customers SET plan_type = 'pro'")
    assert counts_of(runs.run()) == {"successful": 12}
    check_project(iterable.project, NUMBERS)
    assert counts_of(runs.run()) == {"unchanged": 12}


def test_a_new_key_and_new_fields_at_once_compared_no_row(
    runs: Runs, iterable: IterableSandbox
) -> None:
    age_deliveries(runs)
    iterable.reset()
    runs.settings["ITERABLE_API_KEY"] = OTHER_KEY
    runs.settings["USER_FIELDS"] = "first_name,city=location"
    runs.settings["EVENT_FIELDS"] = "page"
    assert "none of 5 users" in str(runs.run().error)


def test_a_dry_run_asks_nothing_and_warns(
    runs: Runs, iterable: IterableSandbox, caplog: pytest.LogCaptureFixture
) -> None:
    runs.settings["ITERABLE_API_KEY"] = OTHER_KEY
    assert counts_of(runs.run(dry_run=True)) == {"unchanged": 12}
    assert "is not the key that" in caplog.text
    assert len(iterable.calls) == FIRST_CALLS


# Reading back

NOW = 1_768_400_000
SAMPLE = DeliveredSample(RequestKind.EVENT, record_of(dict(SARAH)), NOW - 60)


def check(url: str, stop: threading.Event, sample: DeliveredSample = SAMPLE) -> None:
    http = IterableHTTP(OTHER_KEY, url, connections=1)
    settings = Settings.from_environment({**REQUIRED_ONES, "ITERABLE_API_BASE_URL": url})
    try:
        check_key(http.get, settings, [sample], stop, now=lambda: NOW)
    finally:
        http.close()


def test_what_was_delivered_minutes_ago_is_read_again_for_a_minute(
    iterable: IterableSandbox,
) -> None:
    stop = NoWaiting()
    with pytest.raises(OtherProjectError, match="none of 1 users"):
        check(iterable.url, stop)
    assert sum(stop.waits_seconds) == 60
    old = NoWaiting()
    with pytest.raises(OtherProjectError):
        check(iterable.url, old, SAMPLE._replace(delivered_at=NOW - 601))
    assert old.waits_seconds == []


@pytest.mark.parametrize(
    ("status", "words", "waits"),
    [
        (401, "nothing can be read back: Iterable refused the API key", False),
        (403, "nothing can be read back: Iterable refused the API key", False),
        (503, "has a server error", True),
        (429, "HTTP 429 RateLimitExceeded", True),
    ],
)
def test_a_key_that_cannot_read_is_not_accepted(
    iterable: IterableSandbox, status: int, words: str, waits: bool
) -> None:
    iterable.set_faults([{"fault": "status", "status": status}])
    stop = NoWaiting()
    with pytest.raises(OtherProjectError, match=words):
        check(iterable.url, stop, SAMPLE._replace(delivered_at=1))
    assert bool(stop.waits_seconds) == waits


def test_a_stop_ends_the_reading_without_an_error(iterable: IterableSandbox) -> None:
    stop = threading.Event()
    stop.set()
    check(iterable.url, stop)
    assert list(iterable.calls) == []
