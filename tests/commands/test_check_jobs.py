"""`--check` of other jobs: what is not sent is not checked, and what is sent is named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.iterable_api import IterableSandbox
from sync.announcement import BARE_USERS
from tests.conftest import SourceDatabase
from tests.support.set_up import KEY, SetUp, failures
from tests.support.users import add_users

NEEDS_NOTHING = "SELECT id, email, first_name, last_name FROM customers ORDER BY id"


@pytest.fixture
def set_up(embedded: SourceDatabase, tmp_path: Path) -> Iterator[SetUp]:
    add_users(embedded.run_sql, range(1, 4))
    with IterableSandbox(api_key=KEY) as iterable:
        yield SetUp(tmp_path, embedded, iterable)


def with_query(set_up: SetUp, query: str) -> str:
    path = set_up.folder / "query.sql"
    path.write_text(query, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "page views of the last 18000 days"),
        ({"EVENT_NAME": "order"}, "events order of the last 18000 days"),
        ({"SEND": "events"}, "page views without profiles of the last 18000 days"),
        ({"SEND": "profiles"}, "profiles without events,"),
    ],
)
def test_the_first_line_says_what_is_sent(
    set_up: SetUp, changes: dict[str, str], words: str
) -> None:
    assert words in set_up.line("settings", **changes).text


def test_a_profile_sync_needs_no_event_column_and_no_window(set_up: SetUp) -> None:
    lines = set_up.lines(
        SEND="profiles",
        PROFILE_FLAG="",
        USER_FIELDS="first_name,last_name",
        QUERY_FILE=with_query(set_up, NEEDS_NOTHING),
    )
    assert not failures(lines)
    names = [line.name for line in lines]
    assert "query window" not in names
    new = [line.text.split()[0] for line in lines if line.name == "new field"]
    assert new == ["first_name", "last_name"]


def test_events_alone_compare_no_profile_fields(set_up: SetUp) -> None:
    lines = set_up.lines(SEND="events")
    assert not failures(lines)
    assert not {"new field", "field types"} & {line.name for line in lines}


def test_constants_and_the_flag_are_checked_like_columns(set_up: SetUp) -> None:
    with IterableSandbox(
        api_key=KEY, field_types={"source": "long", "on_trial": "string", "level": "long"}
    ) as iterable:
        lines = set_up.lines(
            ITERABLE_API_BASE_URL=iterable.url,
            PROFILE_FLAG="on_trial",
            USER_FIELDS='source:="mysql",level:=3,first_name',
        )
    assert [line.text for line in lines if line.name == "field types"] == [
        "on_trial is string in Iterable but sent as boolean: such rows would be rejected. To fix "
        "it: set PROFILE_FLAG to a field that is boolean in Iterable or does not exist yet, or to "
        "nothing",
        "source is long in Iterable but sent as string: such rows would be rejected. To fix it: "
        "write another value behind source:= in USER_FIELDS",
    ]


def test_a_new_field_that_would_be_dropped_is_a_warning(set_up: SetUp) -> None:
    lines = set_up.lines(CREATE_NEW_FIELDS="false", USER_FIELDS="first_name", PROFILE_FLAG="")
    (line,) = [line for line in lines if line.name == "new field"]
    assert line.is_warning
    assert line.text.startswith("first_name is not in Iterable, which drops it")


def test_events_alone_by_user_id_are_a_warning(set_up: SetUp) -> None:
    with IterableSandbox(api_key=KEY, project_type="userid") as iterable:
        lines = set_up.lines(
            ITERABLE_API_BASE_URL=iterable.url, SEND="events", IDENTIFY_BY="userid"
        )
    assert BARE_USERS in [line.text for line in lines if line.is_warning]


def test_an_empty_profile_sync_names_the_filter(set_up: SetUp) -> None:
    query = with_query(set_up, NEEDS_NOTHING.replace("ORDER", "WHERE id < 0 ORDER"))
    line = set_up.line(
        "rows", SEND="profiles", USER_FIELDS="first_name,last_name", QUERY_FILE=query
    )
    assert line.text == "The query returned nothing: check the filter in query.sql."
