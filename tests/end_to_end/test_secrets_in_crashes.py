"""Redaction in crashes: exceptions that hold every secret, raised anywhere in the program.

The bugs are written into a copy of the program. Each has the marked key, password and e-mail in its
text, its arguments and its cause. All output is searched for them, the traceback in the log, too.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.iterable_api import IterableSandbox
from sandbox.mysql_server import MySQLSandbox
from tests.conftest import SourceDatabase
from tests.end_to_end.test_secrets import (
    EMAIL,
    KEY,
    PASSWORD,
    mysql,
    places_of,
    program_of,
    written,
)
from tests.support.program import Program, copy_of_project

__all__ = ["mysql"]  # a fixture

# What every bug raises: the secrets in a text, in a container, in bytes, in an address, and in an
# exception that holds the row it could not decode.
BUG = f"""

def _bug(*arguments, **options):
    import json, os
    from urllib.parse import quote
    key, password, email = os.environ["ITERABLE_API_KEY"], os.environ["DB_PASSWORD"], {EMAIL!r}
    secrets = [key, password, email, password.encode(), quote(password), {{"email": email}}]
    try:
        try:
            (password + email).encode("utf-16").decode("ascii")
        except UnicodeDecodeError as error:
            raise KeyError(password, email, error.object) from error
    except KeyError as error:
        raise RuntimeError(f"{{secrets}} {{json.dumps(str(secrets))}} {{email}}") from error
"""
ENDS_THE_RUN = {
    "in the thread that reads ahead": ("db_connection", "RowStream.__next__ = _bug"),
    "while a row is mapped": ("records.mapping", "RowMapping.to_record = _bug"),
    "in the thread of a call": ("iterable_client", "IterableClient.call = _bug"),
    "while results are recorded": ("state.outbox", "Outbox.record = _bug"),
    "while the summary is made": ("reporting.summary", "RunTally.failures = _bug"),
    "in a signal's handler": (
        "sync.dispatcher",
        "import signal\nsignal.signal(signal.SIGALRM, _bug)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.001)",
    ),
}
IS_NOTICED = {
    "in an unrelated thread": (
        "sync.dispatcher",
        "class _Failing(threading.Thread):\n    run = _bug\n"
        "def _run(self, former=Dispatcher.run):\n"
        "    _Failing().start()\n    former(self)\nDispatcher.run = _run",
    ),
    "in a destructor": (
        "state.outbox",
        "class _Failing:\n    __del__ = _bug\n"
        "def _settled(self, *bounds, former=Outbox.settled):\n    _Failing()\n"
        "    return former(self, *bounds)\nOutbox.settled = _settled",
    ),
    "in the report": ("reporting.html_report", "to_page = _bug"),
}


def check_crash(
    mysql: MySQLSandbox, folder: Path, module: str, code: str, log_payloads: str, mode: str
) -> tuple[int, str]:
    """Run with a bug, search what was written, and return the exit status and the log."""
    with IterableSandbox() as iterable:
        program = program_of(folder / "run", mysql, iterable)
        program.project = copy_of_project(folder / "project")
        with (program.project / f"{module.replace('.', '/')}.py").open("a") as file:
            file.write(f"{BUG}\n{code}\n")
        ending = program.run(
            "--verbose",
            settings={
                "LOG_PAYLOADS": log_payloads,
                "SYNC_MODE": mode,
                "REPORT": "true",
                "METRICS_FILE": str(program.folder / "sync.prom"),
            },
        )
    assert "Traceback" not in ending.output
    found = written(program.folder, ending)
    for secret in (KEY, PASSWORD):
        assert places_of(secret, found) == []
    if log_payloads == "false":
        where = {Path(name).name.partition(".")[2] for name in places_of(EMAIL, found)}
        # Rows that wait in the state file are personal data, until the next run.
        assert where <= {"json", "sqlite3", "sqlite3-wal", "sqlite3-shm"}
    else:
        assert EMAIL in program.log
    assert "[database password]" in program.log
    assert "[api key]" in program.log
    return ending.status, program.log


@pytest.mark.parametrize(("module", "code"), ENDS_THE_RUN.values(), ids=ENDS_THE_RUN)
@pytest.mark.parametrize(("mode", "log_payloads"), [("per-user", "false"), ("bulk", "true")])
def test_a_bug_that_ends_the_run_writes_no_secret(
    mysql: MySQLSandbox, tmp_path: Path, module: str, code: str, log_payloads: str, mode: str
) -> None:
    status, log = check_crash(mysql, tmp_path, module, code, log_payloads, mode)
    assert status == 70
    assert "RuntimeError" in log


@pytest.mark.parametrize(("module", "code"), IS_NOTICED.values(), ids=IS_NOTICED)
@pytest.mark.parametrize("log_payloads", ["false", "true"])
def test_a_bug_that_the_run_survives_writes_no_secret(
    mysql: MySQLSandbox, tmp_path: Path, module: str, code: str, log_payloads: str
) -> None:
    """Python printed the traceback, with the secrets, on the console."""
    status, log = check_crash(mysql, tmp_path, module, code, log_payloads, "per-user")
    assert status == 0
    assert "RuntimeError" in log


def test_a_password_quoted_in_a_database_error_is_redacted(
    mariadb: SourceDatabase, iterable: IterableSandbox, tmp_path: Path
) -> None:
    """It was in the results file and in the history of the state file."""
    program = Program.between(tmp_path / "run", mariadb, iterable)
    query = tmp_path / "query.sql"
    query.write_text(f"SELECT FROM '{mariadb.password}'", encoding="utf-8")
    program.settings["QUERY_FILE"] = str(query)
    ending = program.run("--verbose", "--json")
    assert ending.status == 1
    assert "[database password]" in program.results["reason"]
    found = written(program.folder, ending)
    found["history and check"] = "".join(
        program.run(flag).output for flag in ("--history", "--check")
    ).encode()
    assert places_of(mariadb.password, found) == []
