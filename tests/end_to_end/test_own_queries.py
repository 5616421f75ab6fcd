"""Query files of one's own: what is sent, and what is refused, on each real server."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from sandbox.iterable_api import IterableSandbox
from tests.conftest import SourceDatabase
from tests.support.program import Program
from tests.support.users import add_users, email_of

QUERY = (
    "SELECT c.id, c.email, c.first_name, c.last_name, c.plan_type, c.candidate, p.page, p.device,"
    " p.browser, p.location, p.event_time FROM customers c JOIN page_views p ON p.user_id = c.id"
    " WHERE p.event_time >= %(window_start)s"
)
ProgramFor = Callable[..., Program]


@pytest.fixture
def program_for(real: SourceDatabase, iterable: IterableSandbox, tmp_path: Path) -> ProgramFor:
    """Return a function that makes the program for a query, with two users in the database."""
    add_users(real.run_sql, range(1, 3))

    def make(query: str, **settings: str) -> Program:
        (tmp_path / "own.sql").write_text(query, encoding="utf-8")
        own = {"QUERY_FILE": str(tmp_path / "own.sql"), **settings}
        return Program.between(tmp_path / "run", real, iterable, **own)

    return make


def test_like_with_a_parenthesis_sent_everybody(
    program_for: ProgramFor, real: SourceDatabase, iterable: IterableSandbox
) -> None:
    real.run_sql("UPDATE customers SET candidate = 'gold (vip) member' WHERE id = 1")
    query = f"{QUERY} AND c.candidate LIKE '%(vip)%' -- not %(since)s"
    query = query.replace("p.location", "DATE_FORMAT('2026-01-13', '%Y-%m-%d') AS location")
    program = program_for(query)
    assert program.run("--check").status == 0
    assert program.run().status == 0
    assert list(iterable.project.users) == [email_of(1)]
    (event,) = iterable.project.events.values()
    assert event.data_fields["location"] == "2026-01-13"


def test_db_timezone_moved_timestamps(
    program_for: ProgramFor, real: SourceDatabase, iterable: IterableSandbox
) -> None:
    # One view 30 minutes inside of the window, one 30 minutes outside: neither by an hour.
    now = datetime.now(timezone.utc).replace(microsecond=0, tzinfo=None)
    inside, outside = (now - timedelta(days=7, minutes=minutes) for minutes in (-30, 30))
    real.run_sql(
        "SET time_zone = '+00:00';"
        "ALTER TABLE customers ADD ts TIMESTAMP NULL, ADD dt DATETIME NULL;"
        "UPDATE customers SET ts = '2026-01-13 14:30:45', dt = '2026-01-13 14:30:45';"
        f"UPDATE page_views SET event_time = '{inside}' WHERE user_id = 1;"
        f"UPDATE page_views SET event_time = '{outside}' WHERE user_id = 2"
    )
    program = program_for(
        QUERY.replace("c.first_name", "c.ts, c.dt"),
        **{"USER_FIELDS": "ts,dt", "DB_TIMEZONE": "Europe/Berlin", "ENGAGEMENT_WINDOW_DAYS": "7"},
    )
    assert "1 rows, all of them valid" in program.run("--check").output
    assert program.run("--export", "rows.csv").status == 0
    with (program.folder / "rows.csv").open(encoding="utf-8", newline="") as exported:
        assert [row["email"] for row in csv.DictReader(exported)] == [email_of(1)]
    printed = program.run("--dry-run", "--limit", "1").stdout
    (profile,) = [line for line in printed.splitlines() if line.startswith("users/update ")]
    fields = json.loads(profile.removeprefix("users/update "))["dataFields"]
    assert fields["ts"] == "2026-01-13 14:30:45 +00:00"
    assert fields["dt"] == "2026-01-13 13:30:45 +00:00"
    assert program.run().status == 0
    (event,) = iterable.project.events.values()
    assert event.created_at == int(inside.replace(tzinfo=timezone.utc).timestamp())
    assert event.data_fields["timestamp"] == str(inside)
    assert program.run("--verify", "5").status == 0


@pytest.mark.parametrize("flags", [[], ["--dry-run"], ["--check"], ["--verify", "5"]])
def test_columns_of_one_name_sent_the_profile_to_another_address(
    program_for: ProgramFor, real: SourceDatabase, iterable: IterableSandbox, flags: list[str]
) -> None:
    real.run_sql(
        "CREATE TABLE orders (id INT PRIMARY KEY, user_id INT, email VARCHAR(99));"
        "INSERT INTO orders VALUES (9001, 1, 'shop@example.net'), (9002, 2, 'shop@example.net')"
    )
    program = program_for(
        "SELECT c.*, p.page, p.device, p.location, p.event_time, o.* FROM customers c"
        " JOIN page_views p ON p.user_id = c.id JOIN orders o ON o.user_id = c.id"
    )
    ending = program.run(*flags)
    assert ending.status == 2
    for name in ("id", "email"):
        assert f"more than one column '{name}'" in ending.output
    assert not iterable.project.users


@pytest.mark.parametrize("flags", [[], ["--check"], ["--export", "rows.csv"]])
def test_a_text_without_a_zone_could_be_in_any_window(
    program_for: ProgramFor, flags: list[str]
) -> None:
    query = QUERY.replace("p.event_time FROM", "CAST(p.event_time AS CHAR) AS event_time FROM")
    program = program_for(query, DB_TIMEZONE="Asia/Tokyo")
    ending = program.run(*flags)
    assert ending.status == 2
    assert "write %(window_start_utc)s or %(window_start_local)s" in ending.output
    query = query.replace("window_start", "window_start_utc")
    assert program_for(query, DB_TIMEZONE="Asia/Tokyo").run(*flags).status == 0


@pytest.mark.parametrize("flags", [[], ["--check"], ["--export", "rows.csv"]])
def test_a_text_that_the_server_cut_was_sent_without_a_word(
    program_for: ProgramFor, real: SourceDatabase, flags: list[str]
) -> None:
    cut = (
        "(SELECT GROUP_CONCAT(REPEAT(x.page, 99)) FROM page_views x WHERE x.user_id = c.id)"
        " AS candidate"
    )
    real.run_sql("SET GLOBAL group_concat_max_len = 64")
    try:
        ending = program_for(QUERY.replace("c.candidate", cut)).run(*flags)
    finally:
        real.run_sql("SET GLOBAL group_concat_max_len = DEFAULT")
    assert ending.status == 0
    assert ending.output.count("2 x 1260 (GROUP_CONCAT cut a text") == 1
