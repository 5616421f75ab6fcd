"""Project type check of `--check`: does `IDENTIFY_BY` fit the Iterable project?

No endpoint names the type of a project. But `GET users/forgotten` is an error in userID-based
projects and `GET users/forgottenUserIds` in e-mail-based ones (Iterable's API reference), so that
the two together are a hint. Each allows 3 requests a second.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from enum import Enum

from commands.check.line import CheckLine, failed, passed, warned
from config.identity import IdentifyBy
from config.settings import Settings
from iterable_api.advice import DATA_CENTRES
from iterable_api.http import IterableHTTP
from iterable_api.responses import ApiResponse

_NAME = "project type"
_FORGOTTEN_EMAILS, _FORGOTTEN_USER_IDS = "users/forgotten", "users/forgottenUserIds"


class ProjectType(str, Enum):
    """How a project identifies users; chosen when it is created, and fixed."""

    EMAIL = "e-mail-based"
    USER_ID = "userID-based"
    HYBRID = "hybrid"


_FITTING: Mapping[IdentifyBy, frozenset[ProjectType]] = {
    IdentifyBy.EMAIL: frozenset({ProjectType.EMAIL, ProjectType.HYBRID}),
    IdentifyBy.USER_ID: frozenset({ProjectType.USER_ID, ProjectType.HYBRID}),
}


def check_project_type(settings: Settings) -> Iterator[CheckLine]:
    """Yield the lines. Only a setting that contradicts the hint fails."""
    address = settings.iterable_api_base_url
    with closing(IterableHTTP(settings.iterable_api_key, address, connections=1)) as http:
        found = project_type_of(http.get(_FORGOTTEN_EMAILS), http.get(_FORGOTTEN_USER_IDS))
    yield identity_line(settings, found)
    if settings.email_changes == "move" and found in (ProjectType.USER_ID, ProjectType.HYBRID):
        yield failed(
            _NAME,
            f"EMAIL_CHANGES=move works in e-mail-based projects only, and this one seems to be "
            f"{found.value}: set EMAIL_CHANGES=new",
        )


def identity_line(settings: Settings, found: ProjectType | None) -> CheckLine:
    """Return the line that compares IDENTIFY_BY with the type; None: the type is not known."""
    identify_by = settings.identify_by
    if found is None:
        if identify_by is IdentifyBy.EMAIL and "EU" in DATA_CENTRES.get(
            settings.iterable_api_base_url, ""
        ):
            return warned(
                _NAME,
                "the EU data centre has no e-mail-based projects: IDENTIFY_BY=email fits only if "
                "this one is hybrid, which could not be found out",
            )
        return passed(
            _NAME,
            f"not known; IDENTIFY_BY={identify_by.value} names users by "
            f"{'e-mail' if identify_by is IdentifyBy.EMAIL else settings.user_id_column}",
        )
    if found not in _FITTING[identify_by]:
        other = next(each for each in IdentifyBy if each is not identify_by)
        return failed(
            _NAME,
            f"the project seems to be {found.value}, which IDENTIFY_BY={identify_by.value} does "
            f"not fit: set IDENTIFY_BY={other.value}",
        )
    return passed(_NAME, f"{found.value}, as far as can be seen; IDENTIFY_BY={identify_by.value}")


def project_type_of(emails: ApiResponse, user_ids: ApiResponse) -> ProjectType | None:
    """Return the type that the two lists of forgotten users hint at; None if they hint at none."""
    has_emails, has_user_ids = emails.status == 200, user_ids.status == 200
    # The status of the error is not documented: any other than those of keys and limits.
    refuses_emails, refuses_user_ids = (
        each.is_answer and 400 <= (each.status or 0) < 500 and each.status not in (401, 403, 429)
        for each in (emails, user_ids)
    )
    if has_emails and has_user_ids:
        return ProjectType.HYBRID
    if has_emails and refuses_user_ids:
        return ProjectType.EMAIL
    if has_user_ids and refuses_emails:
        return ProjectType.USER_ID
    return None
