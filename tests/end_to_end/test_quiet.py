"""`--quiet` under cron, the levels of the log file, and a run without a log file."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from sandbox.iterable_api import IterableSandbox
from tests.conftest import SourceDatabase
from tests.support.program import Ending, Program, copy_of_project
from tests.support.rows import wait_until
from tests.support.users import add_user, add_users, email_of

UNREACHABLE = {"DB_HOST": "127.0.0.1", "DB_PORT": "1"}  # is tried for 6 s
WRONG_USER = {"DB_USER": "nobody"}
WORKS_AGAIN = "All is well again: a run reached its end again.\n"


@pytest.fixture
def program(embedded: SourceDatabase, iterable: IterableSandbox, tmp_path: Path) -> Program:
    """The program between the embedded MySQL with thirty users, and the sandbox."""
    add_users(embedded.run_sql, range(1, 31))
    return Program.between(tmp_path / "run", embedded, iterable, MAX_ATTEMPTS="1")


def let_an_hour_pass(program: Program) -> None:
    """Make what was told one hour older."""
    with closing(sqlite3.connect(program.state_file)) as state, state:
        (news,) = state.execute("SELECT value FROM remembered WHERE name = 'news'").fetchone()
        told = json.loads(news)
        told["endings"] = {reason: at - 3_600 for reason, at in told["endings"].items()}
        state.execute("UPDATE remembered SET value = ? WHERE name = 'news'", (json.dumps(told),))


def test_quiet_tells_once_an_hour_what_ended_the_runs_and_once_that_they_work_again(
    program: Program,
) -> None:
    first = program.run("--quiet", settings=WRONG_USER)
    assert (first.status, first.stdout) == (1, "")
    (line,) = first.stderr.splitlines()
    assert "nobody" in line
    assert program.run("--quiet", settings=WRONG_USER) == Ending(1, "", "")
    assert program.log.count(f" - main - ERROR - {line}") == 2  # the file has both
    let_an_hour_pass(program)
    assert program.run("--quiet", settings=WRONG_USER) == first
    assert program.run("--quiet") == Ending(0, "", WORKS_AGAIN)
    assert program.run("--quiet") == Ending(0, "", "")


def test_quiet_tells_another_reason_at_once(program: Program) -> None:
    assert "nobody" in program.run("--quiet", settings=WRONG_USER).stderr
    other = program.run("--quiet", settings={"DB_USER": "somebody"})
    assert other.status == 1
    assert "somebody" in other.stderr


def test_quiet_always_tells_problems_of_the_settings(program: Program, tmp_path: Path) -> None:
    query = tmp_path / "own.sql"
    query.write_text("SELECT id, email FROM customers", encoding="utf-8")
    for settings in ({"DB_PORT": "none"}, {"QUERY_FILE": str(query)}):
        endings = [program.run("--quiet", settings=settings) for _ in range(2)]
        assert endings[0] == endings[1]
        assert endings[0].status == 2
        assert endings[0].stderr


def test_quiet_tells_a_warning_when_the_last_run_did_not_have_it(program: Program) -> None:
    program.env_file.write_text("DB_NAME=" + program.settings["DB_NAME"], encoding="utf-8")
    empty = {"DB_NAME": ""}
    first = program.run("--quiet", settings=empty)
    assert (first.status, first.stdout) == (0, "")
    assert first.stderr.startswith("Warning: The environment variable DB_NAME is empty")
    assert len(first.stderr.splitlines()) == 1
    assert program.run("--quiet", settings=empty) == Ending(0, "", "")
    assert program.run("--quiet") == Ending(0, "", "")
    assert program.run("--quiet", settings=empty) == first


def test_quiet_tells_always_that_the_state_file_cannot_be_used(program: Program) -> None:
    program.state_file.write_bytes(b"something else" * 100)
    endings = [program.run("--quiet") for _ in range(2)]
    assert endings[0] == endings[1]
    assert endings[0].status == 1
    assert "is not a state file of this program" in endings[0].stderr


def test_quiet_tells_a_bug_once_and_logs_each_traceback(program: Program, tmp_path: Path) -> None:
    program.project = copy_of_project(tmp_path / "project")
    broken = program.project / "reporting" / "summary.py"
    broken.write_text(broken.read_text() + "\n\ndef summarize(**_): return 1 // 0\n")
    assert "This is a bug" in program.run("--quiet").stderr
    assert program.run("--quiet") == Ending(70, "", "")
    assert program.log.count("CRITICAL - A bug ended the run") == 2


def test_quiet_tells_failures_once_and_once_that_they_are_resolved(
    program: Program, embedded: SourceDatabase
) -> None:
    add_user(embedded.run_sql, 40, None)
    with IterableSandbox(invalid_emails=[email_of(7), email_of(8)]) as refusing:
        address: dict[str, str | None] = {"ITERABLE_API_BASE_URL": refusing.url}
        first = program.run("--quiet", settings=address)
        assert first == Ending(
            3,
            "",
            "New failures by reason:\n"
            "          2 x users/update: InvalidEmailAddressError (for example user 7)\n"
            "          1 x row: no e-mail address (for example user 40)\n"
            f"Each of these rows is in {program.results_files[-1]}\n",
        )
        assert program.run("--quiet", settings=address) == Ending(3, "", "")
        embedded.run_sql("UPDATE customers SET email = 'seven@example.com' WHERE id = 7")
        assert program.run("--quiet", settings=address) == Ending(
            3, "", "1 failure is resolved; 2 rows still fail.\n"
        )
        embedded.run_sql("UPDATE customers SET email = 'forty@example.com' WHERE id = 40")
        embedded.run_sql("UPDATE customers SET email = 'eight@example.com' WHERE id = 8")
        assert program.run("--quiet", settings=address) == Ending(
            0, "", "All is well again: 2 failures are resolved.\n"
        )
        assert program.run("--quiet", settings=address) == Ending(0, "", "")


def test_quiet_tells_what_a_run_met_that_was_killed(
    program: Program, embedded: SourceDatabase, iterable: IterableSandbox
) -> None:
    add_user(embedded.run_sql, 40, None)
    iterable.set_faults([{"fault": "status", "status": 400, "email": email_of(1)}])
    running = program.start("--quiet", settings={"USERS_UPDATE_RPS": "5"})
    # More than a second later its failure is recorded.
    assert wait_until(lambda: len(iterable.calls) >= 16)
    assert running.killed() == Ending(137, "", "")
    told = program.run("--quiet")
    assert told.status == 3
    assert told.stderr.splitlines()[:-1] == [
        "New failures by reason:",
        "          1 x users/update: BadParams (for example user 1)",
        "          1 x row: no e-mail address (for example user 40)",
        "          1 x events/track: BadParams (for example user 1)",
    ]
    assert program.run("--quiet") == Ending(3, "", "")


# A run that is not quiet


def test_the_console_shows_three_failures_of_a_kind_and_the_file_all(
    program: Program, iterable: IterableSandbox
) -> None:
    iterable.set_faults([{"fault": "status", "status": 400}])
    ending = program.run()
    assert ending.status == 3
    failed = [line for line in ending.stderr.splitlines() if "4xx Client Error" in line]
    assert len(failed) == 6  # three from each endpoint
    (counted,) = [line for line in ending.stderr.splitlines() if "ERROR - users/update" in line]
    assert ": 27 more in the last " in counted
    assert counted.endswith(f" (each one is in {program.log_file})")
    assert program.log.count("4xx Client Error from users/update") == 30


# Where the log goes


def test_a_log_file_from_info_up_is_small(program: Program) -> None:
    assert program.run(settings={"LOG_FILE_LEVEL": "INFO"}).status == 0
    levels = [line.split(" - ")[2] for line in program.log.splitlines()]
    assert set(levels) == {"INFO"}
    assert email_of(1) not in program.log


def test_without_a_log_file_standard_error_gets_everything_and_no_file_is_made(
    program: Program, iterable: IterableSandbox
) -> None:
    iterable.set_faults([{"fault": "status", "status": 400}])
    no_file = {"LOG_FILE": "-"}
    ending = program.run(settings=no_file)
    assert ending.status == 3
    assert ending.stderr.count("4xx Client Error from users/update") == 30
    assert " - sync.run - INFO - Run completed_with_failures: 30 total users" in ending.stderr
    assert " - DEBUG - " not in ending.stderr
    assert " - DEBUG - " in program.run("--verbose", "--full-refresh", settings=no_file).stderr
    assert not program.log_file.exists()
    assert not Path(program.project / "-").exists()
    aborted = program.run(settings={**no_file, **UNREACHABLE})
    assert aborted.stderr.splitlines()[-1].startswith("Cannot reach MySQL")


def test_without_a_log_file_a_bug_prints_its_traceback(program: Program, tmp_path: Path) -> None:
    program.project = copy_of_project(tmp_path / "project")
    broken = program.project / "reporting" / "summary.py"
    broken.write_text(broken.read_text() + "\n\ndef summarize(**_): return 1 // 0\n")
    for flags in ((), ("--quiet",)):
        ending = program.run(*flags, settings={"LOG_FILE": "-"})
        assert ending.status == 70
        assert "CRITICAL - A bug ended the run\n  Traceback" in ending.stderr
        assert "This is a bug (ZeroDivisionError): the traceback is above. What" in ending.stderr
    assert program.run("--quiet", settings={"LOG_FILE": "-"}) == Ending(70, "", "")


def test_check_says_that_there_is_no_log_file(program: Program) -> None:
    ending = program.run("--check", settings={"LOG_FILE": "-", "LOG_LEVEL": "WARNING"})
    assert ending.status == 0, ending.output
    (line,) = [line for line in ending.stdout.splitlines() if line.split()[1] == "log"]
    assert line.endswith("no file (LOG_FILE=-): standard error gets WARNING and up")
