"""Property: `--check` and `--verify` can read any response of the API."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from commands.check.field_types import SentField, check_field_types
from commands.check.iterable import check_iterable
from config.settings import Settings
from iterable_api.comparison import MissingError, event_differences, is_same, profile_differences
from tests.properties.test_settings import REQUIRED_ONES
from tests.support.golden import SARAHS_EVENT, SARAHS_EVENT_ID, SARAHS_PROFILE
from tests.support.hostile import JSON_VALUES, TEXTS
from tests.support.hostile_responses import DOCUMENTS
from tests.support.raw_server import raw_server

FIELDS = st.dictionaries(st.sampled_from([*SARAHS_PROFILE["dataFields"], "x"]), JSON_VALUES)
TIMES = st.sampled_from(
    [
        1_768_314_645,
        1_768_314_645_000,
        1e308,
        -1,
        "2026-01-13 14:30:45",
        "9999-12-31 23:59:59 -9999",
    ]
)
STORED_EVENTS = st.fixed_dictionaries(
    {},
    optional={
        "eventName": st.just("page_view") | JSON_VALUES,
        "id": st.just(SARAHS_EVENT_ID) | JSON_VALUES,
        "createdAt": TIMES | JSON_VALUES,
        "dataFields": FIELDS | JSON_VALUES,
    },
)
STORED = st.one_of(
    JSON_VALUES,
    st.fixed_dictionaries({"user": JSON_VALUES | st.fixed_dictionaries({"dataFields": FIELDS})}),
    st.fixed_dictionaries({"user": st.fixed_dictionaries({"dataFields": JSON_VALUES})}),
    st.fixed_dictionaries({"events": JSON_VALUES | st.lists(STORED_EVENTS | JSON_VALUES)}),
)
SENT_EVENT = orjson.dumps({**SARAHS_EVENT, "id": SARAHS_EVENT_ID})


@given(STORED)
@example({"events": 7})
@example({"events": {"a": 1}})
def test_any_stored_user_or_event_is_equal_or_its_differences_are_listed(stored: Any) -> None:
    for compare, sent in (
        (profile_differences, orjson.dumps(SARAHS_PROFILE)),
        (event_differences, SENT_EVENT),
    ):
        with suppress(MissingError):
            for line in compare(sent, stored):
                assert " was sent as " in line


@given(JSON_VALUES, JSON_VALUES, TEXTS, TEXTS)
def test_any_two_values_can_be_compared(one: Any, other: Any, text: str, again: str) -> None:
    assert is_same(one, other) in (True, False)
    assert is_same(text, again) is is_same(again, text)


@given(
    DOCUMENTS | st.fixed_dictionaries({"fields": FIELDS | JSON_VALUES}).map(orjson.dumps),
    st.sampled_from([200, 400, 401, 403, 404, 500]),
)
@example(b'{"fields":{"x":%b}}' % (b"[" * 1_000 + b"]" * 1_000), 200)
def test_any_response_to_the_check_is_reported_in_lines(document: bytes, status: int) -> None:
    server = raw_server()
    server.response, server.resets = b"HTTP/1.1 %d x\r\n\r\n%b" % (status, document), False
    settings = Settings.from_environment({**REQUIRED_ONES, "ITERABLE_API_BASE_URL": server.url})
    lines, types = [], None
    asking = check_iterable(settings)
    try:
        while True:
            lines.append(next(asking))
    except StopIteration as end:
        types = end.value
    if types is not None:
        sent = {"first_name": SentField(frozenset({"string"}))}
        lines += check_field_types(sent, types, settings)
    assert lines
    assert all(str(line) for line in lines)


@pytest.mark.parametrize("listed", [7, True, "text", {"a": 1}])
def test_events_that_are_not_a_list_crashed_verify(listed: object) -> None:
    with pytest.raises(MissingError):
        event_differences(SENT_EVENT, {"events": listed})
