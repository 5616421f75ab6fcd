"""`--check` and `--verify`: whether the state file is of the project in the settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.iterable_api import IterableSandbox
from state.database import StateError
from sync.run import Options, SyncRun
from sync.signals import StopSignal
from tests.conftest import SourceDatabase
from tests.support.set_up import SetUp, has_words
from tests.support.sync_pair import SyncPair
from tests.support.users import add_users

pytest_plugins = ["tests.support.set_up_fixtures", "tests.support.synced"]

OTHER_KEY = "another-key-0123456789abcdef"


@pytest.fixture
def synced_set_up(tmp_path: Path, embedded: SourceDatabase, iterable: IterableSandbox) -> SetUp:
    """The usual settings after a run, and a sandbox that accepts any key."""
    add_users(embedded.run_sql, range(1, 4))
    made = SetUp(tmp_path, embedded, iterable)
    assert SyncRun(made.settings(), Options(), StopSignal()).execute().error is None
    return made


def test_a_new_state_file_has_no_project_yet(set_up: SetUp) -> None:
    line = set_up.line("project")
    assert line.ok
    has_words(line, "notes the project with the first delivered request")


def test_the_project_of_the_last_run_is_ok(synced_set_up: SetUp) -> None:
    line = synced_set_up.line("project")
    assert line.ok
    has_words(line, "is of this Iterable project")


def test_a_state_file_of_another_data_centre_fails(synced_set_up: SetUp) -> None:
    with IterableSandbox() as other:
        line = synced_set_up.line("project", ITERABLE_API_BASE_URL=other.url)
    assert not line.ok
    has_words(line, "remembers what was delivered to", "set STATE_FILE to another file")


def test_a_new_key_of_the_same_project_is_ok(synced_set_up: SetUp) -> None:
    line = synced_set_up.line("project", ITERABLE_API_KEY=OTHER_KEY)
    assert line.ok
    has_words(line, "is new to the state file, and its project is the same")


def test_a_new_key_of_another_project_fails(
    synced_set_up: SetUp, iterable: IterableSandbox
) -> None:
    iterable.reset()
    line = synced_set_up.line("project", ITERABLE_API_KEY=OTHER_KEY)
    assert not line.ok
    has_words(line, "none of 3 users that were read back", "--ignore-guards")


def test_a_new_key_that_no_row_can_confirm_is_a_warning(
    synced_set_up: SetUp, embedded: SourceDatabase
) -> None:
    embedded.run_sql("DELETE FROM page_views")
    line = synced_set_up.line("project", ITERABLE_API_KEY=OTHER_KEY)
    assert line.is_warning
    has_words(line, "none of the checked rows shows")


def test_the_last_run_that_met_mass_rejection_is_a_warning(
    synced_set_up: SetUp, embedded: SourceDatabase, iterable: IterableSandbox
) -> None:
    add_users(embedded.run_sql, range(10, 310))
    iterable.project.types.of_events("page_view")["page"] = "long"
    settings = synced_set_up.settings()
    assert SyncRun(settings, Options(full_refresh=True), StopSignal()).execute().error is not None
    line = synced_set_up.line("mass rejection")
    assert line.is_warning
    has_words(line, "sent no more events", "most of them with RequestFieldsTypesMismatched")


def test_verify_refuses_to_compare_with_another_data_centre(synced: SyncPair) -> None:
    with IterableSandbox() as other:
        synced.settings = replace(synced.settings, iterable_api_base_url=other.url)
        with pytest.raises(StateError, match="remembers what was delivered to"):
            synced.findings()
