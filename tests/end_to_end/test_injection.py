"""Names that contain markup, commands, escape sequences or line ends are plain text everywhere."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from sandbox.iterable_api import IterableSandbox
from tests.conftest import SourceDatabase
from tests.support.program import Program
from tests.support.users import add_user, add_users

# All that a terminal or a reader obeys instead of showing, but for the end of a line.
UNPRINTABLE = re.compile(
    r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    r"\U000e0000-\U000e007f]"
)
FORGED = "2026-01-13 14:30:45 - main - INFO - all is well"
NAMES = {
    "markup": "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>",
    "terminal": "\x1b[2J\x1b]0;owned\x07\x1b[31mred\x9b31m",
    "log line": f"Ann\r\n{FORGED}\n{FORGED}\u2028{FORGED}",
    "formula": "=HYPERLINK(\"http://example.com\")+cmd|' /C calc'!A0",
    "direction": "ann\u202egpj.exe\u2066",
    "format": "%s %(message)s {0} {self.__class__} ${HOME} $(id) `id`",
    "sql": "Robert'); DROP TABLE customers;--",
    "nothing": "\u200b\ufeff",
    "unseen": "\u200fgpj\u061c.\U000e0041exe\u2060",
}


@pytest.fixture
def program(mariadb: SourceDatabase, iterable: IterableSandbox, tmp_path: Path) -> Program:
    """The program; every user has an odd name, and the rejection of each profile quotes it."""
    for number, name in enumerate(NAMES.values(), start=1):
        add_user(mariadb.run_sql, number, f"odd{number}@example.com", first_name=name)
    return Program.between(tmp_path, mariadb, iterable)


def check_plain(text: str) -> None:
    """Check that no cursor movement, change of text direction or forged line is in the text."""
    assert not UNPRINTABLE.search(text)
    assert not any(line.startswith(FORGED) for line in text.splitlines())


def test_odd_names_reach_iterable_unchanged(program: Program, iterable: IterableSandbox) -> None:
    ending = program.run("--verbose")
    assert ending.status == 0, ending.output
    users = iterable.project.users
    sent = {email: user.data_fields["first_name"] for email, user in users.items()}
    assert sent == {f"odd{n}@example.com": name for n, name in enumerate(NAMES.values(), start=1)}
    check_plain(program.log)
    check_plain(ending.output)


def test_odd_names_in_responses_are_plain_text_in_log_console_and_results(
    program: Program, iterable: IterableSandbox
) -> None:
    iterable.set_faults(
        [
            {"fault": "status", "status": 400, "code": name, "msg": f"{name} is bad", "times": 1}
            for name in ["of users/getFields", *NAMES.values()]
        ]
    )
    ending = program.run("--verbose", settings={"USERS_UPDATE_RPS": "50"})
    assert ending.status == 3, ending.output
    check_plain(program.log)
    check_plain(ending.output)
    content = program.results_files[-1].read_text(encoding="utf-8")
    records = json.loads(content)["records"]
    calls = [row[call] for row in records for call in ("users_update", "events_track")]
    codes = {call["response"]["code"] for call in calls if not call["success"]}
    assert codes == {name[:100] for name in NAMES.values()}
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", content)


def test_an_odd_error_code_that_ends_the_run_is_plain_text_in_console_log_and_history(
    program: Program, iterable: IterableSandbox
) -> None:
    iterable.set_faults([{"fault": "status", "status": 401, "code": "".join(NAMES.values())}])
    ending = program.run()
    assert ending.status == 1
    assert ending.stderr.splitlines()[-1].startswith("Iterable refused the API key")
    check_plain(ending.output)
    check_plain(program.log)
    check_plain(program.run("--history").output)


def test_a_dry_run_prints_odd_names_as_text(program: Program) -> None:
    ending = program.run("--dry-run", "--limit", "100")
    assert ending.status == 0
    check_plain(ending.output)
    printed = [line for line in ending.stdout.splitlines() if line.startswith("users/update ")]
    assert len(printed) == len(NAMES)


def test_odd_names_are_plain_text_in_the_html_report_and_the_csv_export(
    program: Program, iterable: IterableSandbox
) -> None:
    iterable.set_faults(
        [
            {"fault": "status", "status": 400, "code": name, "times": 1}
            for name in ["of users/getFields", *NAMES.values()]
        ]
    )
    slowly = {"REPORT": "true", "USERS_UPDATE_RPS": "50"}
    assert program.run(settings=slowly).status == 3
    (page,) = program.folder.glob("*.html")
    html = page.read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)" in html
    assert "<script>alert(1)" not in html
    assert "<img src=x" not in html
    assert not UNPRINTABLE.search(html)
    table = program.folder / "rows.csv"
    assert program.run("--export", str(table)).status == 0
    with table.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [str(n) for n in range(1, len(NAMES) + 1)]
    assert rows[0]["first_name"].endswith(NAMES["markup"])
    assert not any(re.match(r"[=+@\t\r-]", cell) for row in rows for cell in row.values())


def test_an_odd_page_or_location_gives_an_event_id_of_allowed_characters(
    embedded: SourceDatabase, iterable: IterableSandbox, tmp_path: Path
) -> None:
    add_users(embedded.run_sql, [1])
    embedded.run_sql("UPDATE page_views SET location = '../../etc/passwd\n<b>', browser = 'Ω'")
    program = Program.between(tmp_path, embedded, iterable)
    assert program.run().status == 0
    (event_id,) = iterable.project.events
    assert re.fullmatch(r"[A-Za-z0-9-]{1,64}", event_id)
