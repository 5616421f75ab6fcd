"""The documents agree with the program: every command, output, flag, field, message and link."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import fields
from pathlib import Path

import pytest

import main
from commands import actions
from config.settings import NAMES
from records.outcomes import CallResult, Outcome, Verdict, row_entry
from reporting.results_file import RunSummary
from sandbox.demo import FORGOTTEN, MALFORMED_FOR_ITERABLE
from sandbox.iterable_api import IterableSandbox
from sandbox.project import Project
from tests.conftest import SAMPLE_DATA, SCHEMA
from tests.support.documents import Document, agrees, codes
from tests.support.mariadb import PrivateMariaDB
from tests.support.messages import says
from tests.support.program import PATIENCE_SECONDS, copy_of_project
from tests.support.program_files import PROJECT_FOLDER
from tests.support.quick_start import Reader

README, QUICKSTART = Document("README.md"), Document("QUICKSTART.md")
DOCUMENTS = [
    README,
    QUICKSTART,
    Document("THIRD_PARTY.md"),
    *(Document(f"{folder}/README.md") for folder in ("deploy", "benchmarks", "tests")),
]
API_KEY = "0123456789abcdef0123456789abcdef"
PASSWORD = "a password with blanks"
FLAG = r"(?<![\w-])--[a-z][a-z-]+"


@pytest.fixture(scope="module")
def reader_and_project(
    mariadb_server: PrivateMariaDB, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Reader, Project]]:
    """A reader who has done all of QUICKSTART, line by line, and what Iterable then has."""
    folder = copy_of_project(tmp_path_factory.mktemp("clone") / "project")
    for name in (".env.example", "requirements.txt", "constraints.txt"):
        shutil.copy(PROJECT_FOLDER / name, folder)
    mariadb_server.create_database("shop", SCHEMA, SAMPLE_DATA)
    mariadb_server.run_sql(
        f"CREATE USER 'sync_user'@'%' IDENTIFIED BY '{PASSWORD}';"
        "GRANT SELECT ON shop.* TO 'sync_user'@'%'"
    )
    with IterableSandbox(
        api_key=API_KEY, forgotten=[FORGOTTEN], invalid_emails=[MALFORMED_FOR_ITERABLE]
    ) as api:
        own = {
            "DB_HOST": mariadb_server.host,
            "DB_PORT": str(mariadb_server.port),
            "DB_USER": "sync_user",
            "DB_PASSWORD": f"'{PASSWORD}'",
            "DB_NAME": "shop",
            "ITERABLE_API_KEY": API_KEY,
            "ITERABLE_API_BASE_URL": api.url,
        }
        reader = Reader(folder, own)
        for line in QUICKSTART.commands:
            reader.endings[line] = reader.do(line)
        yield reader, api.project
    mariadb_server.run_sql("DROP DATABASE shop; DROP USER 'sync_user'@'%'")


@pytest.fixture
def reader(reader_and_project: tuple[Reader, Project]) -> Reader:
    return reader_and_project[0]


def has_shown(shown: str, printed: str) -> None:
    assert agrees(shown, printed), f"the document shows\n\n{shown}\nand printed is\n\n{printed}"


# QUICKSTART


@pytest.mark.slow
def test_every_step_of_the_quick_start_works(reader: Reader) -> None:
    statuses = {line: ending.status for line, ending in reader.endings.items()}
    run = ".venv/bin/python main.py"
    assert statuses.pop(run) == main.SOME_FAILED  # as the document shows
    assert len(statuses) == 7
    assert set(statuses.values()) == {0}, {e.output for e in reader.endings.values()}


@pytest.mark.slow
@pytest.mark.parametrize("flags", ["--version", "--check", "--dry-run --limit 1", ""])
def test_a_step_of_the_quick_start_prints_what_it_shows(reader: Reader, flags: str) -> None:
    line = f".venv/bin/python main.py {flags}".strip()
    has_shown(QUICKSTART.shown_after(f"    {line}\n"), reader.endings[line].stdout)


def test_the_quick_start_has_five_numbered_steps_each_with_commands() -> None:
    steps = re.split(r"(?m)^## ", QUICKSTART.text)[1:]
    assert [step.split(".")[0] for step in steps] == ["1", "2", "3", "4", "5"]
    assert all(re.search(r"(?m)^ {4}\S", step) for step in steps)


@pytest.mark.slow
def test_after_the_quick_start_what_is_there_can_be_read_back_and_exported(
    reader_and_project: tuple[Reader, Project], tmp_path: Path
) -> None:
    reader, project = reader_and_project
    program = f"{reader.folder}/.venv/bin/python {reader.folder}/main.py"
    again = reader.run(".venv/bin/python main.py")
    assert re.search(r"unchanged +21\n", again.stdout)  # as the last step says
    assert reader.run(f"{program} --verify 3").status == 0
    with closing(sqlite3.connect(reader.folder / "sync_state.sqlite3")) as state, state:
        state.execute("UPDATE delivered SET profile_at = profile_at - 3600")  # no wait any more
    project.update_user(
        {"email": "li.xiaolong@example.com", "dataFields": {"candidate": "changed"}}
    )
    assert reader.run(f"{program} --verify 26").status == actions.SOME_DIFFER == 3
    assert reader.run(f"{program} --export rows.csv", cwd=tmp_path).status == 0
    rows = (tmp_path / "rows.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 27
    assert rows[8].startswith("8,anonymous@example.com,,,pro,,settings,,,,")  # NULL: an empty cell


# README: what is run


@pytest.mark.slow
def test_the_demo_prints_what_the_readme_shows(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(PROJECT_FOLDER / "main.py"), "--demo"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "TMPDIR": str(tmp_path)},
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 0
    has_shown(README.shown_after("<!-- output of scripts/demo -->"), done.stdout)


def test_every_command_of_the_readme_is_known_here() -> None:
    kinds = [re.split(r"[ \[]", line)[0] for line in README.commands]
    assert kinds == ["scripts/demo", "scripts/test", "python", "*/10"]


@pytest.mark.parametrize("name", ["scripts/demo", "scripts/test"])
def test_the_scripts_can_be_started(name: str) -> None:
    path = PROJECT_FOLDER / name
    assert os.access(path, os.X_OK)
    assert subprocess.run(["/bin/sh", "-n", str(path)]).returncode == 0
    started = {"scripts/demo": "main.py --demo", "scripts/test": "-m pytest"}
    assert started[name] in path.read_text(encoding="utf-8")


@pytest.mark.slow
def test_commands_within_the_text_are_real() -> None:
    said = {
        name for name in README.named_in_code if re.match(r"(python3?|scripts/\w+|cp|pip) ", name)
    }
    assert said == {
        "python main.py --check",
        "python -m benchmarks",
        "python -m sandbox --help",
        "scripts/test --fast",
        "cp .env.example .env",
    }
    for module in ("benchmarks", "sandbox"):
        command = [sys.executable, "-m", module, "--help"]
        assert subprocess.run(command, cwd=PROJECT_FOLDER, capture_output=True).returncode == 0
    assert "--fast" in (PROJECT_FOLDER / "scripts/test").read_text(encoding="utf-8")


# README: flags, exit statuses, settings


@pytest.fixture(scope="module")
def help_text() -> str:
    done = subprocess.run(
        [sys.executable, str(PROJECT_FOLDER / "main.py"), "--help"],
        env={"PATH": os.environ["PATH"], "COLUMNS": "100", "NO_COLOR": "1"},
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0
    return done.stdout


def test_the_flags_of_the_readme_are_those_of_the_program(help_text: str) -> None:
    flags = set(re.findall(FLAG, help_text))
    assert {flag for row in README.table("flag") for flag in re.findall(FLAG, row[0])} == flags
    (synopsis,) = [line for line in README.commands if line.startswith("python main.py [")]
    assert set(re.findall(FLAG, synopsis)) == flags - {"--help"}
    usage = help_text.split("\n\n")[0].removeprefix("usage: ").replace("[-h] ", "")
    usage = usage.replace("{per-user,bulk}", "per-user|bulk")
    assert "".join(synopsis.split()) == "python" + "".join(usage.split())


def test_every_flag_that_a_document_names_exists(help_text: str) -> None:
    flags = set(re.findall(FLAG, help_text))
    others = {"--fast"}  # of scripts/test
    for document in (README, QUICKSTART):
        assert set(re.findall(FLAG, document.text)) <= flags | others


def test_the_exit_statuses_of_the_readme_are_those_of_the_program(help_text: str) -> None:
    listed = [int(n) for row in README.table("exit status") for n in re.findall(r"\d+", row[0])]
    ours = [main.OK, main.STOPPED_EARLY, main.BAD_SETTINGS, main.SOME_FAILED, main.BUG]
    assert listed == [*ours, 130, 143]
    epilog = help_text.split("Exit status:")[1]
    assert [int(n) for n in re.findall(r"\d+", epilog)] == listed


def test_every_setting_that_a_document_names_exists() -> None:
    of_others = {"REQUESTS_CA_BUNDLE", "HTTPS_PROXY", "NO_PROXY"}
    for document in DOCUMENTS:
        named = {re.split(r"[=:]", name)[0] for name in document.named_in_code}
        settings = {name for name in named if re.fullmatch(r"[A-Z]+(_[A-Z]+)+", name)}
        assert settings <= {*NAMES, *of_others}, document.path


# README: the results file, messages, rooms, packages


def test_the_fields_of_the_results_file_are_those_of_the_readme() -> None:
    table = README.table("field")
    assert [name for row in table for name in codes(row[0])] == [
        *(field.name for field in fields(RunSummary)),
        "records",
    ]
    call = CallResult(Verdict.DELIVERED, 200, "Success", "").to_json()
    row = row_entry(1, "a@example.com", Outcome.SUCCESSFUL, None, call, call)
    assert codes(table[-1][1]) == [*row, *call]


@pytest.mark.parametrize(
    "message", [message for row in README.table("what you see") for message in codes(row[0])]
)
def test_a_message_of_the_trouble_shooting_table_is_one_of_the_program(message: str) -> None:
    assert says(message)


def test_a_message_that_the_program_does_not_have_would_be_found() -> None:
    assert not says("MySQL at ... cannot be reached")
    assert not says("4xx Client Error at users/update: Status 400")


def test_the_packages_of_the_readme_are_those_that_are_required() -> None:
    lines = (PROJECT_FOLDER / "requirements.txt").read_text(encoding="utf-8").splitlines()
    required: Mapping[str, str] = dict(line.split("==") for line in lines if "==" in line)
    table = README.table("package")
    assert sorted(codes(row[0])[0] for row in table) == sorted(required)
    for row in table:
        assert re.sub("`.*`", "", row[0]).strip() in ("", required[codes(row[0])[0]])


# Links


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.path.name))
def test_every_link_leads_somewhere(document: Document) -> None:
    for link in document.links:
        name, _, anchor = link.partition("#")
        assert not link.startswith("http"), "only to what is in the project"
        path = (document.path.parent / name).resolve() if name else document.path
        assert path.exists(), link
        if anchor:
            assert anchor in Document(str(path.relative_to(PROJECT_FOLDER))).anchors, link
