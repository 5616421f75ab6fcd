"""Log lines of the client: one for each attempt; no API key, and no payload if so set."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable
from typing import Any

import pytest

from iterable_api.responses import EVENTS_TRACK, EVENTS_TRACK_BULK, USERS_BULK_UPDATE, USERS_UPDATE
from iterable_client import IterableClient
from sandbox.iterable_api import IterableSandbox
from tests.support.golden import SARAH
from tests.support.recording_servers import website
from tests.support.rows import API_KEY, PassingTime, unwaiting_client

EMAIL = "canary.user@example.com"
USER = b'{"email":"%b","dataFields":{"first_name":"Sarah"}}' % EMAIL.encode()
EVENT = b'{"email":"%b","eventName":"page_view"}' % EMAIL.encode()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The log from level DEBUG, as in the log file."""
    caplog.set_level(logging.DEBUG, "iterable_client")
    return caplog


def everything_in(log: pytest.LogCaptureFixture) -> str:
    """Return everything that any handler could write about these records."""
    return log.text + "".join(repr(record.__dict__) for record in log.records)


# Every call


def test_each_attempt_is_logged_with_request_response_and_request_id(
    iterable: IterableSandbox, log: pytest.LogCaptureFixture
) -> None:
    iterable.set_faults([{"fault": "status", "status": 502, "times": 1}])
    client, _stop = unwaiting_client(iterable.url)
    client.call(USERS_UPDATE, USER, "user 7")
    attempts = [r.getMessage() for r in log.records if r.levelname == "DEBUG"]
    assert [line.split(":")[0] for line in attempts] == [
        "users/update user 7 attempt 1",
        "users/update user 7 attempt 2",
    ]
    for line, call, status in zip(attempts, iterable.calls, (502, 200), strict=True):
        assert f": {status} in " in line
        assert f"Iterable-Request-Id {call.request_id}," in line
        assert f"request {USER.decode()}, response " in line
    assert '"code":"Success"' in attempts[1]


def test_the_time_that_a_response_took_is_logged(log: pytest.LogCaptureFixture) -> None:
    clock = PassingTime()

    def take_a_while() -> None:
        clock.now_seconds += 7.5

    with website() as site:
        site.before_response = take_a_while
        result = IterableClient(API_KEY, site.url, clock=clock).call(USERS_UPDATE, USER)
    assert " in 7500 ms, " in log.messages[0]
    assert result.elapsed_seconds == 7.5


@pytest.mark.parametrize(("filling", "end"), [("", "小\ufffd"), ("--", "小")])
def test_invalid_utf_8_and_a_cut_off_character_are_logged_as_replacement_characters(
    log: pytest.LogCaptureFixture, filling: str, end: str
) -> None:
    body = f'{{"first_name":"{filling}{"小龙" * 5_000}"}}'
    with website() as site:
        site.response = b'{"msg":"caf\xc3\xa9, caf\xe9"}'
        IterableClient(API_KEY, site.url, max_attempts=1).call(USERS_UPDATE, body.encode())
    assert log.messages[0].endswith(f'龙{end}, response {{"msg":"café, caf\ufffd"}}')


def test_without_payloads_the_sizes_are_logged(log: pytest.LogCaptureFixture) -> None:
    with website() as site:
        IterableClient(API_KEY, site.url, log_payloads=False).call(USERS_UPDATE, USER)
    assert log.messages[0].endswith(
        f", request {len(USER)} bytes, response {len(site.response)} bytes"
    )


def test_a_bulk_call_is_logged_with_size_request_id_and_response(
    iterable: IterableSandbox, log: pytest.LogCaptureFixture
) -> None:
    client, _stop = unwaiting_client(iterable.url)
    client.bulk_update_users([USER, b'{"email":"broken"}'], "2 rows from user 7")
    client.bulk_track_events([EVENT], "1 row from user 7")
    line, other = log.messages
    assert other.startswith("events/trackBulk 1 row from user 7 attempt 1: 200 in ")
    assert line.startswith("users/bulkUpdate 2 rows from user 7 attempt 1: 200 in ")
    assert f"Iterable-Request-Id {iterable.calls[0].request_id}," in line
    body_bytes = len(USER) + len(b'{"users":[,{"email":"broken"}]}')
    assert f"request {body_bytes} bytes, response {{" in line
    assert '"failCount":1' in line
    assert EMAIL not in line


def test_both_calls_of_a_row_are_logged_with_its_user_id(
    iterable: IterableSandbox, log: pytest.LogCaptureFixture
) -> None:
    client, _stop = unwaiting_client(iterable.url)
    client.process_user_record({**SARAH, "id": 7})
    assert [line.split(":")[0] for line in log.messages] == [
        "users/update user 7 attempt 1",
        "events/track user 7 attempt 1",
    ]


def test_an_attempt_without_a_response_is_logged_with_the_error(
    iterable: IterableSandbox, log: pytest.LogCaptureFixture
) -> None:
    iterable.set_faults([{"fault": "drop_after", "times": 1}])
    client, _stop = unwaiting_client(iterable.url)
    client.call(USERS_UPDATE, USER, "user 7")
    assert log.messages[0].startswith("users/update user 7 attempt 1: ConnectionError in ")
    assert log.messages[1].startswith(
        "No response from users/update: ConnectionError (user 7; attempt 1, retry in "
    )


def test_a_huge_response_is_cut_in_the_log(
    iterable: IterableSandbox, log: pytest.LogCaptureFixture
) -> None:
    iterable.set_faults([{"fault": "huge_body", "bytes": 3_000_000}])
    client, _stop = unwaiting_client(iterable.url)
    client.call(USERS_UPDATE, USER)
    assert len(log.text) < 25_000


def test_a_success_is_not_logged_at_level_info(
    iterable: IterableSandbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "iterable_client")
    client, _stop = unwaiting_client(iterable.url)
    client.call(USERS_UPDATE, USER)
    assert caplog.messages == []


# Failures


def without_ids(messages: Iterable[str]) -> list[str]:
    """Return messages without Iterable's request ids, one of which each must have."""
    found = [re.subn(r"; request [0-9a-f]{32}\)$", ")", message) for message in messages]
    assert all(count == 1 for _message, count in found), messages
    return [message for message, _count in found]


def test_a_failure_is_logged_with_user_id_code_and_message(
    log: pytest.LogCaptureFixture,
) -> None:
    with IterableSandbox(forgotten=[EMAIL]) as iterable:
        client, _stop = unwaiting_client(iterable.url)
        client.call(USERS_UPDATE, USER, "user 7")
    assert without_ids(log.messages[-1:])[0] == (
        "4xx Client Error from users/update: Status 409 (user 7; ForgottenUserError; "
        f"User with email {EMAIL} has been forgotten)"
    )


def test_an_error_message_of_iterable_is_logged_up_to_200_characters(
    iterable: IterableSandbox, caplog: pytest.LogCaptureFixture
) -> None:
    iterable.set_faults([{"fault": "status", "status": 400, "msg": "-" * 300}])
    client, _stop = unwaiting_client(iterable.url)
    client.call(USERS_UPDATE, USER)
    assert without_ids(caplog.messages)[0].endswith(f"; {'-' * 200})")


def test_a_failed_bulk_call_without_a_label_is_logged_with_code_and_message(
    iterable: IterableSandbox, caplog: pytest.LogCaptureFixture
) -> None:
    iterable.set_faults([{"fault": "status", "status": 400, "msg": "Not so"}])
    client, _stop = unwaiting_client(iterable.url)
    client.bulk_update_users([USER])
    client.bulk_track_events([EVENT])
    assert without_ids(caplog.messages) == [
        "4xx Client Error from users/bulkUpdate: Status 400 (BadParams; Not so)",
        "4xx Client Error from events/trackBulk: Status 400 (BadParams; Not so)",
    ]


def test_a_retried_failure_is_a_warning_and_the_last_one_an_error(
    iterable: IterableSandbox, caplog: pytest.LogCaptureFixture
) -> None:
    iterable.set_faults([{"fault": "status", "status": 502, "msg": "Bad gateway"}])
    client, stop = unwaiting_client(iterable.url, max_attempts=2)
    client.call(EVENTS_TRACK, EVENT, "user 7")
    first, last = caplog.records
    said = "5xx Server Error from events/track: Status 502 (user 7; GenericError; Bad gateway; "
    wait = f"{stop.waits_seconds[0]:.1f}"
    assert (first.levelname, last.levelname) == ("WARNING", "ERROR")
    assert without_ids([first.getMessage(), last.getMessage()]) == [
        f"{said}attempt 1, retry in {wait} s)",
        f"{said}attempt 2, the last)",
    ]


def test_after_a_stop_the_log_announces_no_retry(
    iterable: IterableSandbox, caplog: pytest.LogCaptureFixture
) -> None:
    iterable.set_faults([{"fault": "status", "status": 502, "msg": "Bad gateway"}])
    client, stop = unwaiting_client(iterable.url)
    stop.set()
    client.call(EVENTS_TRACK, EVENT)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert without_ids(caplog.messages) == [
        "5xx Server Error from events/track: Status 502 (GenericError; Bad gateway)"
    ]


def test_a_response_that_is_not_from_the_api_is_logged_once(
    iterable: IterableSandbox, caplog: pytest.LogCaptureFixture
) -> None:
    iterable.set_faults([{"fault": "html_body"}])
    client, _stop = unwaiting_client(iterable.url, max_attempts=1)
    client.call(USERS_UPDATE, USER)
    assert without_ids(caplog.messages) == [
        "Unexpected response from users/update: Status 200 (not an API response)"
    ]


# Personal data


@pytest.mark.parametrize(
    "fault",
    [
        None,
        {"fault": "echo_request"},
        {"fault": "echo_request", "status": 500},
        {"fault": "half_body"},
        {"fault": "drop_after"},
        {"fault": "rate_limited", "reset": 100},
        {"fault": "status", "status": 400, "msg": f"no {EMAIL}"},
    ],
    ids=str,
)
@pytest.mark.parametrize("options", [{}, {"forgotten": [EMAIL]}, {"invalid_emails": [EMAIL]}])
def test_without_payloads_the_log_has_no_personal_data(
    log: pytest.LogCaptureFixture, fault: dict[str, Any] | None, options: dict[str, Any]
) -> None:
    with IterableSandbox(**options) as iterable:
        iterable.set_faults([fault] if fault else [])
        client, _stop = unwaiting_client(iterable.url, log_payloads=False, max_attempts=2)
        client.update_user(EMAIL, {"first_name": "Sarah"})
        client.track_event(EMAIL, "page_view", {"page": "pricing"})
        client.bulk_update_users([USER], "1 rows from user 7")
        client.bulk_track_events([EVENT], "1 rows from user 7")
        client.process_user_record({**SARAH, "email": EMAIL})
    assert log.text.count("Iterable-Request-Id") >= 5  # the calls were logged
    for word in (EMAIL, "canary", "Sarah"):
        assert word not in everything_in(log)


# The key


@pytest.mark.parametrize("status", [400, 500])
def test_a_key_that_iterable_echoes_is_not_in_log_or_results(
    iterable: IterableSandbox, log: pytest.LogCaptureFixture, status: int
) -> None:
    iterable.set_faults([{"fault": "echo_request", "status": status}])
    client, _stop = unwaiting_client(iterable.url, max_attempts=2)
    said: list[object] = [client.update_user(EMAIL, {}), client.track_event(EMAIL, "page_view", {})]
    said += [client.call(endpoint, USER) for endpoint in (USERS_BULK_UPDATE, EVENTS_TRACK_BULK)]
    said.append(client.process_user_record(dict(SARAH)))
    assert "Api-Key: [api key]" in json.dumps(said[0])
    for text in (repr(said), everything_in(log), repr(client), str(client)):
        assert API_KEY not in text


def test_an_exception_about_an_unsendable_value_does_not_hold_the_key(
    iterable: IterableSandbox,
) -> None:
    client = IterableClient(API_KEY, iterable.url)
    with pytest.raises(ValueError, match="JSON cannot represent") as caught:
        client.update_user(EMAIL, {"what": object()})
    assert API_KEY not in repr(caught.value)
