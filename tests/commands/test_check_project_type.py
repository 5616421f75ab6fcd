"""`--check`: which type of project this seems to be, and whether the settings fit it."""

from __future__ import annotations

import pytest

from commands.check.project_type import (
    ProjectType,
    check_project_type,
    identity_line,
    project_type_of,
)
from config.settings import Settings
from iterable_api.responses import ApiResponse
from sandbox.iterable_api import IterableSandbox
from tests.config.test_settings import REQUIRED_ONES

LISTED = ApiResponse(200, {"hashedEmails": []})
REFUSED = ApiResponse(400, {"code": "BadParams", "msg": "not in this type of project"})


def lines(api: IterableSandbox, **settings: str) -> list[tuple[str, str]]:
    address = {"ITERABLE_API_BASE_URL": api.url}
    found = check_project_type(Settings.from_environment({**REQUIRED_ONES, **address, **settings}))
    return [(line.result, line.text) for line in found]


@pytest.mark.parametrize(
    ("project_type", "fitting", "other"),
    [("email", "email", "userid"), ("userid", "userid", "email")],
)
def test_an_identity_that_does_not_fit_fails_and_says_what_to_set(
    project_type: str, fitting: str, other: str
) -> None:
    with IterableSandbox(project_type=project_type) as api:
        assert [result for result, _text in lines(api, IDENTIFY_BY=fitting)] == ["ok"]
        ((result, text),) = lines(api, IDENTIFY_BY=other)
        assert result == "FAILED"
        assert text.endswith(f"does not fit: set IDENTIFY_BY={fitting}")


@pytest.mark.parametrize("identify_by", ["email", "userid"])
def test_a_hybrid_project_fits_both(identify_by: str) -> None:
    with IterableSandbox(project_type="hybrid") as api:
        ((result, text),) = lines(api, IDENTIFY_BY=identify_by)
        assert (result, text.startswith("hybrid")) == ("ok", True)


def test_moving_addresses_fails_where_the_project_is_not_email_based() -> None:
    with IterableSandbox(project_type="hybrid") as api:
        results = lines(api, EMAIL_CHANGES="move")
        assert [result for result, _text in results] == ["ok", "FAILED"]
        assert results[1][1].endswith("seems to be hybrid: set EMAIL_CHANGES=new")
    with IterableSandbox() as api:
        assert [result for result, _text in lines(api, EMAIL_CHANGES="move")] == ["ok"]


@pytest.mark.parametrize(
    ("emails", "user_ids", "expected"),
    [
        (LISTED, LISTED, ProjectType.HYBRID),
        (LISTED, REFUSED, ProjectType.EMAIL),
        (REFUSED, LISTED, ProjectType.USER_ID),
        (LISTED, ApiResponse(404, {"code": "NotFound", "msg": ""}), ProjectType.EMAIL),
        (REFUSED, REFUSED, None),
        (LISTED, ApiResponse(429, {"code": "RateLimitExceeded", "msg": ""}), None),
        (LISTED, ApiResponse(401, {"code": "BadApiKey", "msg": ""}), None),
        (LISTED, ApiResponse(403, None, "not an API response"), None),
        (LISTED, ApiResponse(500, {"code": "GenericError", "msg": ""}), None),
        (LISTED, ApiResponse(None, problem="ConnectTimeout"), None),
    ],
)
def test_only_a_list_beside_a_refusal_or_another_list_is_a_hint(
    emails: ApiResponse, user_ids: ApiResponse, expected: ProjectType | None
) -> None:
    assert project_type_of(emails, user_ids) is expected


@pytest.mark.parametrize(
    ("identify_by", "found", "is_warning"),
    [("email", None, True), ("email", ProjectType.HYBRID, False), ("userid", None, False)],
)
def test_emails_in_the_eu_data_centre_are_a_warning_and_no_refusal(
    identify_by: str, found: ProjectType | None, is_warning: bool
) -> None:
    address = {"ITERABLE_API_BASE_URL": "https://api.eu.iterable.com"}
    settings = Settings.from_environment({**REQUIRED_ONES, **address, "IDENTIFY_BY": identify_by})
    line = identity_line(settings, found)
    assert (line.ok, line.is_warning) == (True, is_warning)
