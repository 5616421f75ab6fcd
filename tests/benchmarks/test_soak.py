"""The soak: it runs, it notices what grows, and it notices what Iterable lacks or has twice."""

from __future__ import annotations

import random
from typing import Any

import pytest

from benchmarks.soak import Sample, growth, main
from benchmarks.soak_users import People
from tests.support.mariadb import PrivateMariaDB


@pytest.mark.slow
@pytest.mark.usefixtures("mariadb_server")  # it skips where there is none
def test_a_short_soak_loses_and_doubles_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--minutes", "0.15", "--people", "30", "--seed", "2"])
    printed = capsys.readouterr().out
    assert "open files" in printed
    _before, _heading, after = printed.partition("MariaDB killed: ")
    # So few runs say nothing of memory, but the people have to be right.
    troubles = [line for line in after.splitlines()[1:] if "grew" not in line and "few" not in line]
    assert troubles in ([], ["no trouble: everyone has the right profile and every event once"])


@pytest.mark.parametrize("name", ["memory_bytes", "open_files", "threads"])
def test_what_grows_from_the_second_quarter_to_the_last_is_named(name: str) -> None:
    flat = [Sample(minute, 50_000_000, 6, 1) for minute in range(40)]
    assert growth(flat) == []
    for late in flat[30:]:
        setattr(late, name, getattr(late, name) * 2)
    (said,) = growth(flat)
    assert said.startswith(f"{name} grew from ")


def test_too_few_runs_do_not_pass_for_flat() -> None:
    assert growth([Sample(0, 1, 1, 1)] * 3) == ["too few runs to say whether anything grows"]


def test_every_kind_of_difference_is_named(mariadb_server: PrivateMariaDB) -> None:
    people = People(mariadb_server, 12)
    users, events = as_iterable_should_have_them(people)
    assert people.differences(users, events) == []
    assert "wrong profiles" in str(people.differences(users[1:], events))
    assert "unknown profiles" in str(
        people.differences([*users, {"email": "x@y.z", "dataFields": {}}], events)
    )
    assert "latest events missing" in str(people.differences(users, events[1:]))
    assert "doubled events" in str(people.differences(users, [*events, events[0]]))
    assert "unknown events" in str(
        people.differences(users, [*events, {**events[0], "createdAt": 1}])
    )
    people.change(random.Random(1))
    assert "wrong profiles" in str(people.differences(users, events))
    assert "latest events missing" in str(people.differences(users, events))


def as_iterable_should_have_them(
    people: People,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    profiles, latest, _views = people.expected()
    users = [{"email": email, "dataFields": fields} for email, fields in profiles.items()]
    events = [
        {"email": email, "createdAt": at, "dataFields": {"page": page}}
        for email, at, page in sorted(latest)
    ]
    return users, events
