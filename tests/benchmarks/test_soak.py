"""The soak test: it runs, and it detects growth, missing data and duplicates."""

from __future__ import annotations

import random
from typing import Any

import pytest

from benchmarks.soak import Sample, growth, main
from benchmarks.soak_users import SoakUsers
from tests.support.mariadb import PrivateMariaDB


@pytest.mark.slow
@pytest.mark.usefixtures("mariadb_server")  # it skips where there is none
def test_a_short_soak_finds_nothing_lost_or_duplicated(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--minutes", "0.15", "--users", "30", "--seed", "2"])
    printed = capsys.readouterr().out
    assert "open files" in printed
    _before, _heading, after = printed.partition("MariaDB killed: ")
    # Too few runs to judge memory, but the users must be right.
    problems = [line for line in after.splitlines()[1:] if "grew" not in line and "few" not in line]
    assert problems in ([], ["no problems: every user has the right profile and each event once"])


@pytest.mark.parametrize("name", ["memory_bytes", "open_files", "threads"])
def test_growth_from_the_second_quarter_to_the_last_is_reported(name: str) -> None:
    flat = [Sample(minute, 50_000_000, 6, 1) for minute in range(40)]
    assert growth(flat) == []
    for late in flat[30:]:
        setattr(late, name, getattr(late, name) * 2)
    (problem,) = growth(flat)
    assert problem.startswith(f"{name} grew from ")


def test_too_few_runs_do_not_count_as_no_growth() -> None:
    assert growth([Sample(0, 1, 1, 1)] * 3) == [
        "too few runs to tell whether memory, files or threads grow"
    ]


def test_every_kind_of_difference_is_reported(mariadb_server: PrivateMariaDB) -> None:
    soak_users = SoakUsers(mariadb_server, 12)
    users, events = as_iterable_should_have_them(soak_users)
    assert soak_users.differences(users, events) == []
    assert "wrong profiles" in str(soak_users.differences(users[1:], events))
    assert "unknown profiles" in str(
        soak_users.differences([*users, {"email": "x@y.z", "dataFields": {}}], events)
    )
    assert "latest events missing" in str(soak_users.differences(users, events[1:]))
    assert "duplicate events" in str(soak_users.differences(users, [*events, events[0]]))
    assert "unknown events" in str(
        soak_users.differences(users, [*events, {**events[0], "createdAt": 1}])
    )
    soak_users.change(random.Random(1))
    assert "wrong profiles" in str(soak_users.differences(users, events))
    assert "latest events missing" in str(soak_users.differences(users, events))


def as_iterable_should_have_them(
    soak_users: SoakUsers,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    profiles, latest, _views = soak_users.expected()
    users = [{"email": email, "dataFields": fields} for email, fields in profiles.items()]
    events = [
        {"email": email, "createdAt": at, "dataFields": {"page": page}}
        for email, at, page in sorted(latest)
    ]
    return users, events
