"""Odd ids, columns, error codes, settings and flags are plain text in every output."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.iterable_api import IterableSandbox
from tests.conftest import SourceDatabase
from tests.end_to_end.test_injection import FORGED, NAMES, UNPRINTABLE, check_plain
from tests.support.program import Ending, Program
from tests.support.recording_servers import Website, website
from tests.support.users import add_user, add_users

ODD = f"\x1b[31m<b>odd</b>\n{FORGED}\r\u202e\u200f=1+1"
ODD_FOLDER = ODD.replace("/", "")
# An odd id, which is a text, and an odd column that is not used.
QUERY = """
SELECT CONCAT('{odd}', c.id) AS id, c.email, c.first_name, c.last_name, c.plan_type, c.candidate,
    v.page, v.device, v.browser, v.location, v.event_time, 1 AS `{odd}`
FROM customers c JOIN page_views v ON v.user_id = c.id WHERE v.event_time >= %(window_start)s
""".replace("{odd}", ODD)


@pytest.fixture
def health() -> Iterator[Website]:
    with website() as site:
        yield site


@pytest.fixture
def program(
    mariadb: SourceDatabase, iterable: IterableSandbox, health: Website, tmp_path: Path
) -> Program:
    """The program with odd ids and columns and a health check, in a folder with an odd name."""
    add_users(mariadb.run_sql, [1, 2])
    add_user(mariadb.run_sql, 3, f"no e-mail {NAMES['terminal']}")
    folder = tmp_path / ODD_FOLDER
    program = Program.between(folder, mariadb, iterable, HEALTHCHECK_URL=health.url, REPORT="true")
    query = tmp_path / "query.sql"
    query.write_text(QUERY, encoding="utf-8")
    program.settings |= {"QUERY_FILE": str(query), "METRICS_FILE": str(folder / "sync.prom")}
    return program


def check_everything(program: Program, health: Website, *endings: Ending) -> None:
    for ending in endings:
        check_plain(ending.output)
    check_plain(program.log)
    for request in health.requests:
        check_plain(request.body.decode())
    for page in program.folder.glob("*.html"):
        assert not UNPRINTABLE.search(page.read_text("utf-8"))
        assert "<b>odd" not in page.read_text("utf-8")
    check_plain((program.folder / "sync.prom").read_text("utf-8"))
    for results in program.results_files:
        assert not {chr(code) for code in (*range(10), *range(11, 32))} & set(results.read_text())


def test_odd_ids_columns_codes_and_folders_are_plain_text_everywhere(
    program: Program, iterable: IterableSandbox, health: Website
) -> None:
    iterable.set_faults([{"fault": "status", "status": 400, "code": ODD, "msg": ODD, "times": 1}])
    endings = [program.run("--verbose", "--json"), program.run("--verbose")]
    assert [ending.status for ending in endings] == [3, 3], endings
    endings += [program.run("--verify", "9"), program.run("--history"), program.run("--check")]
    assert [request.line.split()[1] for request in health.requests] == ["/start", "/"] * 2
    assert b"odd" in health.requests[1].body
    check_everything(program, health, *endings)
    table = program.folder / "rows.csv"
    assert program.run("--export", str(table)).status == 0
    head = table.read_text("utf-8").partition("user1@")[0]
    assert json.loads(endings[0].stdout)["total_users"] == 3
    assert "\x1b[31m" in head  # a file to be read by programs; no cell of it is a formula


def test_an_aborted_run_pings_the_health_check_with_one_line(
    program: Program, iterable: IterableSandbox, health: Website
) -> None:
    iterable.set_faults([{"fault": "status", "status": 401, "code": ODD}])
    ending = program.run()
    assert ending.status == 1
    assert health.requests[-1].line.split()[1] == "/fail"
    check_everything(program, health, ending, program.run("--history"))


@pytest.mark.parametrize(
    ("settings", "status"),
    [
        ({"DB_NAME": ODD}, 1),
        ({"DB_USER": ODD}, 1),
        *(({name: ODD}, 2) for name in ("DB_PORT", "SYNC_MODE")),
        *(({name: ODD}, 2) for name in ("LOG_FILE", "QUERY_FILE")),
        *(({name: ODD}, 2) for name in ("USER_FIELDS", "DB_TIMEZONE")),
        ({"DB_HOST": ODD}, 1),
        ({"USER_FIELDS": f"x={ODD}"}, 2),
    ],
)
def test_odd_settings_are_plain_text_in_the_messages_about_them(
    program: Program, health: Website, settings: dict[str, str], status: int
) -> None:
    ending = program.run(settings={"HEALTHCHECK_URL": health.url, **settings})
    check_plain(ending.output)
    assert ending.status == status, ending.output
    check_plain(program.run("--check", settings=settings).output)
    for request in health.requests:
        check_plain(request.body.decode())


def test_an_odd_flag_is_plain_text_in_the_message_about_it(program: Program) -> None:
    ending = program.run(f"--{ODD}")
    assert ending.status == 2
    check_plain(ending.output)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_without_unicode_gets_escapes(
    mariadb: SourceDatabase, iterable: IterableSandbox, tmp_path: Path, encoding: str
) -> None:
    """The run ended with exit status 70 after everything had been delivered."""
    add_user(mariadb.run_sql, 1, "user1@example.com", first_name="小龙 Ω")
    program = Program.between(tmp_path / "Ω", mariadb, iterable, PYTHONIOENCODING=encoding)
    ending = program.run("--dry-run", "--limit", "5")
    assert ending.status == 0, ending.output
    assert r'"first_name":"\u5c0f\u9f99 \u03a9"' in ending.stdout
    ending = program.run()
    assert ending.status == 0, ending.output
    assert r"/\u03a9/integration_results_" in ending.stdout
