"""The documents agree with the program: commands, outputs, tables, messages, payloads, links."""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import requests

from commands.flags import FLAGS_OF_ACTION
from commands.init.dialogue import QUERY_FILE
from config.settings import DEFAULTS, NAMES, REQUIRED, SECRET_FILE_NAMES
from errors import ExitStatus
from iterable_client import IterableClient
from logger_config import FORMAT
from reporting.metrics import write_metrics
from sandbox.demo import FORGOTTEN, MALFORMED_FOR_ITERABLE
from sandbox.iterable_api import IterableSandbox
from sandbox.project import Project
from tests.conftest import SAMPLE_DATA, SCHEMA, SourceDatabase
from tests.support.documents import Document, agrees, codes, documents_in, masked
from tests.support.mariadb import PrivateMariaDB
from tests.support.messages import has_message
from tests.support.program import PATIENCE_SECONDS, Program, copy_of_project
from tests.support.program_files import PACKAGES, PROJECT_FOLDER, TOP_MODULES
from tests.support.quick_start import Reader
from tests.support.run_summaries import SUMMARY
from tools import document_tables

README, QUICKSTART = Document("README.md"), Document("QUICKSTART.md")
CONTRIBUTING = Document("CONTRIBUTING.md")
COMMAND_LINE = Document("docs/command-line.md")
SETTINGS = Document("docs/settings.md")
WHAT_IS_SENT = Document("docs/what-is-sent.md")
VERDICTS = Document("docs/responses-and-verdicts.md")
YOUR_OWN_TABLES = Document("docs/your-own-tables.md")
REFERENCE = documents_in("docs")
DOCUMENTS = documents_in(".", "docs", "deploy", "benchmarks", "tests")

API_KEY = "0123456789abcdef0123456789abcdef"
PASSWORD = "a password with blanks"
FLAG = r"(?<![\w-])--[a-z][a-z-]+"
PROGRAM = ".venv/bin/python main.py"
# Commands that are not typed by the reader: each has a test of its own.
OTHER_COMMANDS = {"scripts/demo", "scripts/test", "scripts/test --fast"}
OTHER_QUERIES = {"sql/latest_orders.sql", QUERY_FILE}  # which the reader writes
FLAGS_OF_OTHERS = {"--fast"}
SETTINGS_OF_OTHERS = {"REQUESTS_CA_BUNDLE", "HTTPS_PROXY", "NO_PROXY"}


@pytest.fixture(scope="module")
def reader_and_project(
    mariadb_server: PrivateMariaDB, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Reader, Project]]:
    """A reader who has followed the quick start line by line, and what Iterable then has."""
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
            reader.do(line)
        yield reader, api.project
    mariadb_server.run_sql("DROP DATABASE shop; DROP USER 'sync_user'@'%'")


@pytest.fixture
def reader(reader_and_project: tuple[Reader, Project]) -> Reader:
    return reader_and_project[0]


def assert_printed(shown: str, printed: str) -> None:
    assert agrees(shown, printed), f"the document shows\n\n{shown}\nand printed is\n\n{printed}"


# The quick start


@pytest.mark.slow
def test_every_step_of_the_quick_start_works(reader: Reader) -> None:
    statuses = {line: reader.endings[line].status for line in QUICKSTART.commands}
    assert statuses.pop(PROGRAM) == ExitStatus.SOME_FAILED  # as the document says
    assert len(statuses) == 7
    assert set(statuses.values()) == {0}, {e.output for e in reader.endings.values()}


@pytest.mark.slow
@pytest.mark.parametrize("flags", ["--version", "--check", "--dry-run --limit 1", ""])
def test_a_step_of_the_quick_start_prints_what_it_shows(reader: Reader, flags: str) -> None:
    line = f"{PROGRAM} {flags}".strip()
    assert_printed(QUICKSTART.shown_after(f"    {line}\n"), reader.endings[line].stdout)


def test_the_quick_start_has_five_numbered_steps_each_with_commands() -> None:
    steps = re.split(r"(?m)^## ", QUICKSTART.text)[1:6]
    assert [step.split(".")[0] for step in steps] == ["1", "2", "3", "4", "5"]
    assert all(re.search(r"(?m)^ {4}\S", step) for step in steps)


def test_the_output_files_of_the_quick_start_are_those_of_a_run(reader: Reader) -> None:
    named = {masked(name).strip() for row in QUICKSTART.table("file") for name in codes(row[0])}
    named = {name.replace("YYYYMMDD_HHMMSS", "*") for name in named}
    for pattern in named - {"integration_results_*.html"}:  # only with REPORT=true
        assert list(reader.folder.glob(pattern)), pattern


def test_after_the_quick_start_users_can_be_read_back_and_exported(
    reader_and_project: tuple[Reader, Project], tmp_path: Path
) -> None:
    reader, project = reader_and_project
    program = f"{reader.folder}/.venv/bin/python {reader.folder}/main.py"
    again = reader.run(PROGRAM)
    assert re.search(r"unchanged +21\n", again.stdout)  # as the last step says
    assert reader.run(f"{program} --verify 3").status == 0
    with closing(sqlite3.connect(reader.folder / "sync_state.sqlite3")) as state, state:
        state.execute("UPDATE delivered SET profile_at = profile_at - 3600")  # no wait any more
    changed = {"email": "li.xiaolong@example.com", "dataFields": {"candidate": "changed"}}
    project.update_user(changed)
    assert reader.run(f"{program} --verify 26").status == ExitStatus.SOME_FAILED
    project.update_user({**changed, "dataFields": {"candidate": "yes"}})
    assert reader.run(f"{program} --export rows.csv", cwd=tmp_path).status == 0
    rows = (tmp_path / "rows.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 27
    assert rows[8].startswith("8,anonymous@example.com,,,pro,,settings,,,,")  # NULL: an empty cell


# All other commands


@pytest.mark.slow
@pytest.mark.parametrize("document", [README, *REFERENCE], ids=str)
def test_every_command_of_a_document_works_after_the_quick_start(
    reader: Reader, document: Document
) -> None:
    for line in document.commands:
        if line not in OTHER_COMMANDS and not line.startswith("python main.py ["):
            ending = reader.do(line)
            if line == "cp .env test-project.env":
                settings = dict(re.findall(r"(?m)^(STATE_FILE|RESULTS_DIR)=(.*)$", document.text))
                reader.edit("test-project.env", settings)
            allowed = {0, ExitStatus.SOME_FAILED} if " main.py" in line else {0}
            assert ending.status in allowed, f"{line}\n{ending.output}"


@pytest.mark.parametrize("name", ["scripts/demo", "scripts/test"])
def test_the_scripts_can_be_started(name: str) -> None:
    path = PROJECT_FOLDER / name
    assert os.access(path, os.X_OK)
    assert subprocess.run(["/bin/sh", "-n", str(path)]).returncode == 0
    started = {"scripts/demo": "main.py --demo", "scripts/test": "-m pytest"}
    assert started[name] in path.read_text(encoding="utf-8")
    assert "--fast" in (PROJECT_FOLDER / "scripts/test").read_text(encoding="utf-8")


def test_commands_within_the_text_are_real() -> None:
    known = {
        *(
            f"{PROGRAM} --check",
            f"{PROGRAM} --init",  # asks: see tests/end_to_end/test_init.py
            "scripts/demo",
            "scripts/test --fast",
            "scripts/test tests/records",
        ),
        *("python -m benchmarks", "python -m tools.document_tables", "cp .env.example .env"),
    }
    for document in (README, QUICKSTART, CONTRIBUTING, *REFERENCE):
        pattern = r"(python3?|\S+/python|scripts/\w+|cp|pip) "
        named = {name for name in document.named_in_code if re.match(pattern, name)}
        assert named <= known, document
    command = [sys.executable, "-m", "benchmarks", "--help"]
    assert subprocess.run(command, cwd=PROJECT_FOLDER, capture_output=True).returncode == 0


# The demo


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """What the demo prints, and its log."""
    folder = tmp_path_factory.mktemp("demo")
    done = subprocess.run(
        [sys.executable, str(PROJECT_FOLDER / "main.py"), "--demo"],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "TMPDIR": str(folder)},
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 0
    (log,) = folder.rglob("*.log")
    return done.stdout, log.read_text(encoding="utf-8")


def test_the_demo_prints_what_the_readme_shows(demo: tuple[str, str]) -> None:
    assert_printed("...\n" + README.shown_after("<!-- output of scripts/demo -->"), demo[0])


def test_the_demo_logged_errors_of_its_own_database(demo: tuple[str, str]) -> None:
    assert "mysql_mimic" not in demo[1]


@pytest.mark.parametrize("document", [README, Document("docs/log.md")], ids=str)
def test_the_demo_logs_the_lines_that_a_document_shows(
    demo: tuple[str, str], document: Document
) -> None:
    logged = set(masked(demo[1]).splitlines())
    shown = masked(document.shown_after("<!-- log lines of the demo -->")).splitlines()
    assert len(shown) == 5
    assert set(shown) <= logged


def test_the_search_for_failed_attempts_finds_one_without_a_response(
    caplog: pytest.LogCaptureFixture,
) -> None:
    (line,) = [each for each in Document("docs/log.md").commands if each.startswith("grep -E")]
    pattern = shlex.split(line)[2]
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # not listening: connections are refused
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        client = IterableClient(API_KEY, url, max_attempts=2)
        client.call("users/update", b"{}", "user 7")
    formatter = logging.Formatter(FORMAT)
    lines = [
        formatter.format(record) for record in caplog.records if record.levelno > logging.DEBUG
    ]
    assert len(lines) == 2
    assert all(re.search(pattern, each) for each in lines)


# Flags, exit statuses, settings


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


def test_the_documented_flags_are_those_of_the_program(help_text: str) -> None:
    flags = set(re.findall(FLAG, help_text))
    listed = {flag for row in COMMAND_LINE.table("flag") for flag in re.findall(FLAG, row[0])}
    assert listed == flags
    (synopsis,) = [line for line in COMMAND_LINE.commands if line.startswith("python main.py [")]
    assert set(re.findall(FLAG, synopsis)) == flags - {"--help"}
    usage = help_text.split("\n\n")[0].removeprefix("usage: ").replace("[-h] ", "")
    usage = usage.replace("{per-user,bulk}", "per-user|bulk")
    assert "".join(synopsis.split()) == "python" + "".join(usage.split())


@pytest.mark.parametrize("document", [README, QUICKSTART, CONTRIBUTING, *REFERENCE], ids=str)
def test_every_flag_that_a_document_names_exists(help_text: str, document: Document) -> None:
    flags = set(re.findall(FLAG, help_text))
    assert set(re.findall(FLAG, document.text)) <= flags | FLAGS_OF_OTHERS


def test_the_documented_exit_statuses_are_those_of_the_program(help_text: str) -> None:
    table = COMMAND_LINE.table("exit status")
    listed = [int(number) for row in table for number in re.findall(r"\d+", row[0])]
    ours = [
        ExitStatus.OK,
        ExitStatus.STOPPED_EARLY,
        ExitStatus.BAD_SETTINGS,
        ExitStatus.SOME_FAILED,
        ExitStatus.BUG,
    ]
    assert listed == [*ours, 129, 130, 143]
    epilog = help_text.split("Exit status:")[1]
    assert [int(number) for number in re.findall(r"\d+", epilog)] == listed


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_setting_that_a_document_names_exists(document: Document) -> None:
    named = {re.split(r"[=:]", name)[0] for name in document.named_in_code}
    settings = {name for name in named if re.fullmatch(r"[A-Z]+(_[A-Z]+)+", name)}
    assert settings <= {*NAMES, *SECRET_FILE_NAMES, *SETTINGS_OF_OTHERS}


# Tables that follow from the code


@pytest.mark.parametrize("path", document_tables.DOCUMENTS, ids=lambda path: str(path.name))
def test_the_tables_are_those_that_the_program_makes(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert document_tables.with_tables(text) == text, "run python -m tools.document_tables"


def test_the_settings_table_has_every_setting_with_its_default() -> None:
    rows = re.findall(r"(?m)^\| `([A-Z_]+)` \| (.*?) \|", SETTINGS.text)
    defaults = {name: codes(default)[0] if codes(default) else default for name, default in rows}
    assert defaults == {**dict.fromkeys(REQUIRED, "required"), **DEFAULTS}


def test_the_documented_metrics_and_flags_of_actions_are_those_of_the_program(
    tmp_path: Path,
) -> None:
    write_metrics(tmp_path / "sync.prom", SUMMARY)
    text = (tmp_path / "sync.prom").read_text(encoding="utf-8")
    table = Document("docs/monitoring.md").table("metric")
    assert {codes(row[0])[0] for row in table} == set(re.findall(r"# HELP (\S+)", text))
    actions = {
        codes(row[0])[0].split()[0]: set(re.findall(FLAG, row[1]))
        for row in COMMAND_LINE.table("action")[1:]
    }
    assert actions == {name: set(flags.split()) for name, flags in FLAGS_OF_ACTION.items()}


# Payloads and verdicts


def payloads(printed: str) -> list[dict[str, Any]]:
    """Return the bodies that a dry run prints, without what differs from run to run."""
    lines = [line for line in masked(printed).splitlines() if re.match(r"(users|events)/", line)]
    return [json.loads(line.split(" ", 1)[1].replace(":TIME", ":0")) for line in lines]


@pytest.mark.parametrize("document", [README, WHAT_IS_SENT], ids=str)
def test_the_payloads_of_a_document_are_those_of_the_first_row(
    reader: Reader, document: Document
) -> None:
    shown = [json.loads(block) for block in document.blocks("json")[:2]]
    shown = [
        json.loads(masked(json.dumps(body, separators=(",", ":"))).replace(":TIME", ":0"))
        for body in shown
    ]
    assert shown == payloads(reader.endings[f"{PROGRAM} --dry-run --limit 1"].stdout)


def test_the_table_of_columns_has_every_field_that_is_sent(reader: Reader) -> None:
    table = WHAT_IS_SENT.table("column")
    sent = payloads(reader.endings[f"{PROGRAM} --dry-run --limit 1"].stdout)
    for place, body in enumerate(sent, 1):
        names = {name for row in table for name in codes(row[place])}
        fields = {name.removeprefix("dataFields.") for name in names if "dataFields." in name}
        assert fields == set(body["dataFields"])
        assert {*body} - {"dataFields"} <= names


def test_iterable_accepts_the_batches_that_a_document_shows() -> None:
    users, events = WHAT_IS_SENT.blocks("json")[2:]
    with IterableSandbox(api_key=API_KEY) as api:
        for endpoint, body in (("users/bulkUpdate", users), ("events/trackBulk", events)):
            response = requests.post(
                f"{api.url}/api/{endpoint}", data=body, headers={"Api-Key": API_KEY}, timeout=30
            )
            counts = {name: response.json()[name] for name in ("successCount", "failCount")}
            assert counts == {"successCount": 2, "failCount": 0}


def test_a_response_gets_the_verdict_that_the_table_says() -> None:
    client = IterableClient(API_KEY, "http://127.0.0.1:9")
    for statuses, body, verdict in VERDICTS.table("HTTP status"):
        code = codes(body)[0] if codes(body) else "AnotherCode"
        code = code.removeprefix('"code": ').strip('"')
        said = {"code": code, "msg": ""}
        content = b"<html></html>" if "not the API" in body else json.dumps(said).encode()
        for status in re.findall(r"\d+", statuses):
            response = requests.Response()
            response.status_code = int(status)
            response._content = content
            _, result = client._handle_response(response, "users/update")
            assert f"`{result['verdict']}`" == verdict, (status, body)


# Own tables


def test_the_example_of_own_tables_prints_what_it_shows(
    mariadb_server: PrivateMariaDB, tmp_path: Path
) -> None:
    tables, query = YOUR_OWN_TABLES.blocks("sql")
    settings, printed = YOUR_OWN_TABLES.blocks()
    mariadb_server.create_database("own_tables")
    mariadb_server.run_sql(tables, "own_tables")
    (tmp_path / "latest_orders.sql").write_text(query, encoding="utf-8")
    source = SourceDatabase(
        host=mariadb_server.host,
        port=mariadb_server.port,
        user=mariadb_server.user,
        password=mariadb_server.password,
        database="own_tables",
        run_sql=mariadb_server.run_sql,
    )
    with IterableSandbox() as api:
        own = dict(line.split("=", 1) for line in settings.splitlines())
        own["QUERY_FILE"] = str(tmp_path / own["QUERY_FILE"].removeprefix("sql/"))
        program = Program.between(tmp_path / "run", source, api, **own)
        ending = program.run("--dry-run", "--limit", "1")
    assert_printed(printed + "...\n", ending.stdout)
    mariadb_server.run_sql("DROP DATABASE own_tables")


def test_the_query_of_the_readme_returns_the_users_of_the_real_one(
    mariadb: SourceDatabase,
) -> None:
    mariadb.run_sql(SAMPLE_DATA.read_text(encoding="utf-8"))
    (query,) = README.blocks("sql")
    with mariadb.connection() as database:
        start = {"window_start": database.window_start_now()}
        shown = [row["email"] for row in database.execute_query(query, start)]
        real = [row["email"] for row in database.get_pro_users_recent_engagement()]
    assert sorted(map(str, shown)) == sorted(map(str, real))
    assert len(real) == 26


# Messages, the tree, packages


def quoted_messages() -> list[str]:
    """Return every message in the tables of problems."""
    tables = [document.table("what you see") for document in DOCUMENTS]
    return sorted({message for table in tables for row in table for message in codes(row[0])})


@pytest.mark.parametrize("message", quoted_messages())
def test_a_quoted_message_is_one_of_the_program(message: str) -> None:
    assert has_message(message)


def test_a_message_that_the_program_does_not_have_would_be_found() -> None:
    assert len(quoted_messages()) > 15
    assert not has_message("MySQL at ... cannot be reached")
    assert not has_message("4xx Client Error at users/update: Status 400")


def test_the_tree_names_every_module_and_folder_at_the_top() -> None:
    tree = CONTRIBUTING.shown_after("<!-- the tree -->")
    named = re.findall(r"(?m)^([\w.]+/?) ", tree)
    if not (PROJECT_FOLDER / ".git").exists():
        pytest.skip("only git knows which folders belong to the project")
    listing = subprocess.run(
        ["git", "ls-files"], cwd=PROJECT_FOLDER, capture_output=True, encoding="utf-8", check=True
    )
    paths = [Path(line) for line in listing.stdout.splitlines()]
    folders = {f"{path.parts[0]}/" for path in paths if len(path.parts) > 1}
    assert sorted(named) == sorted([*folders, *(f"{name}.py" for name in TOP_MODULES)])


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_path_that_a_document_names_exists(document: Document) -> None:
    folders = "|".join((*PACKAGES, "sandbox", "sql", "deploy", "tools", "tests", "docs", "scripts"))
    for name in document.named_in_code:
        if re.fullmatch(rf"(?:{folders})(?:/[\w.]+)*/?", name) and not name.isalpha():
            assert (PROJECT_FOLDER / name).exists() or name in OTHER_QUERIES, name


def test_the_documented_packages_are_those_that_are_required() -> None:
    lines = (PROJECT_FOLDER / "requirements.txt").read_text(encoding="utf-8").splitlines()
    required: Mapping[str, str] = dict(line.split("==") for line in lines if "==" in line)
    table = CONTRIBUTING.table("package")
    assert sorted(codes(row[0])[0] for row in table) == sorted(required)
    for row in table:
        assert re.sub("`.*`", "", row[0]).strip() in ("", required[codes(row[0])[0]])


# Links


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_link_leads_somewhere(document: Document) -> None:
    for link in document.links:
        name, _, anchor = link.partition("#")
        assert not link.startswith("http"), "only to what is in the project"
        path = (document.path.parent / name).resolve() if name else document.path
        assert path.exists(), link
        if anchor:
            assert anchor in Document(str(path.relative_to(PROJECT_FOLDER))).anchors, link


def test_every_page_of_the_reference_can_be_reached_from_the_readme() -> None:
    linked = {link.partition("#")[0] for link in README.links}
    assert {document.name for document in REFERENCE} <= linked
