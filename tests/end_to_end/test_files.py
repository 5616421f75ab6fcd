"""Files and console output of a run: location, permissions and format."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path

import pytest

from sandbox.iterable_api import IterableSandbox
from tests.conftest import SourceDatabase
from tests.support.program import Program, copy_of_project, counts_of, wait_until
from tests.support.users import add_users, check_project, email_of, sent_calls

LOG_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d - [\w.]+ - (DEBUG|INFO|WARNING|ERROR) - .+")


@pytest.fixture
def program(embedded: SourceDatabase, iterable: IterableSandbox, tmp_path: Path) -> Program:
    """The program between the embedded MySQL and the sandbox."""
    return Program.between(tmp_path / "run", embedded, iterable)


def test_each_call_is_logged_with_iterables_request_id(
    program: Program, embedded: SourceDatabase, iterable: IterableSandbox
) -> None:
    add_users(embedded.run_sql, [1])
    ending = program.run()
    lines = program.log.splitlines()
    assert all(LOG_LINE.fullmatch(line) for line in lines)
    for call in sent_calls(iterable):
        (line,) = [line for line in lines if call.request_id in line]
        assert call.endpoint in line
        assert email_of(1) in line
    # The console shows what matters, the file everything.
    assert "DEBUG" not in ending.output


@pytest.mark.parametrize("umask", ["000", "022"])
def test_files_with_personal_data_are_readable_by_their_owner_only(
    program: Program, embedded: SourceDatabase, umask: str
) -> None:
    add_users(embedded.run_sql, [1])
    running = program.start(umask=int(umask, 8))
    assert running.ending().status == 0
    files = [path for path in program.folder.iterdir() if path != program.env_file]
    assert {path.suffix for path in files} >= {".json", ".log", ".sqlite3"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


@pytest.mark.parametrize("umask", [0o000, 0o027, 0o077, 0o777])
def test_files_of_a_running_or_killed_run_are_readable_by_their_owner_only(
    program: Program, embedded: SourceDatabase, iterable: IterableSandbox, umask: int
) -> None:
    """Also the files of the write-ahead log, and existing files that were readable by all."""
    add_users(embedded.run_sql, range(1, 4))
    program.settings |= {"REPORT": "true", "METRICS_FILE": str(program.folder / "sync.prom")}
    for name in (program.state_file.name, f"{program.state_file.name}.lock", program.log_file.name):
        (program.folder / name).touch(0o666)
        (program.folder / name).chmod(0o666)
    iterable.set_faults([{"fault": "hang", "endpoint": "users/update"}])
    running = program.start(umask=umask)
    wait_until(lambda: bool(iterable.calls))
    at_work = modes_in(program)
    running.killed()
    assert {path.suffix for path in at_work} == {
        ".log",
        ".sqlite3",
        ".sqlite3-wal",
        ".sqlite3-shm",
        ".lock",
    }
    assert set(at_work.values()) == {0o600}
    assert set(modes_in(program).values()) == {0o600}
    iterable.set_faults([])
    assert program.start(umask=umask).ending().status == 0
    export = program.folder / "rows.csv"
    assert program.start("--export", str(export), umask=umask).ending().status == 0
    modes = modes_in(program)
    assert modes.pop(program.folder / "sync.prom") == 0o644  # numbers, for node_exporter
    assert {path.suffix for path in modes} >= {".csv", ".html", ".json", ".log", ".sqlite3"}
    assert set(modes.values()) == {0o600}


def modes_in(program: Program) -> dict[Path, int]:
    files = [path for path in program.folder.iterdir() if path != program.env_file]
    return {path: stat.S_IMODE(path.stat().st_mode) for path in files}


def test_relative_paths_start_at_the_project_folder_in_any_working_directory(
    embedded: SourceDatabase, iterable: IterableSandbox, tmp_path: Path
) -> None:
    project = copy_of_project(tmp_path / "project")
    (project / "out").mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    add_users(embedded.run_sql, [1])
    settings = {
        **Program.between(tmp_path / "unused", embedded, iterable).settings,
        "LOG_FILE": "out/sync.log",
        "STATE_FILE": "out/memory.sqlite3",
        "RESULTS_DIR": "out",
    }
    # As cron does it: everything in `.env`, nothing in the environment.
    (project / ".env").write_text("".join(f"{n}='{v}'\n" for n, v in settings.items()))
    program = Program(elsewhere / "x", {}, project=project)
    nothing: dict[str, str | None] = dict.fromkeys(program.settings)
    ending = program.run(settings=nothing, cwd=elsewhere, reads_env_file=False)
    assert ending.status == 0, ending.output
    found = {path.name for path in (project / "out").iterdir()}
    assert {"sync.log", "memory.sqlite3"} < found
    assert len([name for name in found if name.startswith("integration_results_")]) == 1
    assert [path.name for path in elsewhere.rglob("*")] == ["x", "settings.env"]


def test_files_go_into_the_project_folder_by_default(
    embedded: SourceDatabase, iterable: IterableSandbox, tmp_path: Path
) -> None:
    project = copy_of_project(tmp_path / "project")
    program = Program.between(tmp_path / "run", embedded, iterable)
    program.project = project
    defaults = dict.fromkeys(("LOG_FILE", "STATE_FILE", "RESULTS_DIR"))
    ending = program.run(settings=defaults, cwd=Path("/"))
    assert ending.status == 0, ending.output
    assert (project / "iterable_integration.log").is_file()
    assert (project / "sync_state.sqlite3").is_file()
    assert len(list(project.glob("integration_results_*.json"))) == 1


def test_a_full_disk_under_the_log_does_not_stop_the_run(
    program: Program, embedded: SourceDatabase, iterable: IterableSandbox
) -> None:
    add_users(embedded.run_sql, range(1, 6))
    ending = program.run(settings={"LOG_FILE": "/dev/full"})
    assert ending.status == 0, ending.output
    assert "Traceback" not in ending.output
    check_project(iterable.project, range(1, 6))


def test_output_into_a_pipe_has_no_colours(program: Program, embedded: SourceDatabase) -> None:
    add_users(embedded.run_sql, [1])
    ending = program.run(settings={"TERM": "xterm-256color", "FORCE_COLOR": "1"})
    assert ending.status == 0
    assert "\x1b" not in ending.output


def test_results_files_of_one_second_get_different_names_and_old_ones_are_deleted(
    program: Program, embedded: SourceDatabase
) -> None:
    add_users(embedded.run_sql, [1])
    for _ in range(4):
        assert program.run(settings={"RESULTS_KEEP": "3"}).status == 0
    assert len(program.results_files) == 3
    heads = [json.loads(path.read_text()) for path in program.results_files]
    assert [counts_of(head) for head in heads] == [{"unchanged": 1}] * 3


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make links of other users")
@pytest.mark.parametrize("flag", ["--dry-run", "--check"])
def test_a_planted_link_in_place_of_the_log_file_is_refused(program: Program, flag: str) -> None:
    victim = program.folder / "precious"
    victim.write_text("precious", encoding="ascii")
    program.log_file.symlink_to(victim)
    os.chown(program.log_file, 4321, 4321, follow_symlinks=False)
    ending = program.run(flag)
    assert ending.status == 2
    assert f"{program.log_file} cannot be written" in ending.output
    assert f"{program.log_file} is a symbolic link made by the user 4321" in ending.output
    assert victim.read_text(encoding="ascii") == "precious"
