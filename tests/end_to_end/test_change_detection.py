"""Change detection and resuming: what was delivered is not sent again."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest

from sandbox.iterable_api import IterableSandbox
from tests.conftest import SourceDatabase
from tests.support.program import Program, counts_of, wait_until
from tests.support.users import add_users, check_project, email_of, sent_calls


@pytest.fixture
def program(embedded: SourceDatabase, iterable: IterableSandbox, tmp_path: Path) -> Program:
    """The program between the embedded MySQL with forty users, and the sandbox."""
    add_users(embedded.run_sql, range(1, 41))
    return Program.between(tmp_path / "run", embedded, iterable)


def calls_since(iterable: IterableSandbox, before: int) -> list[tuple[str, str | None]]:
    """Return the endpoint and e-mail of each call after the first `before`."""
    return [(call.endpoint, call.email) for call in sent_calls(iterable)[before:]]


def test_a_second_run_sends_nothing(program: Program, iterable: IterableSandbox) -> None:
    assert program.run().status == 0
    assert program.run().status == 0
    assert len(sent_calls(iterable)) == 80
    assert counts_of(program.results) == {"unchanged": 40}
    assert program.results["api_calls"] == 0
    record = program.results["records"][0]
    assert record["overall_success"] is True
    assert (record["users_update"], record["events_track"]) == (None, None)


def test_only_the_request_that_changed_is_sent(
    program: Program, iterable: IterableSandbox, embedded: SourceDatabase
) -> None:
    assert program.run().status == 0
    embedded.run_sql("UPDATE customers SET last_name = 'Married' WHERE id = 7")
    embedded.run_sql("UPDATE page_views SET page = 'settings' WHERE user_id = 8")
    assert program.run().status == 0
    assert sorted(calls_since(iterable, 80)) == [
        ("events/track", email_of(8)),
        ("users/update", email_of(7)),
    ]
    assert counts_of(program.results) == {"successful": 2, "unchanged": 38}
    assert iterable.project.users[email_of(7)].data_fields["last_name"] == "Married"


def test_the_next_run_sends_what_failed_with_the_newest_values(
    program: Program, iterable: IterableSandbox, embedded: SourceDatabase
) -> None:
    iterable.set_faults(
        [
            {"fault": "status", "status": 400, "endpoint": "events/track", "email": email_of(3)},
            {"fault": "status", "status": 400, "endpoint": "users/update", "email": email_of(4)},
            {"fault": "status", "status": 400, "email": email_of(5)},
        ]
    )
    assert program.run().status == 3
    assert counts_of(program.results) == {
        "successful": 37,
        "partial_failures": 2,
        "total_failures": 1,
    }
    iterable.set_faults([])
    embedded.run_sql("UPDATE customers SET first_name = 'Newest' WHERE id = 5")
    assert program.run(settings={"REJECTED_RETRY_HOURS": "0"}).status == 0
    assert sorted(calls_since(iterable, 80)) == [
        ("events/track", email_of(3)),
        ("events/track", email_of(4)),  # it came before the first profile
        ("events/track", email_of(5)),
        ("users/update", email_of(4)),
        ("users/update", email_of(5)),
    ]
    assert counts_of(program.results) == {"successful": 3, "unchanged": 37}
    assert iterable.project.users[email_of(5)].data_fields["first_name"] == "Newest"


def test_what_was_rejected_is_not_sent_again_and_stays_a_failure(
    program: Program, iterable: IterableSandbox
) -> None:
    iterable.set_faults([{"fault": "status", "status": 400, "email": email_of(5)}])
    assert "  1 failed (1 new)\n" in program.run().stdout
    iterable.set_faults([])
    ending = program.run()
    assert (ending.status, len(calls_since(iterable, 0))) == (3, 80)
    assert "  1 failed (0 new)\n" in ending.stdout
    assert counts_of(program.results) == {"unchanged": 39, "total_failures": 1}
    assert program.results["status"] == "completed_with_failures"
    assert program.results["failures"] == {"new": 0, "known": 1, "resolved": 0}
    # --full-refresh skips the memory.
    ending = program.run("--full-refresh")
    assert (ending.status, len(calls_since(iterable, 0))) == (0, 160)
    assert "  1 failure of an earlier run is resolved\n" in ending.stdout


def test_a_killed_run_forgets_no_rejection(program: Program, iterable: IterableSandbox) -> None:
    iterable.set_faults([{"fault": "status", "status": 400, "email": email_of(1)}])
    running = program.start(settings={"USERS_UPDATE_RPS": "5"})
    wait_until(lambda: len(calls_since(iterable, 0)) >= 16)  # more than a second: it is recorded
    running.killed()
    assert program.run().status == 3
    assert [email for _endpoint, email in calls_since(iterable, 0)].count(email_of(1)) == 2
    (record,) = [each for each in program.results["records"] if each["user_id"] == 1]
    assert record["users_update"]["attempts"] == 0
    # The killed run has reported nothing, so it does not count.
    assert record["runs_failed"] == 1
    assert program.results["failures"] == {"new": 1, "known": 0, "resolved": 0}


def test_a_call_whose_response_was_lost_is_repeated_and_duplicates_nothing(
    program: Program, iterable: IterableSandbox
) -> None:
    iterable.set_faults([{"fault": "drop_after", "every": 10}])
    assert program.run().status == 0
    check_project(iterable.project, range(1, 41))
    assert iterable.state()["repeated_applies"] == program.results["retries"] > 0


def test_a_concurrent_run_is_refused_and_a_killed_one_leaves_no_lock(
    program: Program, iterable: IterableSandbox
) -> None:
    first = program.start(settings={"USERS_UPDATE_RPS": "5"})
    wait_until(lambda: len(calls_since(iterable, 0)) >= 4)
    second = program.run()
    assert second.status == 1
    (line,) = second.stderr.splitlines()
    assert f"process {first.pid} " in line
    assert re.search(r"started \d{4}-\d\d-\d\d \d\d:\d\d:\d\d", line)
    assert program.results_files == []
    # A dry run and --history work meanwhile.
    assert program.run("--dry-run").status == 0
    assert " running " in program.run("--history").stdout
    assert first.killed().status == 137
    assert program.run().status == 0
    check_project(iterable.project, range(1, 41))
    assert " killed " in program.run("--history").stdout


def test_a_run_that_reads_nothing_does_not_report_the_rows_of_one_that_was_killed(
    program: Program, iterable: IterableSandbox
) -> None:
    running = program.start(settings={"USERS_UPDATE_RPS": "5"})
    wait_until(lambda: len(calls_since(iterable, 0)) >= 4)
    running.killed()
    assert program.run(settings={"DB_PASSWORD": "wrong"}).status == 1
    assert counts_of(program.results) == {}
    assert program.results["status"] == "aborted"


def test_no_personal_data_stays_in_the_state_file_after_a_run(
    program: Program, iterable: IterableSandbox
) -> None:
    iterable.set_faults([{"fault": "status", "status": 400, "email": email_of(3)}])
    assert program.run().status == 3
    for path in program.folder.glob("state.sqlite3*"):
        content = path.read_bytes().lower()
        assert b"example.com" not in content
        assert b"first3" not in content


def test_deleting_the_state_file_is_safe(program: Program, iterable: IterableSandbox) -> None:
    assert program.run().status == 0
    for path in program.folder.glob("state.sqlite3*"):
        path.unlink()
    assert program.run().status == 0
    assert counts_of(program.results) == {"successful": 40}
    check_project(iterable.project, range(1, 41))


def write_text(path: Path) -> None:
    path.write_text("my shopping list\n" * 50)


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[100:8192] = b"\xff" * (8192 - 100)  # behind the header
    path.write_bytes(content)


def write_foreign_database(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE customers (name TEXT)")
    database.close()


def write_newer_version(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()


@pytest.mark.parametrize(
    ("make_unusable", "message"),
    [
        (write_foreign_database, "is not a state file of this program: choose another STATE_FILE"),
        (write_text, "is not a state file of this program"),
        (damage, "is damaged: move it away"),
        (write_newer_version, "was made by a newer version"),
    ],
    ids=["another database", "a text", "damaged", "a newer version's"],
)
def test_an_unusable_state_file_is_refused_and_not_changed(
    program: Program, iterable: IterableSandbox, make_unusable: object, message: str
) -> None:
    assert callable(make_unusable)
    assert program.run("--limit", "1").status == 0
    make_unusable(program.state_file)
    before = program.state_file.read_bytes()
    ending = program.run()
    assert ending.status == 1, ending.output
    (line,) = ending.stderr.splitlines()
    assert message in line
    assert str(program.state_file) in line
    assert program.state_file.read_bytes() == before
    assert len(sent_calls(iterable)) == 2
