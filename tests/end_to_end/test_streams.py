"""A run with standard output or standard error closed, full or broken delivers all the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.iterable_api import IterableSandbox
from tests.conftest import SourceDatabase
from tests.support.program import PATIENCE_SECONDS, Program, counts_of
from tests.support.users import add_users, check_project

FULL = "/dev/full"

pytestmark = pytest.mark.skipif(not os.path.exists(FULL), reason="needs /dev/full")


@pytest.fixture
def program(embedded: SourceDatabase, iterable: IterableSandbox, tmp_path: Path) -> Program:
    """The program between the embedded MySQL with five users, and the sandbox."""
    add_users(embedded.run_sql, range(1, 6))
    return Program.between(tmp_path / "run", embedded, iterable)


def run_in_shell(program: Program, flags: str, streams: str) -> tuple[int, str, str]:
    """Start the program in a shell; return exit status, standard output and standard error."""
    command = f'exec "$0" "$1" --env-file "$2" {flags} {streams}'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable, program.project / "main.py", program.env_file],
        env=program.settings,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    "streams", [f">{FULL}", f"2>{FULL}", f">{FULL} 2>&1", ">&-", "2>&-", "<&- >&- 2>&-"]
)
def test_a_run_without_working_output_streams_delivers_everything(
    program: Program, iterable: IterableSandbox, streams: str
) -> None:
    status, output, stderr = run_in_shell(program, "", streams)
    assert (status, "bug" in output + stderr) == (0, False), stderr
    assert counts_of(program.results) == {"successful": 5}
    check_project(iterable.project, range(1, 6))


def test_a_full_disk_under_standard_output_is_reported_once(program: Program) -> None:
    status, _, stderr = run_in_shell(program, "--dry-run --limit 5", f">{FULL}")
    assert status == 0
    assert stderr.count("Standard output cannot be written (No space left on device)") == 1


def test_messages_do_not_go_to_standard_output(program: Program) -> None:
    status, output, _ = run_in_shell(program, "--history --limit", "2>&-")
    assert (status, output) == (2, "")


@pytest.mark.parametrize("streams", [f"2>{FULL}", "2>&-"])
def test_a_bad_flag_exits_with_2_although_standard_error_is_closed(
    program: Program, streams: str
) -> None:
    assert run_in_shell(program, "--bogus", streams) == (2, "", "")
