"""`--init` on a pseudo-terminal: from nothing to the first dry run."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from config.settings import SETTINGS, read_environment
from errors import ExitStatus
from sandbox.iterable_api import IterableSandbox
from tests.support.dialogue import CTRL_C, CTRL_D, Dialogue
from tests.support.private_server import PrivateServer
from tests.support.program import API_KEY, Ending, copy_of_project
from tests.support.shop import (
    EVENTS,
    ITERABLE,
    PASSWORD,
    TABLES,
    Answers,
    login_to,
    shop_database,
)


class Shop:
    """A copy of the project, and a user who may only read the database `laden`."""

    def __init__(self, server: PrivateServer, iterable: IterableSandbox, project: Path) -> None:
        self.server = server
        self.project = project
        self.env_file = project / ".env"
        self.query_file = project / "sql" / "first_query.sql"
        # The sandbox, whatever is answered: a variable wins over the file.
        self.environment = {"ITERABLE_API_BASE_URL": iterable.url}
        self._before = self._files()

    def _files(self) -> set[Path]:
        found = self.project.rglob("*")
        return {path for path in found if path.is_file() and path.suffix != ".pyc"}

    @property
    def new_files(self) -> set[str]:
        return {str(path.relative_to(self.project)) for path in self._files() - self._before}

    @property
    def login(self) -> Answers:
        return login_to(self.server)

    def init(self, *flags: str) -> Dialogue:
        return Dialogue(self.project, "--init", *flags, environment=self.environment)

    def run(self, *flags: str) -> Ending:
        """Run `main.py` without a terminal."""
        done = subprocess.run(
            [sys.executable, str(self.project / "main.py"), *flags],
            env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **self.environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            cwd=self.project,
        )
        return Ending(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def shop(real_server: PrivateServer, iterable: IterableSandbox, tmp_path: Path) -> Iterator[Shop]:
    with shop_database(real_server):
        yield Shop(real_server, iterable, copy_of_project(tmp_path / "project"))


@pytest.fixture(autouse=True)
def _no_settings_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for declared in SETTINGS:
        monkeypatch.delenv(declared.name, raising=False)


def settings_in(path: Path) -> Mapping[str, str]:
    return dict(read_environment(path))


def test_from_nothing_to_the_first_dry_run_on_other_tables(
    shop: Shop, iterable: IterableSandbox
) -> None:
    with shop.init() as dialogue:
        dialogue.answer_all([*shop.login, *TABLES, *EVENTS, *ITERABLE])
        assert dialogue.status() == ExitStatus.OK, dialogue.text
        shown = dialogue.text
    assert f"Written: {shop.env_file} and {shop.query_file}" in shown
    assert "FAILED" not in shown
    assert shown.endswith("\n    python main.py --dry-run --limit 5\n")
    assert PASSWORD not in shown
    assert API_KEY not in shown
    for path in (shop.env_file, shop.query_file):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    ending = shop.run("--dry-run", "--limit", "5")
    assert ending.status == 0, ending.output
    ann, order_of_ann, bob, _event = ending.stdout.splitlines()[:4]
    assert ann.endswith('{"vorname":"Ann","Straße_und_Nr":"Am Tor 1","newsletter":true}}')
    assert '"eventName":"order","id":"order-id-2",' in order_of_ann
    assert '"dataFields":{"summe":20.0,' in order_of_ann  # the latest one
    assert bob.endswith('{"vorname":"Bob","newsletter":false}}')
    assert "geheim" not in ending.output
    assert iterable.project.users == {}


def test_names_that_are_not_recognized_are_typed(shop: Shop) -> None:
    shop.server.run_sql(
        "CREATE TABLE leute (ziffer INT, elektropost VARCHAR(99), rufname VARCHAR(9), KEY"
        " (ziffer)); CREATE TABLE taten (wer INT, wann TIMESTAMP, was VARCHAR(9));"
        "INSERT INTO leute VALUES (1, 'ann@example.com', 'Ann');"
        "INSERT INTO taten VALUES (1, NOW(), 'Kauf');",
        "laden",
    )
    answers = [
        *(("Database", "1"), ("Table of users", "LEUTE"), ("e-mail address:", "mail")),
        *(("number of the list nor a name", ""), ("needs an answer", "elektropost")),
        *(("user's id:", "ziffer"), ("profiles only", "taten"), ("refers to leute:", "wer")),
        *(("time [wann]", ""), ("how many days [7]", "no"), ("must be a number", "90")),
        ("in Iterable [taten]", ""),
    ]
    with shop.init() as dialogue:
        dialogue.answer_all([*shop.login, *answers, *ITERABLE])
        assert dialogue.status() == ExitStatus.OK, dialogue.text
    assert shop.run("--dry-run", "--limit", "5").status == 0
    query = shop.query_file.read_text(encoding="utf-8")
    assert "users.`elektropost` AS email" in query
    assert "JOIN `leute` AS users ON users.`ziffer` = ranked_events.key_1" in query
    settings = settings_in(shop.env_file)
    assert settings["ENGAGEMENT_WINDOW_DAYS"] == "90"
    assert settings["USER_FIELDS"] == "rufname"
    assert settings["EVENT_FIELDS"] == "was"
    assert "DB_TIMEZONE" not in settings  # a TIMESTAMP needs none


def test_without_events_only_profiles_are_sent(shop: Shop) -> None:
    answers = [*TABLES[:4], ("to send profiles only [bestellungen]", "none")]
    with shop.init() as dialogue:
        dialogue.answer_all([*shop.login, *answers, *ITERABLE])
        assert dialogue.status() == ExitStatus.OK, dialogue.text
    ending = shop.run("--dry-run", "--limit", "5")
    assert ending.status == 0, ending.output
    assert "2 profiles would be sent" in ending.stdout
    query = shop.query_file.read_text(encoding="utf-8")
    assert query.endswith("FROM `kunden` AS users\nORDER BY users.`kundennr`\n")
    assert "window_start" not in query
    assert settings_in(shop.env_file)["EVENT_FIELDS"] == ""


def test_a_project_in_the_eu_is_checked_as_one_that_names_users_by_user_id(shop: Shop) -> None:
    centre = [("API key", API_KEY), ("Data centre", "2"), ("in the project [userid]", "")]
    env_file = shop.project / "eu shop.env"
    with shop.init("--env-file", env_file.name) as dialogue:
        dialogue.answer_all([*shop.login, *TABLES, *EVENTS, *centre])
        assert dialogue.status() == ExitStatus.BAD_SETTINGS  # the sandbox is e-mail-based
        shown = dialogue.text
    assert "FAILED   project type" in shown
    assert shown.endswith("\n    python main.py --env-file 'eu shop.env' --check\n")
    settings = settings_in(env_file)
    assert settings["ITERABLE_API_BASE_URL"] == "https://api.eu.iterable.com"
    assert settings["IDENTIFY_BY"] == "userid"
    assert not shop.env_file.exists()


def test_a_wrong_password_is_asked_for_again(shop: Shop) -> None:
    port = str(shop.server.port)
    with shop.init() as dialogue:
        dialogue.answer_all([("Host", ""), ("Port", "0"), ("must be between", port)])
        dialogue.answer_all([("User", "leser"), ("Password", "hunter2-wrong")])
        dialogue.wait_for("refused the user leser")
        dialogue.answer_all([("Host", ""), (f"Port [{port}]", ""), ("User [leser]", "")])
        dialogue.answer("Password", PASSWORD)
        dialogue.wait_for("Database [laden]")
        assert "hunter2" not in dialogue.text


def test_after_three_wrong_passwords_nothing_is_written(shop: Shop) -> None:
    with shop.init() as dialogue:
        for _attempt in range(3):
            dialogue.answer_all([*shop.login[:3], ("Password", "wrong")])
        assert dialogue.status() == ExitStatus.BAD_SETTINGS
        assert dialogue.text.endswith("No login in 3 attempts. Nothing was written.\n")
    assert shop.new_files == set()


def test_a_socket_can_be_named_in_place_of_a_host(shop: Shop) -> None:
    socket = shop.server.unix_socket
    login = [("Host, or the path of a socket", socket), *shop.login[2:]]
    with shop.init() as dialogue:
        dialogue.answer_all([*login, *TABLES, *EVENTS, *ITERABLE])
        assert dialogue.status() == ExitStatus.OK, dialogue.text
    assert settings_in(shop.env_file)["DB_UNIX_SOCKET"] == socket


@pytest.mark.parametrize("answered", [2, 3, 5, 15])
@pytest.mark.parametrize(("key", "status"), [(CTRL_C, 130), (CTRL_D, ExitStatus.BAD_SETTINGS)])
def test_ctrl_c_and_the_end_of_input_leave_nothing_behind(
    shop: Shop, key: str, status: int, answered: int
) -> None:
    questions = [*shop.login, *TABLES, *EVENTS, *ITERABLE]
    with shop.init() as dialogue:
        dialogue.answer_all(questions[:answered])
        dialogue.wait_for(questions[answered][0])
        dialogue.wait_for(": ")
        dialogue.type(key)
        assert dialogue.status(key) == status
        assert dialogue.text.endswith("Nothing was written.\n")
        assert dialogue.has_echo
    assert shop.new_files == set()


@pytest.mark.parametrize("name", [".env", "sql/first_query.sql"])
def test_an_existing_file_is_not_overwritten_and_nothing_is_asked(shop: Shop, name: str) -> None:
    path = shop.project / name
    path.symlink_to(shop.project / "leads-nowhere")
    with shop.init() as dialogue:
        assert dialogue.status() == ExitStatus.BAD_SETTINGS
        (line,) = dialogue.text.splitlines()
    assert line.startswith(f"{path} exists already, and --init overwrites nothing: ")
    path.unlink()
    assert shop.new_files == set()


def test_without_a_terminal_it_says_what_it_would_have_asked(shop: Shop) -> None:
    ending = shop.run("--init")
    assert (ending.status, ending.stdout) == (ExitStatus.BAD_SETTINGS, "")
    asked, advice = ending.stderr.splitlines()
    for word in ("host", "port", "user", "password", "database", "key", "data centre", "e-mail"):
        assert word in asked
    assert advice.startswith("Nothing was written. Without a terminal, copy .env.example to .env")
    assert shop.new_files == set()
