"""Advice for the operator: which of key, base URL and network is wrong, and what to do."""

from __future__ import annotations

import pytest

from iterable_api.advice import explain_problem, explain_refusal
from iterable_api.responses import NO_API_RESPONSE, ApiResponse

GET_USER = "users/getByEmail"
ADDRESS = "https://api.iterable.com"


@pytest.mark.parametrize(
    ("status", "code", "message", "advice"),
    [
        (None, None, "the certificate is not trusted", "so the API key was not sent"),
        (302, None, "", "ITERABLE_API_BASE_URL does not lead to Iterable's API (HTTP 302)"),
        (404, "NotFound", "", "ITERABLE_API_BASE_URL does not lead to Iterable's API (HTTP 404)"),
        (403, NO_API_RESPONSE, "", "A proxy or firewall between this machine and Iterable blocks"),
        (451, NO_API_RESPONSE, "", "A proxy or firewall between this machine and Iterable blocks"),
        (404, NO_API_RESPONSE, "", "ITERABLE_API_BASE_URL does not lead to Iterable's API"),
        (401, "InvalidJwtPayload", "", "the key is JWT-enabled"),
        (401, "BadAuthorizationHeader", "", "the key is JWT-enabled"),
        (401, "BadApiKey", "No JWT in the request", "the key is JWT-enabled"),
        (403, "Forbidden", "", "it is a client-side key, or its permissions are limited"),
        (401, "Unauthorized", "", "it is a client-side key, or its permissions are limited"),
        (401, "BadApiKey", "", "it is mistyped, disabled, not of type Server-side"),
        (401, None, "", "Iterable refused the API key (HTTP 401): it is mistyped"),
    ],
)
def test_a_refusal_is_explained_by_status_code_and_message(
    status: int | None, code: str | None, message: str, advice: str
) -> None:
    assert advice in explain_refusal(status, code, message)


def test_a_redirect_after_other_answers_comes_from_a_proxy_or_firewall() -> None:
    assert "redirected a request (HTTP 302)" in explain_refusal(
        302, None, "", api_has_answered=True
    )


@pytest.mark.parametrize(
    ("response", "advice"),
    [
        (ApiResponse(200, {"user": {}}), None),
        (ApiResponse(200, None, NO_API_RESPONSE), "does not lead to Iterable's API (HTTP 200)"),
        (ApiResponse(403, None, NO_API_RESPONSE), "proxy or firewall"),
        (ApiResponse(403, {"message": "Forbidden"}), "proxy or firewall"),
        (ApiResponse(403, {"code": "Forbidden", "msg": ""}), "or its permissions are limited"),
        (ApiResponse(401, {"code": "BadApiKey"}), "Iterable refused the API key (HTTP 401"),
        (ApiResponse(400, {"code": "BadParams"}), "rejected the request (HTTP 400 BadParams)"),
        (ApiResponse(503, None, NO_API_RESPONSE), "has a server error (HTTP 503)"),
        (ApiResponse(None, problem="ConnectTimeout"), "cannot be reached (ConnectTimeout)"),
    ],
)
def test_a_response_to_a_get_is_explained_unless_key_and_base_url_work(
    response: ApiResponse, advice: str | None
) -> None:
    explained = explain_problem(GET_USER, response, ADDRESS)
    assert explained is None if advice is None else advice in str(explained)
