"""`--check`: database, query and query plan."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import SourceDatabase
from tests.source.test_query import OTHER_SCHEMA
from tests.source.test_query import fill as fill_with_views
from tests.support.mariadb import free_port
from tests.support.program import Program
from tests.support.program_files import PROJECT_FOLDER
from tests.support.set_up import SetUp, failures, has_words
from tests.support.users import add_user

pytest_plugins = ["tests.support.set_up_fixtures"]


def test_an_unreachable_database_fails(set_up: SetUp) -> None:
    lines = set_up.lines(DB_PORT=str(free_port()))
    assert failures(lines) == ["database"]
    (line,) = [line for line in lines if not line.ok]
    has_words(line, "Cannot reach MySQL", "DB_HOST and DB_PORT")
    assert "field types" in [line.name for line in lines if line.is_warning]


def test_a_wrong_password_fails(on_mariadb_too: SetUp) -> None:
    line = on_mariadb_too.line("database", DB_PASSWORD="not the one")
    assert not line.ok
    has_words(line, "refused the user", "DB_PASSWORD")


def test_an_unknown_database_fails(on_mariadb_too: SetUp) -> None:
    line = on_mariadb_too.line("database", DB_NAME="nowhere")
    assert not line.ok
    has_words(line, "no database nowhere", "DB_NAME")


def test_missing_tables_fail_only_the_query_check(
    on_mariadb_too: SetUp, source: SourceDatabase
) -> None:
    source.run_sql("DROP TABLE page_views")
    lines = on_mariadb_too.lines()
    assert failures(lines) == ["query"]
    (line,) = [line for line in lines if not line.ok]
    has_words(line, "page_views", "QUERY_FILE")


def test_the_pure_python_driver_is_a_warning(set_up: SetUp) -> None:
    program = (
        "import sys; sys.modules['_mysql_connector'] = None\n"
        "from config.settings import Settings\n"
        "from commands.check.run import check_setup\n"
        f"settings = Settings.from_environment({set_up.environment!r})\n"
        "for line in check_setup(settings, None): sys.stdout.write(f'{line}\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT_FOLDER, capture_output=True, text=True
    )
    (line,) = [line for line in done.stdout.splitlines() if " driver " in line]
    assert line.startswith("warning")
    assert "pure Python" in line
    assert "pip install --force-reinstall" in line
    assert "FAILED" not in done.stdout


def test_missing_columns_fail_and_are_named(on_mariadb_too: SetUp) -> None:
    line = on_mariadb_too.line("query", USER_FIELDS="first_name,score,seat=places")
    assert not line.ok
    has_words(line, "'score'", "'places'", "USER_FIELDS")


def test_a_query_that_mysql_refuses_fails(on_mariadb_too: SetUp) -> None:
    own = on_mariadb_too.folder / "own.sql"
    own.write_text("SELECT nothing FROM customers", encoding="utf-8")
    line = on_mariadb_too.line("query", QUERY_FILE=str(own))
    assert not line.ok
    has_words(line, "nothing", "QUERY_FILE")


def test_a_query_without_rows_is_a_warning(set_up: SetUp) -> None:
    line = set_up.line("rows", ENGAGEMENT_WINDOW_DAYS="0.5")
    assert line.is_warning
    has_words(line, "returns no rows for the last 0.5 days", "ENGAGEMENT_WINDOW_DAYS")


def test_invalid_rows_are_a_warning(set_up: SetUp, embedded: SourceDatabase) -> None:
    add_user(embedded.run_sql, 10, "not-an-address")
    add_user(embedded.run_sql, 11, None)
    line = set_up.line("rows")
    assert line.is_warning
    has_words(line, "2 of 5 rows are invalid", "1 x no e-mail address")


@pytest.mark.slow
def test_a_slow_query_can_be_interrupted(with_mariadb: SetUp) -> None:
    own = with_mariadb.folder / "own.sql"
    own.write_text("SELECT customers.*, SLEEP(3) FROM customers LIMIT 1", encoding="utf-8")
    program = Program(
        with_mariadb.folder / "run", {**with_mariadb.environment, "QUERY_FILE": str(own)}
    )
    running = program.start("--check")
    time.sleep(1.5)
    assert not running.is_over
    running.send(signal.SIGINT)
    ending = running.ending(patience_seconds=2)
    assert ending.status == 130
    assert "Traceback" not in ending.output


def test_only_the_first_1000_rows_are_read(with_mariadb: SetUp, mariadb: SourceDatabase) -> None:
    fill_with_views(without_users(mariadb), 20_000, 60_000)
    own = with_mariadb.folder / "own.sql"
    # All rows would take far too long: 10,000 customers, 60,000 times each.
    own.write_text(
        "SELECT c.*, v.page, v.device, v.location, v.event_time FROM customers c, page_views v",
        encoding="utf-8",
    )
    has_words(with_mariadb.line("rows", QUERY_FILE=str(own)), "the first 1,000 rows")


def without_users(mariadb: SourceDatabase) -> SourceDatabase:
    mariadb.run_sql("DELETE FROM page_views; DELETE FROM customers")
    return mariadb


@pytest.mark.parametrize("views", [3, 30_000])
def test_a_full_table_scan_is_a_warning_with_the_index_to_create(
    with_mariadb: SetUp, mariadb: SourceDatabase, views: int
) -> None:
    mariadb.run_sql(OTHER_SCHEMA)
    fill_with_views(mariadb, 1_000, views)
    line = with_mariadb.line("query plan")
    assert line.ok
    assert line.is_warning
    has_words(line, "the whole of page_views is read")
    index = "CREATE INDEX page_views_recent ON page_views (page(64), event_time, user_id)"
    has_words(line, index)
    mariadb.run_sql(index + "; ANALYZE TABLE page_views")
    assert not with_mariadb.line("query plan", ENGAGEMENT_WINDOW_DAYS="7").is_warning


def test_the_index_for_varchar_columns_is_covering(
    with_mariadb: SetUp, mariadb: SourceDatabase
) -> None:
    mariadb.run_sql("DROP INDEX page_views_recent ON page_views")
    index = "CREATE INDEX page_views_recent ON page_views (page, event_time, user_id)"
    has_words(with_mariadb.line("query plan"), index)


def test_a_plan_that_ranks_once_per_customer_is_a_warning(
    with_mariadb: SetUp, mariadb: SourceDatabase
) -> None:
    without_users(mariadb)
    fill_with_views(mariadb, 5_000, 20_000)
    own = with_mariadb.folder / "own.sql"
    own.write_text(
        "SELECT c.*, v.page, v.device, v.location, v.event_time FROM customers c"
        " JOIN (SELECT user_id, MAX(id) AS id FROM page_views"
        " WHERE event_time >= %(window_start)s GROUP BY user_id) w ON w.user_id = c.id"
        " JOIN page_views v ON v.id = w.id WHERE c.plan_type = 'pro' AND c.id < 50",
        encoding="utf-8",
    )
    line = with_mariadb.line("query plan", QUERY_FILE=str(own))
    assert line.is_warning
    has_words(line, "LATERAL DERIVED", "again for each customer")


def test_a_plan_in_an_unknown_format_is_a_warning(set_up: SetUp) -> None:
    line = set_up.line("query plan")
    assert line.is_warning
    has_words(line, "not in the format of MySQL")
