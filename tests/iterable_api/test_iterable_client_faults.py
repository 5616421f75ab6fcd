"""Faults of Iterable and the network: verdict, number of attempts and log line of each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from iterable_api.responses import EVENTS_TRACK, EVENTS_TRACK_BULK, USERS_BULK_UPDATE, USERS_UPDATE
from records.outcomes import Verdict
from sandbox.iterable_api import IterableSandbox
from tests.support.rows import API_KEY, email_of, unwaiting_client

MAX_ATTEMPTS = 3
USER = b'{"email":"user1@example.com","dataFields":{"plan_type":"pro"}}'
EVENT = b'{"email":"user1@example.com","eventName":"page_view","id":"page-view-1"}'
BODIES = {
    USERS_UPDATE: USER,
    EVENTS_TRACK: EVENT,
    USERS_BULK_UPDATE: b'{"users":[%b]}' % USER,
    EVENTS_TRACK_BULK: b'{"events":[%b]}' % EVENT,
}
# So high that no call waits for a permit. Backoff with full jitter can be close to 0 s: at 10,000
# calls a second, one retry in 5,000 also had to wait for a permit.
ENOUGH = dict.fromkeys(BODIES, 1e9)
DELIVERED, REJECTED = Verdict.DELIVERED, Verdict.REJECTED
UNAVAILABLE, REFUSED = Verdict.UNAVAILABLE, Verdict.REFUSED

Rule = dict[str, Any]


@pytest.fixture(scope="module")
def shared() -> Iterator[IterableSandbox]:
    with IterableSandbox(api_key=API_KEY) as api:
        yield api


@pytest.fixture(params=BODIES)
def endpoint(request: pytest.FixtureRequest) -> str:
    """Each of the four calls in turn."""
    name: str = request.param
    return name


@pytest.fixture
def iterable(shared: IterableSandbox) -> IterableSandbox:
    """The sandbox of the module, reset for each test."""
    shared.set_faults([])
    shared.reset()
    return shared


def status(number: int, **more: Any) -> Rule:
    return {"fault": "status", "status": number, **more}


@pytest.mark.parametrize(
    ("rule", "verdict", "http_status", "line"),
    [
        (status(400), REJECTED, 400, "4xx Client Error from {}: Status 400"),
        (status(404, code="UnknownEmailError"), REJECTED, 404, "4xx Client Error from {}"),
        (status(409), REJECTED, 409, "4xx Client Error from {}: Status 409"),
        (status(413), REJECTED, 413, "4xx Client Error from {}: Status 413"),
        (status(422), REJECTED, 422, "4xx Client Error from {}: Status 422"),
        (status(401), REFUSED, 401, "4xx Client Error from {}: Status 401"),
        (status(403), REFUSED, 403, "4xx Client Error from {}: Status 403"),
        (status(404), REFUSED, 404, "4xx Client Error from {}: Status 404"),
        ({"fault": "redirect", "status": 301}, REFUSED, 301, "Redirect from {}, not followed"),
        ({"fault": "redirect", "status": 302}, REFUSED, 302, "Redirect from {}, not followed"),
        ({"fault": "redirect", "status": 303}, REFUSED, 303, "Redirect from {}, not followed"),
        ({"fault": "redirect", "status": 307}, REFUSED, 307, "Redirect from {}, not followed"),
        ({"fault": "redirect", "status": 308}, REFUSED, 308, "Redirect from {}, not followed"),
        ({"fault": "success_code_on_error", "status": 400}, REJECTED, 400, "4xx Client Error"),
        ({"fault": "echo_request"}, REJECTED, 400, "4xx Client Error from {}: Status 400"),
    ],
    ids=str,
)
def test_a_permanent_failure_is_not_retried(
    iterable: IterableSandbox,
    caplog: pytest.LogCaptureFixture,
    endpoint: str,
    rule: Rule,
    verdict: Verdict,
    http_status: int,
    line: str,
) -> None:
    iterable.set_faults([rule])
    client, stop = unwaiting_client(
        iterable.url, max_attempts=MAX_ATTEMPTS, requests_per_second=ENOUGH
    )
    result = client.call(endpoint, BODIES[endpoint])
    assert (result.verdict, result.http_status, result.attempts) == (verdict, http_status, 1)
    assert len(iterable.calls) == 1
    assert stop.waits_seconds == []
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert caplog.messages[0].startswith(line.format(endpoint))
    assert iterable.state()["redirects_followed"] == 0


@pytest.mark.parametrize(
    ("rule", "http_status", "line"),
    [
        (status(408), 408, "4xx Client Error from {}: Status 408"),
        (status(425), 425, "4xx Client Error from {}: Status 425"),
        (status(500), 500, "5xx Server Error from {}: Status 500"),
        (status(502), 502, "5xx Server Error from {}: Status 502"),
        (status(503, retry_after=2), 503, "5xx Server Error from {}: Status 503"),
        (status(504), 504, "5xx Server Error from {}: Status 504"),
        (status(599), 599, "5xx Server Error from {}: Status 599"),
        ({"fault": "echo_request", "status": 500}, 500, "5xx Server Error from {}: Status 500"),
        ({"fault": "success_code_on_error"}, 500, "5xx Server Error from {}: Status 500"),
        ({"fault": "html_body", "status": 502}, 502, "5xx Server Error from {}: Status 502"),
        ({"fault": "empty_body", "status": 503}, 503, "5xx Server Error from {}: Status 503"),
        ({"fault": "html_body"}, 200, "Unexpected response from {}: Status 200"),
        ({"fault": "malformed_json"}, 200, "Unexpected response from {}: Status 200"),
        ({"fault": "empty_body"}, 200, "Unexpected response from {}: Status 200"),
        ({"fault": "empty_body", "status": 204}, 204, "Unexpected response from {}: Status 204"),
        ({"fault": "half_body"}, 200, "Unexpected response from {}: Status 200"),
        ({"fault": "drop_before"}, None, "No response from {}: ConnectionError"),
        ({"fault": "drop_after"}, None, "No response from {}: ConnectionError"),
        ({"fault": "down"}, None, "No response from {}: ConnectionError"),
    ],
    ids=str,
)
def test_a_transient_failure_is_retried_up_to_max_attempts(
    iterable: IterableSandbox,
    caplog: pytest.LogCaptureFixture,
    endpoint: str,
    rule: Rule,
    http_status: int | None,
    line: str,
) -> None:
    iterable.set_faults([rule])
    client, stop = unwaiting_client(
        iterable.url, max_attempts=MAX_ATTEMPTS, requests_per_second=ENOUGH
    )
    result = client.call(endpoint, BODIES[endpoint])
    assert (result.verdict, result.http_status) == (UNAVAILABLE, http_status)
    assert result.attempts == MAX_ATTEMPTS
    state = iterable.state()
    assert state["calls"] + state["reset_connections"] == MAX_ATTEMPTS
    assert len(stop.waits_seconds) == MAX_ATTEMPTS - 1
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING", "ERROR"]
    assert all(said.startswith(line.format(endpoint)) for said in caplog.messages)


@pytest.mark.parametrize("fault", ["drop_before", "drop_after", "half_body", "malformed_json"])
def test_a_call_whose_response_was_lost_is_delivered_by_the_next_attempt(
    iterable: IterableSandbox, endpoint: str, fault: str
) -> None:
    iterable.set_faults([{"fault": fault, "times": 1}])
    client, _stop = unwaiting_client(iterable.url)
    result = client.call(endpoint, BODIES[endpoint])
    assert (result.verdict, result.attempts) == (DELIVERED, 2)
    events = list(iterable.project.events)
    assert events == (["page-view-1"] if "events" in endpoint else [])


def test_a_server_that_does_not_respond_times_out(
    iterable: IterableSandbox, caplog: pytest.LogCaptureFixture, endpoint: str
) -> None:
    iterable.set_faults([{"fault": "hang"}])
    client, _stop = unwaiting_client(iterable.url, max_attempts=2, timeout_seconds=(1.0, 0.05))
    result = client.call(endpoint, BODIES[endpoint])
    assert (result.verdict, result.http_status, result.attempts) == (UNAVAILABLE, None, 2)
    assert result.code == "ReadTimeout"
    assert caplog.messages[0].startswith(f"No response from {endpoint}: ReadTimeout")


def test_a_port_without_a_server_is_unavailable(endpoint: str) -> None:
    with IterableSandbox() as gone:
        url = gone.url
    client, _stop = unwaiting_client(url, max_attempts=2)
    result = client.call(endpoint, BODIES[endpoint])
    assert (result.verdict, result.code, result.attempts) == (UNAVAILABLE, "ConnectionError", 2)


def test_a_response_of_several_megabytes_is_read(iterable: IterableSandbox, endpoint: str) -> None:
    iterable.set_faults([{"fault": "huge_body", "bytes": 5_000_000}])
    client, _stop = unwaiting_client(iterable.url)
    assert client.call(endpoint, BODIES[endpoint]).verdict is DELIVERED


def test_a_response_over_the_size_limit_is_not_read_and_the_call_is_retried(
    iterable: IterableSandbox, endpoint: str
) -> None:
    iterable.set_faults([{"fault": "huge_body", "bytes": 8_100_000, "times": 1}])
    client, _stop = unwaiting_client(iterable.url)
    result = client.call(endpoint, BODIES[endpoint])
    assert (result.verdict, result.attempts) == (DELIVERED, 2)


def test_a_single_call_with_another_code_than_success_is_rejected(
    iterable: IterableSandbox,
) -> None:
    iterable.set_faults([{"fault": "error_code_on_200", "code": "DatabaseError"}])
    client, _stop = unwaiting_client(iterable.url)
    for endpoint in (USERS_UPDATE, EVENTS_TRACK):
        result = client.call(endpoint, BODIES[endpoint])
        assert (result.verdict, result.code) == (REJECTED, "DatabaseError")
        assert (result.http_status, result.attempts) == (200, 1)


def test_a_bulk_response_without_counts_is_unavailable(iterable: IterableSandbox) -> None:
    iterable.set_faults([{"fault": "error_code_on_200"}])
    client, _stop = unwaiting_client(iterable.url, max_attempts=2)
    for endpoint in (USERS_BULK_UPDATE, EVENTS_TRACK_BULK):
        result = client.call(endpoint, BODIES[endpoint])
        assert (result.verdict, result.attempts) == (UNAVAILABLE, 2)


def test_a_disallowed_event_is_rejected_although_the_code_is_success() -> None:
    with IterableSandbox(disallowed_events=["page_view"]) as iterable:
        client, _stop = unwaiting_client(iterable.url)
        result = client.call(EVENTS_TRACK, EVENT)
    assert (result.verdict, result.code, result.http_status) == (REJECTED, "Success", 200)
    assert result.message == "Event page_view is disallowed from tracking."


@pytest.mark.parametrize(
    ("options", "endpoint", "http_status", "code"),
    [
        ({"forgotten": [email_of(1)]}, USERS_UPDATE, 409, "ForgottenUserError"),
        ({"forgotten": [email_of(1)]}, EVENTS_TRACK, 400, "ForgottenUserError"),
        ({"invalid_emails": [email_of(1)]}, USERS_UPDATE, 400, "InvalidEmailAddressError"),
        ({"conflict_emails": [email_of(1)]}, USERS_UPDATE, 400, "EmailAlreadyExists"),
        ({"field_types": {"plan_type": "long"}}, USERS_UPDATE, 400, "RequestFieldsTypesMismatched"),
    ],
)
def test_a_row_that_iterable_does_not_accept_is_rejected(
    options: Rule, endpoint: str, http_status: int, code: str
) -> None:
    with IterableSandbox(**options) as iterable:
        client, _stop = unwaiting_client(iterable.url)
        result = client.call(endpoint, BODIES[endpoint])
    assert (result.verdict, result.http_status, result.attempts) == (REJECTED, http_status, 1)
    assert result.code == code


def test_a_wrong_key_and_a_wrong_base_url_are_refused(iterable: IterableSandbox) -> None:
    for url in (f"{iterable.url}/api/v1", f"{iterable.url}/v2"):
        client, _stop = unwaiting_client(url)
        result = client.call(USERS_UPDATE, USER)
        assert (result.verdict, result.http_status, result.attempts) == (REFUSED, 404, 1)
    with IterableSandbox(api_key="another-key") as other:
        client, _stop = unwaiting_client(other.url)
        result = client.call(USERS_UPDATE, USER)
    assert (result.verdict, result.http_status, result.code) == (REFUSED, 401, "BadApiKey")
