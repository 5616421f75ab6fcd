"""`--check`: database, query and query plan."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import SourceDatabase, numbers
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
    lines = on_mariadb_too.lines(USER_FIELDS="first_name,score,seat=places")
    first, second = [line for line in lines if not line.ok]
    has_words(first, "no column 'score'", "COLUMN AS score", "take it out of USER_FIELDS")
    has_words(second, "no column 'places'", "COLUMN AS places", "take it out of USER_FIELDS")


def test_a_query_that_mysql_refuses_fails(on_mariadb_too: SetUp) -> None:
    own = on_mariadb_too.folder / "own.sql"
    own.write_text("SELECT nothing FROM customers", encoding="utf-8")
    line = on_mariadb_too.line("query", QUERY_FILE=str(own))
    assert not line.ok
    has_words(line, "nothing", "QUERY_FILE")


def test_a_query_without_rows_is_a_warning(set_up: SetUp) -> None:
    line = set_up.line("rows", ENGAGEMENT_WINDOW_DAYS="0.5")
    assert line.is_warning
    has_words(line, "returned nothing for the last 0.5 days", "ENGAGEMENT_WINDOW_DAYS")


def test_invalid_rows_are_a_warning(set_up: SetUp, embedded: SourceDatabase) -> None:
    add_user(embedded.run_sql, 10, "not-an-address")
    add_user(embedded.run_sql, 11, None)
    line = set_up.line("rows")
    assert line.is_warning
    has_words(line, "2 of 5 rows are invalid", "1 x no e-mail address")


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (
            "id, 'nobody' AS email, 'pricing' AS page, NOW() AS event_time",
            "3 x malformed e-mail address (for example user 1, where email is 'nobody')",
        ),
        (
            "id, email, 'pricing' AS page, UNIX_TIMESTAMP('2026-01-13 14:30:45') AS event_time",
            "select FROM_UNIXTIME(...) AS event_time_utc instead (for example user 1, where "
            "event_time is 1768",
        ),
        (
            "id, email, 'pricing' AS page, NULL AS event_time",
            "3 x no event time (for example user 1, where event_time is NULL)",
        ),
        (
            "id, email, ' ' AS event_id, NOW() AS event_time",
            "the event_id is empty (for example user 1, where event_id is ' ')",
        ),
        (
            "id, email, 'pricing' AS page, NOW() AS event_time, REPEAT('x', 32001) AS first_name",
            f"where first_name is '{59 * 'x'}...)",
        ),
    ],
)
def test_a_query_of_which_no_row_is_valid_only_warned(
    with_mariadb: SetUp, columns: str, words: str
) -> None:
    own = with_mariadb.folder / "own.sql"
    own.write_text(f"SELECT {columns} FROM customers ORDER BY id", encoding="utf-8")
    fields = "first_name" if "first_name" in columns else ""
    line = with_mariadb.line("rows", QUERY_FILE=str(own), USER_FIELDS=fields, EVENT_FIELDS="")
    assert not line.ok
    has_words(line, "all of the first 3 rows are invalid, so nothing would be sent", words)


def test_a_query_without_the_start_of_the_window_is_a_warning(with_mariadb: SetUp) -> None:
    assert "query window" not in [line.name for line in with_mariadb.lines()]
    own = with_mariadb.folder / "own.sql"
    query = "SELECT c.*, p.page, p.device, p.location, p.event_time FROM customers c"
    query += " JOIN page_views p ON p.user_id = c.id"
    own.write_text(f"{query} -- %(window_start)s", encoding="utf-8")
    line = with_mariadb.line("query window", QUERY_FILE=str(own))
    assert line.is_warning
    has_words(line, "own.sql has no %(window_start)s", "ENGAGEMENT_WINDOW_DAYS has no effect")
    own.write_text(f"{query} WHERE p.event_time >= %(window_start_utc)s", encoding="utf-8")
    lines = with_mariadb.lines(QUERY_FILE=str(own))
    assert "query window" not in [line.name for line in lines]


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


def test_all_rows_are_counted(with_mariadb: SetUp, mariadb: SourceDatabase) -> None:
    has_words(with_mariadb.line("query"), "columns; 3 rows in ", " s, the first after ")
    mariadb.run_sql("DELETE FROM page_views WHERE user_id > 1")
    has_words(with_mariadb.line("query"), "columns; 1 row in ")
    mariadb.run_sql("DELETE FROM page_views")
    has_words(with_mariadb.line("query"), "columns; no rows in ")
    query = own_query(with_mariadb, FOUR_THOUSAND)
    has_words(with_mariadb.line("query", QUERY_FILE=query), "columns; 4,000 rows in ")
    has_words(with_mariadb.line("rows", QUERY_FILE=query), "the first 1,000 rows, all of them")


def test_rows_that_take_too_long_are_counted_in_part(with_mariadb: SetUp) -> None:
    query = own_query(with_mariadb, FOUR_THOUSAND)
    with_mariadb.max_read_seconds = 0
    line = with_mariadb.line("query", QUERY_FILE=query)
    assert line.ok
    has_words(line, "columns; more than 2,500 rows after ", " s, the first after ")
    has_words(with_mariadb.line("rows", QUERY_FILE=query), "the first 1,000 rows, all of them")


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
    assert not line.is_warning
    has_words(line, "fast at the present size, although the whole of page_views is read")
    with_mariadb.slow_query_seconds = 0
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
    with_mariadb.slow_query_seconds = 0
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
    with_mariadb.slow_query_seconds = 0
    line = with_mariadb.line("query plan", QUERY_FILE=str(own))
    assert line.is_warning
    has_words(line, "page_views is ranked again", "LATERAL DERIVED", "again for each customer")


def test_a_plan_in_an_unknown_format_is_a_warning(set_up: SetUp) -> None:
    line = set_up.line("query plan")
    assert line.is_warning
    has_words(line, "not in the format of MySQL")


def own_query(set_up: SetUp, query: str) -> str:
    """Write a query file and return its path."""
    path = set_up.folder / "own.sql"
    path.write_text(query, encoding="utf-8")
    return str(path)


JOINED = (
    "SELECT c.*, p.page, p.device, p.location, p.event_time{more} FROM customers c"
    " JOIN page_views p ON p.user_id = c.id WHERE p.event_time >= %(window_start)s"
)


FOUR_THOUSAND = (
    "SELECT seq AS id, CONCAT(seq, '@example.com') AS email, 'x' AS first_name, 'x' AS last_name,"
    " 'pro' AS plan_type, 'yes' AS candidate, 'x' AS page, 'x' AS device, 'x' AS location,"
    f" NOW() AS event_time FROM {numbers(4_000)}"
)


def test_two_columns_of_one_name_passed(with_mariadb: SetUp) -> None:
    query = own_query(with_mariadb, JOINED.format(more=", p.id, 'x@example.com' AS Email"))
    failed = [line for line in with_mariadb.lines(QUERY_FILE=query) if not line.ok]
    assert [line.name for line in failed] == ["query", "query"]
    for line, name in zip(failed, ("id", "email"), strict=True):
        has_words(line, f"more than one column '{name}'", f"TABLE.{name} AS other_{name}")
    # A column that nobody needs may be there twice.
    query = own_query(with_mariadb, JOINED.format(more=", 1 AS n, 2 AS n"))
    assert not failures(with_mariadb.lines(QUERY_FILE=query))


def test_a_missing_column_was_said_to_be_in_user_fields(on_mariadb_too: SetUp) -> None:
    query = own_query(
        on_mariadb_too,
        "SELECT id AS customer_id, email AS mail, first_name AS firstname, last_name, plan_type,"
        " candidate, 'x' AS page, 'x' AS device, 'x' AS location, NOW() AS event_time"
        " FROM customers",
    )
    failed = [line for line in on_mariadb_too.lines(QUERY_FILE=query) if not line.ok]
    words = {
        "'id'": "write customer_id AS id in the query",
        "'email'": "write mail AS email in the query",
        "'first_name'": "write firstname AS first_name in the query, or take it out of USER_FIELDS",
    }
    assert len(failed) == len(words)
    for line, (name, advice) in zip(failed, words.items(), strict=True):
        has_words(line, name)
        assert advice in line.text


def test_names_in_another_letter_case_were_missing(on_mariadb_too: SetUp) -> None:
    query = own_query(
        on_mariadb_too,
        "SELECT id AS ID, email AS EMAIL, first_name AS First_Name, last_name, plan_type,"
        " candidate, 'x' AS Page, 'x' AS device, 'x' AS location, '2026-01-13' AS Event_Time"
        " FROM customers",
    )
    assert not failures(on_mariadb_too.lines(QUERY_FILE=query))


def test_a_text_as_event_time_needs_the_zone_of_the_window(with_mariadb: SetUp) -> None:
    query = own_query(
        with_mariadb, JOINED.format(more="").replace("p.event_time F", "'x' AS event_time F")
    )
    line = with_mariadb.line("query", QUERY_FILE=query, DB_TIMEZONE="Europe/Berlin")
    assert not line.ok
    has_words(line, "%(window_start_utc)s or %(window_start_local)s", "Europe/Berlin")
    assert with_mariadb.line("query", QUERY_FILE=query).ok


def test_a_text_that_the_server_cut_passed(with_mariadb: SetUp) -> None:
    query = own_query(with_mariadb, JOINED.format(more=", 1 / 0 AS nothing"))
    line = with_mariadb.line("MySQL warnings", QUERY_FILE=query)
    assert line.is_warning
    has_words(line, "3 x 1365 (division by zero gave NULL)")


def test_more_rows_than_are_checked_are_read_for_the_warnings(
    with_mariadb: SetUp, mariadb: SourceDatabase
) -> None:
    fill_with_views(without_users(mariadb), 2_000, 6_000)
    query = own_query(with_mariadb, JOINED.format(more=", 1 / 0 AS nothing"))
    lines = with_mariadb.lines(QUERY_FILE=query, ENGAGEMENT_WINDOW_DAYS="36500")
    texts = {line.name: line.text for line in lines}
    assert "the first 1,000 rows" in texts["rows"]
    assert "1,024 x 1365" in texts["MySQL warnings"]


def test_json_that_would_be_sent_as_text_is_a_warning(
    with_mariadb: SetUp, mariadb: SourceDatabase
) -> None:
    mariadb.run_sql(
        """ALTER TABLE customers ADD prefs JSON; UPDATE customers SET prefs = '{"a": [1]}'"""
    )
    query = own_query(with_mariadb, JOINED.format(more=""))
    line = with_mariadb.line("JSON columns", QUERY_FILE=query, USER_FIELDS="settings=prefs")
    assert line.is_warning
    has_words(line, "write settings=prefs:json in USER_FIELDS")
    for fields in ("settings=prefs:json", "first_name"):
        lines = with_mariadb.lines(QUERY_FILE=query, USER_FIELDS=fields)
        assert "JSON columns" not in [line.name for line in lines]


def test_an_account_for_one_connection_failed(with_mariadb: SetUp, mariadb: SourceDatabase) -> None:
    mariadb.run_sql(
        "DROP USER IF EXISTS single@'%';"
        "CREATE USER single@'%' IDENTIFIED BY 'pass-word' WITH MAX_USER_CONNECTIONS 1;"
        f"GRANT SELECT ON {mariadb.database}.* TO single@'%'"
    )
    for zone in ("UTC", "Europe/Berlin"):
        lines = with_mariadb.lines(DB_USER="single", DB_PASSWORD="pass-word", DB_TIMEZONE=zone)
        assert not failures(lines), [str(line) for line in lines]


def test_an_unverified_connection_to_another_machine_is_a_warning(
    with_mariadb: SetUp,
) -> None:
    assert "database TLS" not in [line.name for line in with_mariadb.lines()]
    # It reaches this machine, but not as a loopback address.
    line = with_mariadb.line("database TLS", DB_HOST="0.0.0.0")  # noqa: S104
    assert line.is_warning
    has_words(line, "0.0.0.0 is not verified", "Set DB_SSL_CA")


def test_a_view_without_its_definer_was_a_wrong_password(
    with_mariadb: SetUp, mariadb: SourceDatabase
) -> None:
    mariadb.run_sql(
        "DROP USER IF EXISTS ghost@'%', reader@'%';"
        "CREATE USER ghost@'%'; GRANT ALL ON *.* TO ghost@'%';"
        "CREATE DEFINER = ghost@'%' VIEW members AS SELECT * FROM customers; DROP USER ghost@'%';"
        "CREATE USER reader@'%' IDENTIFIED BY 'pass-word';"
        f"GRANT SELECT ON {mariadb.database}.* TO reader@'%'"
    )
    query = own_query(with_mariadb, "SELECT * FROM members")
    line = with_mariadb.line("query", QUERY_FILE=query, DB_USER="reader", DB_PASSWORD="pass-word")
    assert not line.ok
    has_words(line, "refused a view or routine of the query, not the login", "definer")
    assert "DB_PASSWORD" not in line.text
