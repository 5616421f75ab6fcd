"""Runs on unusual databases: collations, zero dates, SQL modes and sizes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.iterable_api import IterableSandbox
from tests.conftest import SourceDatabase, fresh_database
from tests.support.mariadb import PrivateMariaDB
from tests.support.runs import Runs, counts_of, results_of
from tests.support.users import add_users, check_project, email_of

FEW = range(1, 6)
EVERY_COLUMN = (
    "SELECT c.*, v.page, v.device, v.browser, v.location, v.event_time FROM customers AS c"
    " JOIN page_views AS v ON v.user_id = c.id WHERE c.plan_type = 'pro' ORDER BY c.id"
)


@pytest.fixture
def runs(mariadb: SourceDatabase, iterable: IterableSandbox, tmp_path: Path) -> Runs:
    """Runs between a database with five users and the sandbox."""
    add_users(mariadb.run_sql, FEW)
    return Runs.between(tmp_path, mariadb, iterable)


def fields_of(iterable: IterableSandbox, number: int) -> dict[str, Any]:
    fields: dict[str, Any] = iterable.project.users[email_of(number)].data_fields
    return fields


# Collations


@pytest.mark.parametrize(
    "collation",
    [
        *("latin1_swedish_ci", "latin1_bin", "latin1_general_cs", "utf8mb3_general_ci"),
        *("utf8mb4_bin", "utf8mb4_unicode_ci", "ucs2_general_ci", "utf16_bin"),
    ],
)
def test_tables_of_any_collation_give_the_same_users_and_texts(
    runs: Runs, mariadb: SourceDatabase, iterable: IterableSandbox, collation: str
) -> None:
    character_set = collation.split("_")[0]
    mariadb.run_sql(
        f"ALTER DATABASE CHARACTER SET {character_set} COLLATE {collation};"
        "ALTER TABLE page_views DROP FOREIGN KEY IF EXISTS page_views_ibfk_1;"
        f"ALTER TABLE customers CONVERT TO CHARACTER SET {character_set} COLLATE {collation};"
        f"ALTER TABLE page_views CONVERT TO CHARACTER SET {character_set} COLLATE {collation}"
    )
    assert counts_of(runs.run()) == {"successful": 5}
    check_project(iterable.project, FEW)
    mariadb.run_sql(
        "SET NAMES utf8mb4; UPDATE customers SET first_name = 'Amélie Ñ', plan_type = 'PRO'"
        " WHERE id = 3; UPDATE page_views SET page = 'PRICING', location = 'Zürich'"
        " WHERE user_id = 3"
    )
    iterable.reset()
    if not collation.endswith("_ci"):  # see the comment in the query file
        assert counts_of(runs.run()) == {"unchanged": 4}
        mariadb.run_sql(
            "UPDATE customers SET plan_type = 'pro';"
            " UPDATE page_views SET page = 'pricing' WHERE user_id = 3"
        )
    assert counts_of(runs.run()) == {"successful": 1, "unchanged": 4}
    assert fields_of(iterable, 3)["first_name"] == "Amélie Ñ"
    (event,) = iterable.project.events.values()
    assert event.data_fields["location"] == "Zürich"


def test_one_table_of_each_collation_can_be_joined(
    runs: Runs, mariadb: SourceDatabase, iterable: IterableSandbox
) -> None:
    mariadb.run_sql(
        "ALTER TABLE customers CONVERT TO CHARACTER SET latin1 COLLATE latin1_german1_ci;"
        "ALTER TABLE page_views CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
    )
    assert counts_of(runs.run()) == {"successful": 5}
    check_project(iterable.project, FEW)


@pytest.fixture(scope="module")
def latin1_server(
    tmp_path_factory: pytest.TempPathFactory, mariadb_server: object
) -> Iterator[PrivateMariaDB]:
    """A MariaDB that forces latin1 on its clients; skipped where MariaDB is not installed."""
    assert mariadb_server
    options = [
        "--skip-character-set-client-handshake",
        "--character-set-server=latin1",
        "--collation-server=latin1_swedish_ci",
        "--init-connect=SET NAMES latin1",
    ]
    with PrivateMariaDB(tmp_path_factory.mktemp("latin1"), options) as server:
        yield server


@pytest.mark.slow
def test_a_server_that_forces_latin1_on_connections_gives_correct_texts(
    latin1_server: PrivateMariaDB, iterable: IterableSandbox, tmp_path: Path
) -> None:
    with fresh_database(latin1_server) as source:
        add_users(source.run_sql, FEW)
        source.run_sql(
            "SET NAMES utf8mb4; UPDATE customers SET last_name = '小龙 🚀 é' WHERE id = 2;"
            "CREATE OR REPLACE USER reader@'%' IDENTIFIED BY 'pass-word';"
            f"GRANT SELECT ON {source.database}.* TO reader@'%'"  # administrators skip init_connect
        )
        runs = Runs.between(tmp_path, source, iterable)
        runs.settings |= {"DB_USER": "reader", "DB_PASSWORD": "pass-word"}
        assert counts_of(runs.run()) == {"successful": 5}
    assert fields_of(iterable, 2)["last_name"] == "小龙 🚀 é"


# Zero dates and SQL modes

ZERO_DATES = """
    SET sql_mode = 'ALLOW_INVALID_DATES';
    ALTER TABLE page_views MODIFY event_time DATETIME NOT NULL;
    ALTER TABLE customers ADD born DATE, ADD renewed DATETIME;
    UPDATE customers SET born = '1980-02-29', renewed = '2026-01-01 10:00:00';
    UPDATE customers SET born = '0000-00-00', renewed = '0000-00-00' WHERE id = 2;
    UPDATE customers SET born = '1980-00-00', renewed = '2026-02-31 10:00:00' WHERE id = 3;
"""


def test_a_zero_date_in_a_mapped_column_is_left_out_like_null(
    runs: Runs, mariadb: SourceDatabase, iterable: IterableSandbox
) -> None:
    mariadb.run_sql(ZERO_DATES)
    runs.with_query(EVERY_COLUMN)
    runs.settings["USER_FIELDS"] = "first_name,born,renewed"
    assert counts_of(runs.run()) == {"successful": 5}
    assert fields_of(iterable, 1)["born"] == "1980-02-29"
    assert fields_of(iterable, 1)["renewed"] == "2026-01-01 10:00:00 +00:00"
    for number in (2, 3):
        assert set(fields_of(iterable, number)) == {"first_name", "recent_page_view"}
    runs.settings["SEND_NULLS"] = "true"
    iterable.reset()
    assert counts_of(runs.run()) == {"successful": 2, "unchanged": 3}
    runs.run(full_refresh=True)
    assert fields_of(iterable, 1)["born"] == "1980-02-29"
    update, _refreshed = [
        call.body
        for call in iterable.calls
        if (call.endpoint, call.email) == ("users/update", email_of(2))
    ]
    assert (update["dataFields"]["born"], update["dataFields"]["renewed"]) == (None, None)


@pytest.mark.parametrize(
    "zero", ["0000-00-00 00:00:00", "2026-02-31 10:00:00", "2026-00-10 00:00:00"]
)
def test_an_impossible_event_time_makes_only_its_own_row_invalid(
    runs: Runs, mariadb: SourceDatabase, zero: str
) -> None:
    mariadb.run_sql(ZERO_DATES)
    runs.with_query(EVERY_COLUMN)
    mariadb.run_sql(
        "SET sql_mode = 'ALLOW_INVALID_DATES';"
        f" UPDATE page_views SET event_time = '{zero}' WHERE user_id = 4"
    )
    report = runs.run()
    assert counts_of(report) == {"successful": 4, "invalid": 1}
    (bad,) = [row for row in results_of(report)["records"] if row["outcome"] == "invalid"]
    assert (bad["user_id"], bad["reason"]) == (4, "no event time")


@pytest.mark.parametrize(
    "mode",
    [
        *("ANSI_QUOTES", "NO_BACKSLASH_ESCAPES", "ONLY_FULL_GROUP_BY", "TRADITIONAL", "ANSI"),
        *("STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE", "PAD_CHAR_TO_FULL_LENGTH"),
        *("ORACLE", ""),
    ],
)
def test_the_query_gives_the_same_rows_in_every_sql_mode(
    runs: Runs,
    mariadb_server: PrivateMariaDB,
    mariadb: SourceDatabase,
    iterable: IterableSandbox,
    mode: str,
    use_pure: bool,
) -> None:
    mariadb_server.run_sql(f"SET GLOBAL sql_mode = '{mode}'")
    try:
        assert counts_of(runs.run()) == {"successful": 5}
        with mariadb.connection(use_pure=use_pure) as database:
            # Parameters are quoted in the way of this mode.
            for text in ("it's", 'say "x"', "back\\slash\\", "%s 100%"):
                assert database.execute_query("SELECT %(a)s AS a", {"a": text}) == [{"a": text}]
    finally:
        mariadb_server.run_sql("SET GLOBAL sql_mode = DEFAULT")
    check_project(iterable.project, FEW)


# Sizes


@pytest.mark.parametrize("mode", ["per-user", "bulk"])
def test_zero_rows_one_row_and_a_row_of_one_megabyte_can_be_sent(
    runs: Runs, mariadb: SourceDatabase, mode: str
) -> None:
    runs.settings["SYNC_MODE"] = mode
    mariadb.run_sql("ALTER TABLE customers ADD notes LONGTEXT")
    mariadb.run_sql("UPDATE customers SET plan_type = 'free'")
    runs.with_query(EVERY_COLUMN)
    report = runs.run()
    assert (report.summary.status, counts_of(report)) == ("completed", {})
    mariadb.run_sql(
        "UPDATE customers SET plan_type = 'pro', notes = REPEAT('é', 500000) WHERE id = 1"
    )
    assert counts_of(runs.run()) == {"successful": 1}  # a column that is not mapped may be any size
    runs.settings["USER_FIELDS"] = "first_name,last_name,plan_type,candidate,notes"
    mariadb.run_sql("UPDATE customers SET plan_type = 'pro'")
    report = runs.run()
    assert counts_of(report) == {"successful": 4, "invalid": 1}
    assert (
        results_of(report)["records"][0]["reason"]
        == "field 'notes' is longer than 32,000 characters"
    )


def test_a_row_of_45_megabytes_is_read_completely(mariadb: SourceDatabase, use_pure: bool) -> None:
    of_15_megabytes = "REPEAT('é', 7500000)"
    with mariadb.connection(use_pure=use_pure) as database:
        (row,) = database.execute_query(
            f"SELECT 1 AS first, {of_15_megabytes} AS b, {of_15_megabytes} AS c,"
            f" {of_15_megabytes} AS d, 2 AS last"
        )
    # More than the server's max_allowed_packet: three packets of the protocol.
    assert [len(str(value)) for value in row.values()] == [1, *3 * [7_500_000], 1]
    assert (row["first"], row["last"]) == (1, 2)
