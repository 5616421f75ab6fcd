"""Changed settings send again only what became different, with the number said before."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from sandbox.iterable_api import IterableSandbox
from state.outbox import Outbox
from sync.changed_settings import OF_EVENTS, OF_PROFILES, changed_names
from tests.conftest import SourceDatabase
from tests.support.runs import Runs, counts_of
from tests.support.users import add_users


@pytest.fixture
def runs(embedded: SourceDatabase, iterable: IterableSandbox, tmp_path: Path) -> Runs:
    """Runs between a database with six users and the sandbox, after the first run."""
    add_users(embedded.run_sql, range(1, 7))
    made = Runs.between(tmp_path, embedded, iterable)
    made.run()
    return made


def calls_after(iterable: IterableSandbox, calls_before: int) -> list[str]:
    return [call.endpoint for call in iterable.calls[calls_before:]]


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if "changed since" in r.getMessage()]


@pytest.mark.parametrize(
    ("changed", "candidates", "names"),
    [
        (["USER_FIELDS"], OF_PROFILES, "USER_FIELDS"),
        (
            ["USER_FIELDS", "EVENT_FIELDS", "DB_TIMEZONE"],
            OF_PROFILES,
            "USER_FIELDS and DB_TIMEZONE",
        ),
        ([], OF_PROFILES, "USER_FIELDS, PROFILE_FLAG, SEND_NULLS or DB_TIMEZONE"),
        (["USER_FIELDS"], OF_EVENTS, "EVENT_FIELDS or DB_TIMEZONE"),
    ],
)
def test_the_reason_names_what_changed_or_what_may_have(
    changed: list[str], candidates: tuple[str, ...], names: str
) -> None:
    assert changed_names(changed, candidates) == names


@pytest.mark.parametrize(
    "same",
    ["last_name,first_name,candidate,plan_type", " first_name , last_name,plan_type,candidate,"],
)
def test_the_order_of_fields_sends_nothing_and_says_nothing(
    runs: Runs, iterable: IterableSandbox, caplog: pytest.LogCaptureFixture, same: str
) -> None:
    caplog.set_level(logging.INFO)
    runs.settings["USER_FIELDS"] = same
    calls_before = len(iterable.calls)
    assert counts_of(runs.run()) == {"unchanged": 6}
    assert (len(iterable.calls), said(caplog)) == (calls_before, [])


def test_send_nulls_sends_only_the_profiles_that_have_a_null(
    runs: Runs,
    embedded: SourceDatabase,
    iterable: IterableSandbox,
    caplog: pytest.LogCaptureFixture,
) -> None:
    embedded.run_sql("UPDATE customers SET last_name = NULL WHERE id IN (2, 5)")
    assert counts_of(runs.run()) == {"successful": 2, "unchanged": 4}
    calls_before = len(iterable.calls)
    runs.settings["SEND_NULLS"] = "true"
    for dry_run in (True, False):
        caplog.clear()
        runs.run(dry_run=dry_run)
        assert said(caplog) == [
            "SEND_NULLS changed since the last run. Profiles that became different and are sent "
            "again: 2"
        ]
    assert calls_after(iterable, calls_before) == [
        "users/getFields",
        "users/update",
        "users/update",
    ]


def test_changed_event_fields_send_no_event_again(
    runs: Runs, iterable: IterableSandbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    runs.settings["EVENT_FIELDS"] = "page"
    calls_before = len(iterable.calls)
    assert counts_of(runs.run()) == {"unchanged": 6}
    assert len(iterable.calls) == calls_before
    assert said(caplog) == [
        "EVENT_FIELDS changed since the last run. Delivered events are not sent again for that, "
        "except with --full-refresh. Events that are different now: 6"
    ]
    caplog.clear()
    assert counts_of(runs.run()) == {"unchanged": 6}
    assert said(caplog) == []


def test_a_state_file_of_version_1_2_0_names_every_setting_that_may_have_changed(
    runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = Outbox(runs.state_file)
    outbox._database.execute("DELETE FROM remembered WHERE name = 'hash_of_setting'")
    outbox.close()
    runs.settings["USER_FIELDS"] = "first_name"
    assert counts_of(runs.run()) == {"successful": 6}
    assert said(caplog)[0].startswith(
        "USER_FIELDS, PROFILE_FLAG, SEND_NULLS or DB_TIMEZONE changed since"
    )


def test_a_run_with_a_limit_leaves_the_others_to_be_said(
    runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    runs.settings["USER_FIELDS"] = "first_name"
    text = "USER_FIELDS changed since the last run. Profiles that became different and are sent "
    for options, count in (({"limit": 2}, 2), ({"dry_run": True}, 4), ({}, 4)):
        caplog.clear()
        runs.run(**options)
        assert said(caplog) == [f"{text}again: {count}"]
    caplog.clear()
    assert counts_of(runs.run()) == {"unchanged": 6}
    assert said(caplog) == []


def test_a_full_refresh_counts_only_the_profiles_that_the_settings_change(
    runs: Runs, embedded: SourceDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    embedded.run_sql("UPDATE customers SET last_name = NULL WHERE id = 2")
    runs.run()
    runs.settings["SEND_NULLS"] = "true"
    caplog.clear()
    assert counts_of(runs.run(full_refresh=True)) == {"successful": 6}
    assert said(caplog)[0].endswith("again: 1")
