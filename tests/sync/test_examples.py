"""The jobs in `examples/`, each from its tables and sample rows to what Iterable gets."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from commands.check.run import check_setup
from config.parsers import PROJECT_FOLDER
from config.settings import REQUIRED, Settings, read_environment
from errors import ConfigError
from sandbox.iterable_api import IterableSandbox
from tests.support.mariadb import PrivateMariaDB
from tests.support.rows import API_KEY
from tests.support.runs import FAST, Runs, counts_of
from tests.support.users import sent_calls

EXAMPLES = PROJECT_FOLDER / "examples"
JOBS = sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir())


@pytest.fixture
def database(mariadb_server: PrivateMariaDB) -> Iterator[PrivateMariaDB]:
    """A server with an empty database `example`."""
    mariadb_server.run_sql("CREATE DATABASE example CHARACTER SET utf8mb4")
    yield mariadb_server
    mariadb_server.run_sql("DROP DATABASE example")


def runs_of(
    job: str, folder: Path, server: PrivateMariaDB, iterable: IterableSandbox, **changes: str
) -> Runs:
    """Load tables and rows, and return the runs of the job as its env file describes it."""
    for name in ("tables.sql", "sample_rows.sql"):
        server.run_sql((EXAMPLES / job / name).read_text(encoding="utf-8"), "example")
    settings = dict(read_environment(EXAMPLES / job / "job.env"))
    settings |= {
        "DB_HOST": server.host,
        "DB_PORT": str(server.port),
        "DB_USER": server.user,
        "DB_PASSWORD": server.password,
        "DB_NAME": "example",
        "ITERABLE_API_KEY": API_KEY,
        "ITERABLE_API_BASE_URL": iterable.url,
        "STATE_FILE": str(folder / settings["STATE_FILE"]),
        "LOG_FILE": str(folder / settings["LOG_FILE"]),
        "RESULTS_DIR": str(folder),
        **FAST,
        **changes,
    }
    return Runs(folder, settings)


def bodies_of(iterable: IterableSandbox) -> list[tuple[str, Any]]:
    return [(call.endpoint, call.body) for call in sent_calls(iterable)]


def utc(unix_seconds: int) -> str:
    return f"{datetime.fromtimestamp(unix_seconds, timezone.utc):%F %T}"


@pytest.mark.parametrize("job", JOBS)
def test_only_the_required_settings_are_missing_from_an_env_file(job: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Settings.from_environment(read_environment(EXAMPLES / job / "job.env"))
    assert [problem.split()[0] for problem in raised.value.problems] == list(REQUIRED)
    assert all("placeholder" in problem for problem in raised.value.problems)


@pytest.mark.parametrize("job", JOBS)
def test_the_check_of_a_job_passes(
    job: str, database: PrivateMariaDB, iterable: IterableSandbox, tmp_path: Path
) -> None:
    runs = runs_of(job, tmp_path, database, iterable)
    lines = list(check_setup(Settings.from_environment(runs.settings), None))
    assert not [str(line) for line in lines if not line.ok or line.is_warning]


def test_the_jobs_are_told_apart() -> None:
    for name in ("SYNC_NAME", "STATE_FILE", "LOG_FILE", "QUERY_FILE"):
        values = {read_environment(EXAMPLES / job / "job.env")[name] for job in JOBS}
        assert len(values) == len(JOBS) == 3


def test_the_latest_order_of_each_customer_is_an_event(
    database: PrivateMariaDB, iterable: IterableSandbox, tmp_path: Path
) -> None:
    runs = runs_of("latest_orders", tmp_path, database, iterable)
    assert counts_of(runs.run()) == {"successful": 2}
    times = [body.pop("createdAt") for _endpoint, body in bodies_of(iterable)]
    assert times[1] - times[0] == 3_600
    assert bodies_of(iterable) == [
        (
            "events/track",
            {
                "email": email,
                "eventName": "order_placed",
                "id": event_id,
                "dataFields": {**fields, "source": "shop", "timestamp": utc(at)},
            },
        )
        for at, email, event_id, fields in (
            (
                times[0],
                "ann@example.com",
                "order-placed-id-A-1002",
                {"amount": 59.9, "currency": "EUR", "items": 3},
            ),
            (
                times[1],
                "ben@example.com",
                "order-placed-id-A-1003",
                {"amount": 1250.05, "currency": "USD", "items": 12},
            ),
        )
    ]
    assert counts_of(runs.run()) == {"unchanged": 2}


def test_the_profiles_of_all_contacts_are_sent_without_an_event(
    database: PrivateMariaDB, iterable: IterableSandbox, tmp_path: Path
) -> None:
    runs = runs_of("nightly_profiles", tmp_path, database, iterable)
    assert counts_of(runs.run()) == {"successful": 2}
    ann = {
        "first_name": "Ann",
        "city": "Porto",
        "birthday": "1990-04-30",
        "newsletter": True,
        "lifetime_value": 1250.5,
        "preferences": {"sms": True, "topics": ["news"]},
    }
    ben = {**dict.fromkeys(ann), "first_name": "Ben", "newsletter": False}
    assert bodies_of(iterable) == [
        (
            "users/bulkUpdate",
            {
                "users": [
                    {"email": "ann@example.com", "dataFields": ann, "mergeNestedObjects": True},
                    {"email": "ben@example.com", "dataFields": ben, "mergeNestedObjects": True},
                ]
            },
        )
    ]
    assert counts_of(runs.run()) == {"unchanged": 2}


def test_a_trial_that_is_about_to_end_is_an_event_and_a_flag_that_is_cleared(
    database: PrivateMariaDB, iterable: IterableSandbox, tmp_path: Path
) -> None:
    runs = runs_of("trials_ending", tmp_path, database, iterable)
    ends_at = datetime.now(timezone.utc) + timedelta(days=1)
    assert counts_of(runs.run()) == {"successful": 1}
    (update, event) = bodies_of(iterable)
    assert update == (
        "users/update",
        {
            "email": "ann@example.com",
            "dataFields": {"company": "Ann & Co", "trial_ends_soon": True},
        },
    )
    body = event[1]
    began_at = datetime.fromtimestamp(body.pop("createdAt"), timezone.utc)
    assert abs(ends_at - timedelta(days=3) - began_at) < timedelta(minutes=5)
    assert body.pop("id") == f"trial-ending-id-11-{began_at + timedelta(days=3):%Y%m%d}"
    assert body == {
        "email": "ann@example.com",
        "eventName": "trial_ending",
        "dataFields": {
            "plan": "team",
            "ends_on": f"{began_at + timedelta(days=3):%F}",
            "timestamp": f"{began_at:%F %T}",
        },
    }
    assert counts_of(runs.run()) == {"unchanged": 1}
    database.run_sql("UPDATE trials SET converted_at = UTC_TIMESTAMP()", "example")
    runs.run()  # a query without rows holds leavers back
    assert iterable.project.users["ann@example.com"].data_fields["trial_ends_soon"] is True
    runs.run(ignore_guards=True)
    assert iterable.project.users["ann@example.com"].data_fields["trial_ends_soon"] is False
