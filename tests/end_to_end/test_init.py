"""`--init` on a pseudo-terminal: from nothing to the first dry run."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.settings import read_environment
from errors import ExitStatus
from sandbox.iterable_api import IterableSandbox
from tests.support.dialogue import CTRL_C, CTRL_D, Dialogue
from tests.support.mariadb import PrivateMariaDB
from tests.support.program import API_KEY, Ending, copy_of_project

PASSWORD = "p#ss 'w\"rd' $x\\ü"
# Table and column names of a German shop; nothing in `elektropost` says that it is an e-mail.
SHOP = """
CREATE TABLE kunden (
    kundennr INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    mailadresse VARCHAR(254) NULL,
    vorname VARCHAR(100) NULL,
    `Straße und Nr.` VARCHAR(100) NULL,
    newsletter TINYINT(1) NOT NULL DEFAULT 0,
    passwort_hash CHAR(60) NULL,
    foto BLOB NULL
);
CREATE TABLE bestellungen (
    bestellnr INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    kundennr INT UNSIGNED NOT NULL,
    summe DECIMAL(10, 2) NOT NULL,
    `bestellt am` DATETIME NOT NULL,
    KEY bestellungen_neu (`bestellt am`, kundennr)
);
CREATE TABLE `versand``log 100%(window_start)s` (nr INT PRIMARY KEY, geaendert TIMESTAMP);
INSERT INTO kunden (mailadresse, vorname, `Straße und Nr.`, newsletter, passwort_hash) VALUES
    ('ann@example.com', 'Ann', 'Am Tor 1', 1, 'geheim'),
    ('bob@example.com', 'Bob', NULL, 0, 'geheim');
INSERT INTO bestellungen (kundennr, summe, `bestellt am`) VALUES
    (1, 10.50, UTC_TIMESTAMP() - INTERVAL 3 HOUR),
    (1, 20.00, UTC_TIMESTAMP() - INTERVAL 1 HOUR),
    (2, 30.00, UTC_TIMESTAMP() - INTERVAL 2 HOUR);
"""


class Shop:
    """A copy of the project, and the database of a user who may only read it."""

    def __init__(self, server: PrivateMariaDB, project: Path) -> None:
        self.server = server
        self.project = project
        self.env_file = project / ".env"
        self.query_file = project / "sql" / "first_query.sql"
        self.login = [
            ("Host", ""),
            ("Port", str(server.port)),
            ("User", "leser"),
            ("Password", PASSWORD),
        ]

    def files(self) -> set[str]:
        found = self.project.rglob("*")
        return {path.name for path in found if path.is_file() and path.suffix != ".pyc"}


@pytest.fixture
def shop(mariadb_server: PrivateMariaDB, tmp_path: Path) -> Iterator[Shop]:
    quoted = PASSWORD.replace("\\", "\\\\").replace("'", "\\'")
    mariadb_server.create_database("laden")
    mariadb_server.run_sql(SHOP, "laden")
    mariadb_server.run_sql(
        f"CREATE USER leser@'%' IDENTIFIED BY '{quoted}'; GRANT SELECT ON laden.* TO leser@'%'"
    )
    yield Shop(mariadb_server, copy_of_project(tmp_path / "project"))
    mariadb_server.run_sql("DROP DATABASE laden; DROP USER leser@'%'")


def run(project: Path, *flags: str, **environment: str) -> Ending:
    """Run `main.py` without a terminal, with the `.env` of this project."""
    done = subprocess.run(
        [sys.executable, str(project / "main.py"), *flags],
        env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        cwd=project,
    )
    return Ending(done.returncode, done.stdout, done.stderr)


def test_from_nothing_to_the_first_dry_run_on_other_tables(
    shop: Shop, iterable: IterableSandbox
) -> None:
    address = {"ITERABLE_API_BASE_URL": iterable.url}
    with Dialogue(shop.project, "--init", environment=address) as dialogue:
        dialogue.answer_all(
            [
                *(*shop.login, ("Database [laden]", "")),
                *(("Table of users [kunden]", ""), ("e-mail address [mailadresse]", "")),
                *(("user's id [kundennr]", ""), ("profiles only [bestellungen]", "")),
                *(("refers to kunden [kundennr]", ""), ("time [bestellt am]", "")),
                *(("stored times [UTC]", ""), ("days [7]", "30")),
                *(("in Iterable [bestellungen]", "order"), ("API key", API_KEY)),
                *(("Data centre of the project [US]", ""), ("identifies a user", "")),
            ]
        )
        status = dialogue.status()
        shown = dialogue.text
    print(shown)
    print(shop.env_file.read_text())
    print(shop.query_file.read_text())
    assert status == ExitStatus.OK, shown
    assert "python main.py --dry-run --limit 5" in shown
    assert PASSWORD not in shown
    assert API_KEY not in shown
    for path in (shop.env_file, shop.query_file):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    ending = run(shop.project, "--dry-run", "--limit", "5", **address)
    print(ending.output)
    assert ending.status == 0, ending.output
    assert iterable.project.users == {}
