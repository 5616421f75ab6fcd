"""Runs that end early: the exit status and the message for the operator."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.iterable_api import IterableSandbox
from tests.conftest import SourceDatabase
from tests.support.mariadb import free_port
from tests.support.program import Ending, Program, copy_of_project, counts_of
from tests.support.users import add_users, check_project, email_of, sent_calls


@pytest.fixture
def program(embedded: SourceDatabase, iterable: IterableSandbox, tmp_path: Path) -> Program:
    """The program between the embedded MySQL with ten users, and the sandbox."""
    add_users(embedded.run_sql, range(1, 11))
    return Program.between(tmp_path / "run", embedded, iterable)


def check_aborted(program: Program, ending: Ending, message: str) -> None:
    """Check exit status 1 and the message on stderr, in the results file and in the log."""
    assert ending.status == 1, ending.output
    last_line = ending.stderr.splitlines()[-1]
    assert message in last_line
    assert " - " not in last_line.split(":")[0]
    assert "Traceback" not in ending.output
    assert program.results["status"] == "aborted"
    assert program.results["reason"] == last_line
    assert program.log.splitlines()[-1].endswith(f" - ERROR - {last_line}")


def test_a_wrong_database_password_ends_the_run_without_a_retry(
    program: Program, iterable: IterableSandbox
) -> None:
    ending = program.run(settings={"DB_PASSWORD": "wrong"})
    check_aborted(program, ending, "check DB_USER and DB_PASSWORD")
    assert program.results["total_users"] == 0
    assert iterable.calls == []


def test_an_unknown_database_ends_the_run_without_a_retry(
    mariadb: SourceDatabase, iterable: IterableSandbox, tmp_path: Path
) -> None:
    program = Program.between(tmp_path, mariadb, iterable, DB_NAME="elsewhere")
    check_aborted(program, program.run(), "There is no database elsewhere")


def test_an_unreachable_database_is_tried_three_times(
    program: Program, iterable: IterableSandbox
) -> None:
    nowhere = free_port()
    ending = program.run(settings={"DB_PORT": str(nowhere)})
    check_aborted(program, ending, f"Cannot reach MySQL at 127.0.0.1:{nowhere}")
    assert ending.stderr.count("Reading again") == 2
    assert iterable.calls == []


def test_a_query_that_lacks_a_column_exits_with_2_and_names_the_column(
    program: Program, iterable: IterableSandbox
) -> None:
    query = program.folder / "query.sql"
    query.write_text("SELECT id, email, first_name FROM customers")
    ending = program.run(settings={"QUERY_FILE": str(query), "EVENT_FIELDS": "page"})
    assert ending.status == 2
    for name in ("event_time", "page", "last_name", "plan_type", "candidate"):
        assert f"returns no column '{name}': add it to the query" in ending.stderr
    assert iterable.calls == []


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELEKT 1", "MySQL refused the query"),
        ("SELECT * FROM no_such_table", "MySQL refused the query"),
        ("DELETE FROM page_views", "the session is read only"),
    ],
)
def test_a_query_that_mysql_refuses_ends_the_run(
    mariadb: SourceDatabase, iterable: IterableSandbox, tmp_path: Path, query: str, message: str
) -> None:
    (tmp_path / "query.sql").write_text(query)
    program = Program.between(tmp_path, mariadb, iterable, QUERY_FILE=str(tmp_path / "query.sql"))
    check_aborted(program, program.run(), message)


def test_a_refused_api_key_costs_one_update_and_the_next_run_sends_the_rest(
    program: Program, iterable: IterableSandbox
) -> None:
    iterable.set_faults([{"fault": "status", "status": 401}])
    check_aborted(program, program.run(), "Iterable refused the API key (HTTP 401 BadApiKey)")
    assert len(sent_calls(iterable)) == 1
    assert counts_of(program.results) == {"total_failures": 1, "not_attempted": 9}
    assert program.results["records"][0]["users_update"]["verdict"] == "refused"
    assert "ERROR - 4xx Client Error from users/update: Status 401" in program.log
    iterable.set_faults([])
    assert program.run().status == 0
    check_project(iterable.project, range(1, 11))


def test_an_api_key_refused_during_the_run_keeps_what_was_delivered(
    program: Program, iterable: IterableSandbox
) -> None:
    iterable.set_faults([{"fault": "status", "status": 403, "email": email_of(5)}])
    slowly = {"USERS_UPDATE_RPS": "4"}
    check_aborted(program, program.run(settings=slowly), "refused the API key (HTTP 403")
    counts = counts_of(program.results)
    assert counts["total_failures"] == 1
    assert counts["successful"] >= 4
    assert counts["not_attempted"] >= 1
    assert counts["successful"] == len(iterable.project.events)


def test_a_redirect_is_not_followed_and_ends_the_run(
    program: Program, iterable: IterableSandbox
) -> None:
    iterable.set_faults([{"fault": "redirect", "status": 302}])
    check_aborted(program, program.run(), "does not lead to Iterable's API (HTTP 302)")
    assert iterable.state()["redirects_followed"] == 0
    assert len(sent_calls(iterable)) == 1


def test_a_404_of_a_wrong_base_url_is_not_taken_for_an_unknown_user(
    program: Program, iterable: IterableSandbox
) -> None:
    ending = program.run(settings={"ITERABLE_API_BASE_URL": f"{iterable.url}/v2"})
    check_aborted(program, ending, "does not lead to Iterable's API (HTTP 404)")


@pytest.mark.parametrize("count", [10, 100])
def test_an_outage_longer_than_the_patience_ends_the_run(
    program: Program, iterable: IterableSandbox, embedded: SourceDatabase, count: int
) -> None:
    """A cron job with a handful of rows ended with status 3 and pinged success."""
    add_users(embedded.run_sql, range(11, count + 1))
    iterable.set_faults([{"fault": "status", "status": 503}])
    ending = program.run(settings={"MAX_ATTEMPTS": "2", "OUTAGE_PATIENCE_SECONDS": "4"})
    check_aborted(program, ending, "Iterable has not answered any request to users/update for 4 s")
    assert counts_of(program.results) == {"not_attempted": count}
    assert program.results["api_calls"] == len(iterable.calls) <= 4
    iterable.set_faults([])
    assert program.run().status == 0
    check_project(iterable.project, range(1, count + 1))


def test_a_bug_prints_one_line_and_logs_its_traceback(program: Program, tmp_path: Path) -> None:
    program.project = copy_of_project(tmp_path / "project")
    broken = program.project / "reporting" / "summary.py"
    broken.write_text(broken.read_text() + "\n\ndef summarize(**_): return 1 // 0\n")
    ending = program.run()
    assert ending.status == 70
    assert "Traceback" not in ending.output
    assert ending.stderr.splitlines()[-1] == (
        f"This is a bug (ZeroDivisionError): the traceback is in {program.log_file}. "
        "What was delivered is remembered."
    )
    assert "CRITICAL - A bug ended the run" in program.log
    assert "ZeroDivisionError" in program.log


def test_a_bug_before_the_log_is_open_prints_one_line_too(program: Program, tmp_path: Path) -> None:
    program.project = copy_of_project(tmp_path / "project")
    history = program.project / "commands" / "history.py"
    history.write_text(history.read_text() + "\n\ndef history_lines(*_): return 1 // 0\n")
    ending = program.run("--history")
    assert (ending.status, ending.stdout) == (70, "")
    (line,) = ending.stderr.splitlines()
    assert line.startswith("This is a bug (ZeroDivisionError): there is no log yet.")


def test_a_renamed_plan_ends_the_run_with_exit_status_1_and_no_call(
    embedded: SourceDatabase, iterable: IterableSandbox, tmp_path: Path
) -> None:
    add_users(embedded.run_sql, range(1, 101))
    program = Program.between(tmp_path / "run", embedded, iterable)
    for _ in range(3):
        assert program.run("--mode", "bulk").status == 0
    calls_before = len(iterable.calls)
    embedded.run_sql("UPDATE customers SET plan_type = 'professional'")
    check_aborted(
        program,
        program.run(),
        "The query returned 0 rows; the last 3 runs had 100. If that is right, run once with "
        "--ignore-guards.",
    )
    assert program.run("--ignore-guards").status == 0
    assert len(iterable.calls) == calls_before


def test_a_field_that_refuses_every_value_ends_the_run_with_exit_status_2(
    embedded: SourceDatabase, tmp_path: Path
) -> None:
    add_users(embedded.run_sql, range(1, 4))
    with IterableSandbox(field_types={"plan_type": "long"}) as iterable:
        program = Program.between(tmp_path / "run", embedded, iterable)
        ending = program.run()
        assert ending.status == 2, ending.output
        last_line = ending.stderr.splitlines()[-1]
        assert last_line.startswith("plan_type is long in Iterable, but every value to send is ")
        assert sent_calls(iterable) == []
        assert program.run("--ignore-guards").status == 3
        assert len(sent_calls(iterable)) == 6
