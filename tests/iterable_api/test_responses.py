"""The verdict on a response: every status, every code, every shape of body."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from iterable_api.responses import (
    EVENTS_TRACK,
    EVENTS_TRACK_BULK,
    NO_API_RESPONSE,
    USERS_BULK_UPDATE,
    USERS_UPDATE,
    ApiResponse,
    error_line,
    log_level,
    requested_wait_seconds,
    verdict_of,
)
from records.outcomes import Verdict

SINGLE = (USERS_UPDATE, EVENTS_TRACK)
BULK = (USERS_BULK_UPDATE, EVENTS_TRACK_BULK)
ENDPOINTS = (*SINGLE, *BULK)

# `IterableApiResponse.code` of Iterable's API document, and one that is not in it.
CODES = (
    *("Success", "BadApiKey", "BadAuthorizationHeader", "BadJsonBody", "BadParams"),
    *("BatchTooLarge", "DatabaseError", "EmailAlreadyExists", "ExternalKeyConflict", "Forbidden"),
    *("ForbiddenParamsError", "ForgottenUserError", "GenericError", "InvalidEmailAddressError"),
    *("InvalidJwtPayload", "InvalidUserIdError", "JwtUserIdentifiersMismatched", "NotFound"),
    *("QueueEmailError", "RateLimitExceeded", "RequestFieldsTypesMismatched", "Unauthorized"),
    *("UniqueFieldsLimitExceeded", "UnknownEmailError", "UnknownUserIdError"),
    *("UserIdAlreadyExists", "ACodeOfTomorrow"),
)
NOT_THE_API: tuple[Any, ...] = ([], ["Success"], "Success", "<html>", 7, 0.5, True, None)
RATE_LIMITED_OR_DOWN = {408, 425, 429, *range(500, 600)}
STOPS_THE_RUN = {401, 403, *range(300, 400)}


def response_with(status: int | None, code: object = "Success", msg: object = "ok") -> ApiResponse:
    return ApiResponse(status, {"code": code, "msg": msg, "params": None})


def counted(succeeded: object, failed: object, **more: Any) -> ApiResponse:
    return ApiResponse(200, {"successCount": succeeded, "failCount": failed, **more})


# Verdicts


def verdicts_of(endpoint: str, statuses: Iterable[int]) -> dict[Verdict, set[int]]:
    """Return the statuses by verdict, each with every code and with bodies not from the API."""
    judged: dict[Verdict, set[int]] = {}
    for status in statuses:
        responses = [response_with(status, code) for code in CODES]
        responses += [ApiResponse(status, body, NO_API_RESPONSE) for body in NOT_THE_API]
        for response in responses:
            judged.setdefault(verdict_of(endpoint, response), set()).add(status)
    return judged


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_transient_status_is_unavailable_whatever_the_body(endpoint: str) -> None:
    statuses = {*range(100, 200), *RATE_LIMITED_OR_DOWN}
    assert verdicts_of(endpoint, statuses) == {Verdict.UNAVAILABLE: statuses}


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_status_that_every_row_would_get_is_refused_whatever_the_body(endpoint: str) -> None:
    assert verdicts_of(endpoint, STOPS_THE_RUN) == {Verdict.REFUSED: STOPS_THE_RUN}


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_any_other_4xx_is_rejected_even_if_the_code_is_success(endpoint: str) -> None:
    statuses = set(range(400, 500)) - STOPS_THE_RUN - RATE_LIMITED_OR_DOWN - {404}
    assert verdicts_of(endpoint, statuses) == {Verdict.REJECTED: statuses}


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("code", CODES)
def test_a_404_is_rejected_if_the_user_is_unknown_and_refused_otherwise(
    code: str, endpoint: str
) -> None:
    is_unknown_user = code in ("UnknownEmailError", "UnknownUserIdError")
    expected = Verdict.REJECTED if is_unknown_user else Verdict.REFUSED
    assert verdict_of(endpoint, response_with(404, code)) is expected


@pytest.mark.parametrize("body", NOT_THE_API)
def test_a_404_that_is_not_from_the_api_is_refused(body: object) -> None:
    assert verdict_of(USERS_UPDATE, ApiResponse(404, body, NO_API_RESPONSE)) is Verdict.REFUSED


@pytest.mark.parametrize("endpoint", SINGLE)
@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_a_single_call_is_delivered_only_if_the_code_is_success(status: int, endpoint: str) -> None:
    verdicts = {code: verdict_of(endpoint, response_with(status, code)) for code in CODES}
    assert verdicts.pop("Success") is Verdict.DELIVERED
    assert set(verdicts.values()) == {Verdict.REJECTED}
    for almost in ("success", "SUCCESS", " Success", "Success ", ""):
        assert verdict_of(endpoint, response_with(status, almost)) is Verdict.REJECTED


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("body", NOT_THE_API)
def test_a_2xx_that_is_not_from_the_api_is_unavailable(endpoint: str, body: object) -> None:
    assert verdict_of(endpoint, ApiResponse(200, body, NO_API_RESPONSE)) is Verdict.UNAVAILABLE


@pytest.mark.parametrize("code", [None, True, 1, ["Success"], {"Success": 1}])
def test_a_2xx_whose_code_is_not_text_is_unavailable(code: object) -> None:
    assert verdict_of(USERS_UPDATE, response_with(200, code)) is Verdict.UNAVAILABLE
    assert verdict_of(USERS_UPDATE, ApiResponse(200, {})) is Verdict.UNAVAILABLE


@pytest.mark.parametrize("named", ["page_view_2", "my_page_view", "page-view", "Page_View", "x"])
def test_another_events_disallowed_name_says_nothing_of_this_event(named: str) -> None:
    said = response_with(200, msg=f"Event {named} is disallowed from tracking.")
    request = orjson.dumps({"email": "a@b.com", "eventName": "page_view"})
    assert verdict_of(EVENTS_TRACK, said, request) is Verdict.DELIVERED
    ours = orjson.dumps({"email": "a@b.com", "eventName": named})
    assert verdict_of(EVENTS_TRACK, said, ours) is Verdict.REJECTED


BLOCK_PAGES: tuple[Any, ...] = (
    None,
    {"message": "Forbidden"},
    {"code": 403, "msg": "x"},
    {"code": "x"},
    [],
)


@pytest.mark.parametrize("status", [400, 403, 404, 405, 406, 407, 418, 451])
@pytest.mark.parametrize("body", BLOCK_PAGES)
def test_a_firewalls_page_concerns_its_own_request_once_the_api_has_answered(
    body: object, status: int
) -> None:
    response = ApiResponse(status, body, NO_API_RESPONSE)
    assert response.is_blocked
    assert verdict_of(USERS_UPDATE, response, api_has_answered=True) is Verdict.REJECTED


@pytest.mark.parametrize("status", [401, 408, 413, 425, 429, 301, 302, 200, 500, 503])
def test_other_statuses_are_judged_alike_whoever_sent_them(status: int) -> None:
    response = ApiResponse(status, None, NO_API_RESPONSE)
    assert not response.is_blocked
    verdict = verdict_of(USERS_UPDATE, response)
    assert verdict_of(USERS_UPDATE, response, api_has_answered=True) is verdict


@pytest.mark.parametrize("code", ["Forbidden", "BadApiKey"])
def test_a_403_with_the_apis_json_is_refused_although_the_api_has_answered(code: str) -> None:
    response = response_with(403, code)
    assert not response.is_blocked
    assert verdict_of(USERS_UPDATE, response, api_has_answered=True) is Verdict.REFUSED


def test_a_disallowed_event_name_is_rejected_although_the_code_is_success() -> None:
    said = "Event name page_view is disallowed from tracking"
    assert verdict_of(EVENTS_TRACK, response_with(200, "Success", said)) is Verdict.REJECTED
    assert verdict_of(EVENTS_TRACK, response_with(200, "Success", ["odd"])) is Verdict.DELIVERED


@pytest.mark.parametrize("endpoint", BULK)
@pytest.mark.parametrize("counts", [(0, 0), (3, 0), (0, 3), (2, 1), (10**9, 10**9)])
def test_a_bulk_response_with_both_counts_is_delivered(
    endpoint: str, counts: tuple[int, int]
) -> None:
    assert verdict_of(endpoint, counted(*counts)) is Verdict.DELIVERED
    assert verdict_of(endpoint, counted(*counts, code="GenericError")) is Verdict.DELIVERED


@pytest.mark.parametrize("endpoint", BULK)
@pytest.mark.parametrize("count", [None, "3", -1, 1.0, True, [3]])
def test_a_bulk_response_without_valid_counts_is_unavailable(endpoint: str, count: object) -> None:
    assert verdict_of(endpoint, counted(3, count)) is Verdict.UNAVAILABLE
    assert verdict_of(endpoint, counted(count, 3)) is Verdict.UNAVAILABLE
    assert verdict_of(endpoint, response_with(200)) is Verdict.UNAVAILABLE


@pytest.mark.parametrize("problem", ["ConnectTimeout", "ReadTimeout", "ConnectionError"])
def test_no_response_is_unavailable(problem: str) -> None:
    response = ApiResponse(None, problem=problem)
    assert verdict_of(USERS_UPDATE, response) is Verdict.UNAVAILABLE
    assert (response.code, response.message, response.params) == (problem, problem, None)


def test_an_untrusted_certificate_is_refused() -> None:
    response = ApiResponse(None, problem="not trusted", is_permanent_error=True)
    assert verdict_of(USERS_UPDATE, response) is Verdict.REFUSED


# Parts of a response


def test_code_message_and_params_are_those_of_the_body() -> None:
    response = ApiResponse(400, {"code": "BadParams", "msg": "no", "params": {"a": 1}})
    assert (response.code, response.message, response.params) == ("BadParams", "no", {"a": 1})


@pytest.mark.parametrize("said", [{"a": ["b"]}, 7, True, orjson.loads("[" * 1_000 + "]" * 1_000)])
def test_a_message_nested_a_thousand_deep_ended_the_run(said: object) -> None:
    """Converting it to text overflowed the stack."""
    for status, verdict in ((200, Verdict.DELIVERED), (400, Verdict.REJECTED)):
        response = ApiResponse(status, {"code": "Success", "msg": said})
        assert (response.message, verdict_of(USERS_UPDATE, response)) == ("", verdict)


@pytest.mark.parametrize("body", [{}, {"code": None, "msg": None}, {"code": 7, "msg": ""}])
def test_missing_parts_of_a_response_are_empty(body: dict[str, object]) -> None:
    response = ApiResponse(400, body)
    assert (response.code, response.message, response.params) == (None, "", None)


def test_a_huge_code_or_message_is_cut() -> None:
    response = ApiResponse(400, {"code": "x" * 1_000_000, "msg": "y" * 1_000_000})
    assert (len(str(response.code)), len(response.message)) == (100, 2_000)


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (400, "4xx Client Error from users/update: Status 400"),
        (429, "4xx Client Error from users/update: Status 429"),
        (499, "4xx Client Error from users/update: Status 499"),
        (500, "5xx Server Error from users/update: Status 500"),
        (502, "5xx Server Error from users/update: Status 502"),
        (300, "Redirect from users/update, not followed: Status 300"),
        (302, "Redirect from users/update, not followed: Status 302"),
        (399, "Redirect from users/update, not followed: Status 399"),
        (200, "Unexpected response from users/update: Status 200"),
        (299, "Unexpected response from users/update: Status 299"),
        (None, "No response from users/update: ReadTimeout"),
    ],
)
def test_a_failure_is_logged_as_documented(status: int | None, line: str) -> None:
    assert error_line("users/update", ApiResponse(status, problem="ReadTimeout")) == line


@pytest.mark.parametrize("verdict", [Verdict.REJECTED, Verdict.REFUSED, Verdict.UNAVAILABLE])
def test_only_a_failure_that_is_retried_is_a_warning(verdict: Verdict) -> None:
    assert log_level(verdict, is_last=True) == logging.ERROR
    again = logging.WARNING if verdict is Verdict.UNAVAILABLE else logging.ERROR
    assert log_level(verdict, is_last=False) == again


# Any body

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["code", "msg", "params", "successCount", "failCount", "Reset"])
            | st.just("rateLimitReset"),
            inner,
        )
    ),
    max_leaves=6,
)


@given(JSON, st.integers(100, 999) | st.none(), st.sampled_from(ENDPOINTS), st.text(max_size=30))
@example({"msg": {"a": 1}, "code": ["x"]}, 200, USERS_UPDATE, "")
def test_any_json_body_gets_a_verdict(
    body: object, status: int | None, endpoint: str, header: str
) -> None:
    response = ApiResponse(status, body, "problem")
    verdict = verdict_of(endpoint, response)
    assert isinstance(verdict, Verdict)
    assert response.code is None or isinstance(response.code, str)
    assert isinstance(error_line(endpoint, response), str)
    wait = requested_wait_seconds(header, body)
    assert wait is None or 0 <= wait < float("inf")
    if verdict is Verdict.DELIVERED:
        assert status is not None
        assert 200 <= status < 300
        assert isinstance(body, dict)
        assert endpoint in BULK or body["code"] == "Success"
