"""`LOG_PAYLOADS=false` keeps every e-mail address out of the log."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sandbox.iterable_api import IterableSandbox
from tests.conftest import SourceDatabase
from tests.support.program import Program
from tests.support.users import add_user, add_users

EMAIL = "c4nary.person@example.com"
# The id of a row is its e-mail.
QUERY = """
SELECT c.email AS id, c.email, c.first_name, c.last_name, c.plan_type, c.candidate,
    v.page, v.device, v.browser, v.location, v.event_time
FROM customers c JOIN page_views v ON v.user_id = c.id
WHERE v.event_time >= %(window_start)s ORDER BY c.id
"""
ERROR = {"code": f"No {EMAIL}", "msg": f"{EMAIL} is bad"}


@pytest.fixture
def program(mariadb: SourceDatabase, iterable: IterableSandbox, tmp_path: Path) -> Program:
    """The program and its rows: one user twice, one with an invalid e-mail, two others."""
    add_user(mariadb.run_sql, 1, EMAIL, first_name="C4nary")
    add_user(mariadb.run_sql, 2, EMAIL.upper(), first_name="C4nary")
    add_user(mariadb.run_sql, 3, "c4nary.person@@example.com", first_name="C4nary")
    add_users(mariadb.run_sql, [4, 5])
    program = Program.between(tmp_path, mariadb, iterable, LOG_PAYLOADS="false", REPORT="true")
    query = tmp_path / "query.sql"
    query.write_text(QUERY, encoding="utf-8")
    program.settings |= {"MAX_ATTEMPTS": "2", "BULK_UPDATE_RPS": "100", "QUERY_FILE": str(query)}
    program.settings |= {"OUTAGE_PATIENCE_SECONDS": "1"}  # some faults never end
    return program


def check_log(program: Program) -> None:
    """Check that there is a log, and that it contains no name and no e-mail."""
    assert program.log
    assert "c4nary" not in program.log.lower()
    assert "example.com" not in program.log.lower()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "fault"),
    [
        ("per-user", {"fault": "status", "status": 400, **ERROR}),
        ("bulk", {"fault": "status", "status": 400, **ERROR}),
        ("bulk", {"fault": "status", "status": 401, **ERROR}),
        ("per-user", {"fault": "status", "status": 404, **ERROR}),
        ("bulk", {"fault": "status", "status": 429, "times": 1, **ERROR}),
        ("per-user", {"fault": "status", "status": 503, "times": 1, **ERROR}),
        ("per-user", {"fault": "error_code_on_200", **ERROR}),
        ("bulk", {"fault": "error_code_on_200", **ERROR}),
        ("per-user", {"fault": "echo_request", "status": 400}),
        ("bulk", {"fault": "echo_request", "status": 400}),
        ("per-user", {"fault": "redirect", "location": f"https://127.0.0.1/?email={EMAIL}"}),
        ("bulk", {"fault": "malformed_json"}),
        ("per-user", {"fault": "drop_before"}),
    ],
)
def test_no_response_of_iterable_puts_an_email_into_the_log(
    program: Program, iterable: IterableSandbox, mode: str, fault: Mapping[str, Any]
) -> None:
    """An error code, or a user id that is an e-mail, put one there."""
    iterable.set_faults([fault])
    program.run("--verbose", "--mode", mode)
    check_log(program)
    # The results file has it.
    assert EMAIL in json.dumps(program.results)


@pytest.mark.slow
def test_verify_check_and_history_put_no_email_into_the_log(
    program: Program, iterable: IterableSandbox
) -> None:
    assert program.run("--verbose").status == 3  # one row is invalid
    assert program.run("--verbose", "--verify", "9").status == 0
    iterable.set_faults([{"fault": "status", "status": 401, **ERROR}])
    for flags, status in ((["--verify", "9"], 1), (["--check"], 2), (["--history"], 0)):
        assert program.run(*flags).status == status
    assert program.run("--verbose", settings={"DB_USER": EMAIL}).status == 1
    check_log(program)
