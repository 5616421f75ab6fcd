"""`--failures`: the failing and invalid rows of the newest complete run, as CSV."""

from __future__ import annotations

import csv
import io
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from commands.failures import COLUMNS, FailuresError, run_failures
from config.settings import Settings
from errors import ExitStatus
from sandbox.iterable_api import IterableSandbox
from tests.conftest import SourceDatabase
from tests.support.runs import Runs
from tests.support.users import add_user, add_users, email_of

FORMULA = "=1+1@example.com"


@pytest.fixture
def runs(embedded: SourceDatabase, tmp_path: Path) -> Iterator[Runs]:
    """The runs of a database in which one row fails, one is invalid, and one is like a formula."""
    add_users(embedded.run_sql, range(1, 5))
    add_user(embedded.run_sql, 5, None)
    add_user(embedded.run_sql, 6, FORMULA)
    with IterableSandbox(forgotten=[email_of(2)], invalid_emails=[FORMULA]) as iterable:
        made = Runs.between(tmp_path, embedded, iterable)
        made.run()
        yield made


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_each_failing_request_and_each_invalid_row_is_a_line(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "failures.csv"
    settings = Settings.from_environment(runs.settings)
    assert run_failures(settings, str(path)) is ExitStatus.OK
    assert "3 failures of the run of 20" in capsys.readouterr().out
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text("utf-8")
    assert text.splitlines()[0] == ",".join(COLUMNS)
    forgotten, invalid, formula = rows_of(text)
    assert len(forgotten.pop("request_id")) == 32
    assert forgotten.pop("first_failed_at").startswith("20")
    assert forgotten == {
        "user_id": "2",
        "email": email_of(2),
        "outcome": "total_failure",
        "endpoint": "users/update",
        "http_status": "409",
        "code": "ForgottenUserError",
        "message": f"User with email {email_of(2)} has been forgotten",
        "attempts": "1",
        "runs_failed": "1",
    }
    assert (invalid["endpoint"], invalid["message"]) == ("row", "no e-mail address")
    assert formula["email"] == f"'{FORMULA}", "a spreadsheet would run it"


def test_without_a_name_they_go_to_standard_output(
    runs: Runs, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    run_failures(Settings.from_environment(runs.settings), "-")
    out = capfdbinary.readouterr().out.decode()
    assert [row["user_id"] for row in rows_of(out)] == ["2", "5", "6"]


def test_dry_runs_and_partial_ones_are_passed_over(
    runs: Runs, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    runs.run(dry_run=True)
    runs.run(limit=1)
    run_failures(Settings.from_environment(runs.settings), "-")
    assert len(rows_of(capfdbinary.readouterr().out.decode())) == 3


def test_without_a_complete_run_there_is_nothing_to_list(runs: Runs) -> None:
    runs.state_file.unlink()
    runs.run(limit=1)
    with pytest.raises(FailuresError, match="knows no run that read all rows"):
        run_failures(Settings.from_environment(runs.settings), "-")


def test_a_results_file_that_was_removed_is_said_to_be_gone(runs: Runs) -> None:
    for path in runs.folder.glob("integration_results_*.json"):
        path.unlink()
    with pytest.raises(FailuresError, match="is no longer in"):
        run_failures(Settings.from_environment(runs.settings), "-")
