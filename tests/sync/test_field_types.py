"""Field-type guard: profiles are compared with the project before a mapping's first delivery."""

from __future__ import annotations

import logging
import os
import signal
import threading
from pathlib import Path
from typing import Any

import orjson
import pytest

from errors import ConfigError, ExitStatus
from iterable_api.responses import ApiResponse
from reporting.news import WarningCollector
from sandbox.iterable_api import IterableSandbox
from sync.dry_run import FIELD_TYPES_REQUEST
from sync.field_types import (
    Clash,
    FieldTypesError,
    FieldTypesRequest,
    compare,
    fields_in,
    report,
)
from sync.signals import StopSignal
from tests.config.test_settings import settings_with
from tests.conftest import SourceDatabase
from tests.support.past_runs import add_past_runs
from tests.support.rows import wait_until
from tests.support.runs import Runs, counts_of, results_of
from tests.support.users import QUERY_WITH_SCORE, add_users, sent_calls

GET_FIELDS = "users/getFields"


@pytest.fixture
def runs(embedded: SourceDatabase, iterable: IterableSandbox, tmp_path: Path) -> Runs:
    """Runs between a database with six users and the sandbox."""
    add_users(embedded.run_sql, range(1, 7))
    return Runs.between(tmp_path, embedded, iterable)


def asked(iterable: IterableSandbox) -> int:
    """Return how often the types of the fields were asked for."""
    return sum(call.endpoint == GET_FIELDS for call in iterable.calls)


def sent(iterable: IterableSandbox) -> int:
    return len(sent_calls(iterable))


def profiles(*values: Any) -> list[tuple[int, bytes]]:
    """Return a profile with each value as field x."""
    return [
        (number, orjson.dumps({"email": "a@example.com", "dataFields": {"x": value}}))
        for number, value in enumerate(values, 1)
    ]


# What clashes


def test_clashes_are_counted_with_the_first_user_as_example() -> None:
    found = compare(profiles(1, "a", None, "b", 2.5), {"x": "long"})
    assert found.clashes == [Clash("x", "long", "string", 2, 2, is_total=False)]
    assert found.new_fields == []


def test_nulls_do_not_count_among_the_values_of_which_all_clash() -> None:
    found = compare(profiles(None, "a", None, "b"), {"x": "long"})
    assert found.clashes == [Clash("x", "long", "string", 2, 2, is_total=True)]
    assert compare(profiles(None, None), {"x": "long"}) == ([], [])


def test_a_list_clashes_by_its_elements_and_an_object_by_its_members() -> None:
    found = compare(profiles([1, "a"]), {"x": "long"})
    assert found.clashes == [Clash("x", "long", "string", 1, 1, is_total=False)]
    types = {"x": "object", "x.size": "long"}
    found = compare(profiles({"size": "L"}, {"size": "M"}), types)
    assert found.clashes == [Clash("x.size", "long", "string", 2, 1, is_total=True)]


def test_fields_that_the_project_does_not_have_are_new() -> None:
    assert compare(profiles(None, 5), {"y": "long"}).new_fields == ["x"]
    assert compare(profiles({"size": "L"}), {"x": "object"}).new_fields == ["x.size"]
    assert compare(profiles(None), {}).new_fields == []


def test_any_value_fits_an_unknown_type() -> None:
    assert compare(profiles(1, "a", True, {"y": 1}, [2]), {"x": "vector"}).clashes == []


@pytest.mark.parametrize(
    "response",
    [
        ApiResponse(None, problem="ConnectionError"),
        ApiResponse(429, {"code": "RateLimitExceeded", "msg": "", "params": None}),
        ApiResponse(403, {"code": "Forbidden", "msg": "", "fields": {"x": "long"}}),
        ApiResponse(200, {"fields": []}),
        ApiResponse(200, None, "not an API response"),
    ],
)
def test_a_response_without_types_is_a_warning(
    response: ApiResponse, caplog: pytest.LogCaptureFixture
) -> None:
    assert fields_in(response) is None
    assert FieldTypesRequest(lambda _path: response).fields() is None
    assert "could not be compared with those in Iterable (users/getFields: " in caplog.text


def test_the_request_is_sent_once() -> None:
    paths: list[str] = []

    def get(path: str) -> ApiResponse:
        paths.append(path)
        return ApiResponse(200, {"fields": {"x": "long"}})

    request = FieldTypesRequest(get)
    request.start()
    assert request.fields() == request.fields() == {"x": "long"}
    assert paths == [GET_FIELDS]


def test_a_report_names_every_field_of_which_no_value_fits() -> None:
    found = compare([*profiles("a"), (3, b'{"dataFields":{"y":true}}')], {"x": "long", "y": "date"})
    with pytest.raises(ConfigError) as raised:
        report(found, settings_with(), is_ignored=False)
    first, second = raised.value.problems
    assert first == (
        "x is long in Iterable, but every value to send is string (for example that of user 1), so "
        "nothing was sent. To fix it: select CAST(... AS SIGNED) in the query. To send it all the "
        "same, run once with --ignore-guards."
    )
    assert second.startswith("y is date in Iterable, but every value to send is boolean")


def test_the_second_of_two_fields_was_no_news_to_quiet() -> None:
    found = compare([*profiles("a"), (3, b'{"dataFields":{"y":true}}')], {"x": "long", "y": "date"})
    collector = WarningCollector()
    logging.getLogger("sync.field_types").addHandler(collector)
    report(found, settings_with(), is_ignored=True)
    logging.getLogger("sync.field_types").removeHandler(collector)
    assert [text.split()[0] for text in collector.warnings.values()] == ["x", "y"]


# Runs


def test_only_the_first_delivery_of_a_mapping_asks(
    runs: Runs, embedded: SourceDatabase, iterable: IterableSandbox
) -> None:
    runs.run()
    assert asked(iterable) == 1
    embedded.run_sql("UPDATE customers SET first_name = 'Another'")
    assert counts_of(runs.run()) == {"successful": 6}
    assert asked(iterable) == 1
    runs.settings["USER_FIELDS"] = "candidate,plan_type,last_name,first_name"  # another order
    assert counts_of(runs.run()) == {"unchanged": 6}
    assert asked(iterable) == 1
    runs.settings["USER_FIELDS"] = "first_name,plan=plan_type"
    assert counts_of(runs.run()) == {"successful": 6}
    assert asked(iterable) == 2
    assert counts_of(runs.run(full_refresh=True)) == {"successful": 6}
    assert asked(iterable) == 2


def test_a_mapping_that_delivered_nothing_asks_again(runs: Runs, iterable: IterableSandbox) -> None:
    iterable.set_faults([{"fault": "status", "status": 400, "endpoint": "users/update"}])
    assert counts_of(runs.run()) == {"partial_failures": 6}
    iterable.set_faults([])
    assert counts_of(runs.run(full_refresh=True)) == {"successful": 6}
    assert asked(iterable) == 2
    runs.run(full_refresh=True)
    assert asked(iterable) == 2


def test_nothing_is_asked_where_no_profile_waits(
    runs: Runs, embedded: SourceDatabase, iterable: IterableSandbox
) -> None:
    runs.run()
    runs.settings["DB_TIMEZONE"] = "Europe/Berlin"  # changes no profile
    embedded.run_sql("UPDATE page_views SET event_time = '2026-02-01 10:00:00' WHERE user_id = 3")
    assert counts_of(runs.run()) == {"successful": 1, "unchanged": 5}
    assert asked(iterable) == 1


def test_a_field_that_refuses_every_value_sends_nothing(runs: Runs) -> None:
    runs.with_query(QUERY_WITH_SCORE.format("IF(c.id > 3, 'high', 'low')"))
    runs.settings["USER_FIELDS"] = "first_name,score"
    with IterableSandbox(field_types={"score": "long"}) as iterable:
        runs.settings["ITERABLE_API_BASE_URL"] = iterable.url
        for _ in range(2):
            report = runs.run()
            assert isinstance(report.error, FieldTypesError)
            assert "score is long in Iterable, but every value" in str(report.error)
            assert report.error.exit_status is ExitStatus.BAD_SETTINGS
            assert results_of(report)["status"] == "aborted"  # as for any other guard
            assert counts_of(report) == {"not_attempted": 6}
            assert report.lines()[-1] == "  Nothing was sent."
        assert (asked(iterable), sent(iterable)) == (2, 0)
        assert [run.status for run in runs.history()] == ["aborted", "aborted"]
        report = runs.run(ignore_guards=True)
        assert counts_of(report) == {"partial_failures": 6}  # the sandbox rejects the profiles


def test_a_field_that_refuses_some_values_is_a_warning(
    runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    runs.settings["USER_FIELDS"] = "first_name,score=score:json"
    runs.with_query(QUERY_WITH_SCORE.format("IF(c.id > 4, '\"high\"', '7')"))
    with IterableSandbox(field_types={"score": "long"}) as iterable:
        runs.settings["ITERABLE_API_BASE_URL"] = iterable.url
        assert counts_of(runs.run()) == {"successful": 4, "partial_failures": 2}
    assert (
        "score is long in Iterable, but 2 of the rows to send have a value that is string (for "
        "example that of user 5): Iterable rejects such rows." in caplog.text
    )


def test_new_fields_are_one_notice(runs: Runs, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    runs.run()
    notice = "Profile fields that are new to Iterable, where the first value fixes the type: "
    names = "candidate, first_name, last_name, plan_type, recent_page_view"
    assert [r.getMessage() for r in caplog.records if "new to Iterable" in r.getMessage()] == [
        notice + names
    ]


@pytest.mark.parametrize(
    "fault",
    [
        {"fault": "rate_limited"},
        {"fault": "status", "status": 403, "code": "Forbidden"},
        {"fault": "drop_before"},
    ],
)
def test_a_run_goes_on_where_the_types_cannot_be_asked_for(
    runs: Runs, iterable: IterableSandbox, caplog: pytest.LogCaptureFixture, fault: dict[str, Any]
) -> None:
    iterable.set_faults([{**fault, "endpoint": GET_FIELDS}])
    assert counts_of(runs.run()) == {"successful": 6}
    assert "could not be compared with those in Iterable" in caplog.text


def test_a_dry_run_asks_nothing_and_says_that_a_run_would(
    runs: Runs, iterable: IterableSandbox
) -> None:
    assert FIELD_TYPES_REQUEST in runs.run(dry_run=True).lines()
    assert not iterable.calls
    runs.run()
    assert "would first ask" not in str(runs.run(dry_run=True, full_refresh=True).lines())


def test_a_new_project_is_asked_although_the_mapping_delivered_to_another(
    runs: Runs, embedded: SourceDatabase, iterable: IterableSandbox
) -> None:
    runs.run()
    embedded.run_sql("UPDATE customers SET first_name = 'Another', candidate = 'maybe'")
    embedded.run_sql("UPDATE page_views SET event_time = '2026-02-01 10:00:00'")
    runs.settings["ITERABLE_API_KEY"] = "another-key-0123456789abcdef"
    assert counts_of(runs.run()) == {"successful": 6}  # no row shows whose key it is
    assert asked(iterable) == 2
    assert counts_of(runs.run(full_refresh=True)) == {"successful": 6}
    assert asked(iterable) == 2


def test_the_row_count_is_compared_before_anything_is_asked(
    runs: Runs, iterable: IterableSandbox
) -> None:
    add_past_runs(runs, [5_000] * 3)
    assert runs.run().summary.status == "aborted"
    assert not iterable.calls


@pytest.mark.no_cover  # see tests/sync/test_run_reading.py
def test_a_signal_ends_the_wait_for_the_types(runs: Runs, iterable: IterableSandbox) -> None:
    runs.run()
    runs.settings["USER_FIELDS"] = "first_name"
    calls_before = len(iterable.calls)
    iterable.set_faults([{"fault": "hang", "endpoint": GET_FIELDS}])
    stop = StopSignal()
    former = signal.signal(signal.SIGTERM, stop)

    def send_signal() -> None:
        wait_until(lambda: len(iterable.calls) > calls_before)
        os.kill(os.getpid(), signal.SIGTERM)

    sending = threading.Thread(target=send_signal)
    sending.start()
    try:
        report = runs.run(stop)
    finally:
        sending.join()
        signal.signal(signal.SIGTERM, former)
    assert (report.summary.status, report.error) == ("interrupted", None)
    assert counts_of(report) == {"not_attempted": 6}
    assert len(iterable.calls) == calls_before + 1
