"""`--check`: the order of the lines; settings, files, free disk space."""

from __future__ import annotations

import fcntl
import json
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from commands.check.files import MIN_FREE_BYTES
from commands.check.line import failed
from commands.check.run import check_setup, run_check, settings_problems
from config.settings import Settings
from errors import ConfigError, ExitStatus
from logger_config import register_secret
from sandbox.iterable_api import IterableSandbox
from state.database import APPLICATION_ID, open_state
from state.lock import RunLock
from tests.conftest import SAMPLE_DATA, SourceDatabase
from tests.support.mariadb import free_port
from tests.support.set_up import KEY, READ_ONLY_ENDPOINTS, SetUp, failures, has_words

pytest_plugins = ["tests.support.set_up_fixtures"]
PASSWORD = "sandbox-password"


def test_a_working_setup_has_one_ok_line_for_each_check(with_mariadb: SetUp) -> None:
    lines = with_mariadb.lines()
    assert not failures(lines)
    assert [line.name for line in lines] == [
        *("settings", "state file", "results", "log", "disk"),
        *("driver", "database", "query plan", "query", "rows", "row count", "Iterable"),
        *("project type", "project", *5 * ("new field",), "field types"),
    ]
    assert not [line for line in lines if line.is_warning]


def test_the_exit_status_is_2_if_a_line_failed(
    set_up: SetUp, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_check(set_up.environment, None) == ExitStatus.OK
    assert "FAILED" not in capsys.readouterr().out
    for changed in ({"ITERABLE_API_KEY": "f" * 32}, {"DB_PORT": "no number"}):
        environment = {**set_up.environment, **changed}
        assert run_check(environment, None) == ExitStatus.BAD_SETTINGS
        assert capsys.readouterr().out.count("FAILED") == 1


def test_a_quiet_check_prints_only_what_is_not_ok(
    set_up: SetUp, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = {**set_up.environment, "ITERABLE_API_KEY": "f" * 32}
    run_check(environment, None)
    lines = capsys.readouterr().out.splitlines()
    assert run_check(environment, None, quiet=True) == ExitStatus.BAD_SETTINGS
    quiet = [line for line in lines if not line.startswith("ok ")]
    assert capsys.readouterr().out.splitlines() == quiet
    assert {line.split()[0] for line in quiet} == {"warning", "FAILED"}


@pytest.mark.parametrize("key", [KEY, "f" * 32])
def test_the_check_ignored_json(
    set_up: SetUp, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    environment = {**set_up.environment, "ITERABLE_API_KEY": key}
    is_ok = run_check(environment, None) == ExitStatus.OK
    lines = capsys.readouterr().out.splitlines()
    status = run_check(environment, None, as_json=True)
    printed = json.loads(capsys.readouterr().out)
    assert printed["ok"] is is_ok is (status == ExitStatus.OK) is (key == KEY)
    assert [(check["result"], check["name"]) for check in printed["checks"]] == [
        (line[:8].strip(), line[9:23].strip()) for line in lines
    ]
    assert all(check["text"] for check in printed["checks"])


def test_problems_of_the_settings_are_json_too_and_hold_no_secret(
    set_up: SetUp, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = {**set_up.environment, "DB_PORT": "x", "SYNC_MODE": "y"}
    assert run_check(environment, None, as_json=True) == ExitStatus.BAD_SETTINGS
    printed = json.loads(capsys.readouterr().out)
    assert [check["text"].split()[0] for check in printed["checks"]] == ["DB_PORT", "SYNC_MODE"]
    register_secret(KEY, "api key")
    assert KEY not in str(failed("Iterable", f"refused {KEY}").to_json())


def test_no_check_fails_on_the_embedded_server(set_up: SetUp) -> None:
    assert not failures(set_up.lines())


def test_the_checks_change_nothing(set_up: SetUp, api: IterableSandbox) -> None:
    set_up.lines()
    assert list(set_up.folder.iterdir()) == []
    assert {call.endpoint for call in api.calls} == READ_ONLY_ENDPOINTS
    assert not api.project.users


def test_each_line_is_yielded_before_the_next_check(set_up: SetUp, api: IterableSandbox) -> None:
    lines = check_setup(set_up.settings(), None)
    assert next(lines).name == "settings"
    for line in lines:
        if line.name == "rows":
            break
    assert not api.calls
    assert next(line.name for line in lines if api.calls) == "Iterable"


def test_a_line_begins_with_its_result(set_up: SetUp) -> None:
    results = {str(line).split()[0] for line in set_up.lines(ITERABLE_API_KEY="f" * 32)}
    assert results == {"ok", "warning", "FAILED"}


def test_no_line_contains_the_key_or_the_password(set_up: SetUp, api: IterableSandbox) -> None:
    api.set_faults([{"fault": "echo_request", "status": 500}])
    printed = "\n".join(map(str, set_up.lines() + set_up.lines(DB_PORT=str(free_port()))))
    assert KEY not in printed
    assert PASSWORD not in printed


def test_the_invalid_rows_of_the_sample_data_are_counted(
    embedded: SourceDatabase, tmp_path: Path, api: IterableSandbox
) -> None:
    embedded.run_sql(SAMPLE_DATA.read_text(encoding="utf-8"))
    line = SetUp(tmp_path, embedded, api).line("rows", ENGAGEMENT_WINDOW_DAYS="7")
    has_words(line, "2 of 26 rows are invalid and will be skipped")


def test_each_problem_of_the_settings_has_a_failed_line() -> None:
    with pytest.raises(ConfigError) as raised:
        Settings.from_environment({"DB_HOST": "localhost", "SYNC_MODE": "both"})
    lines = list(settings_problems(raised.value))
    assert len(lines) == 5
    assert not any(line.ok for line in lines)


@pytest.mark.parametrize(
    ("mode", "ending"),
    [(0o600, "ok"), (0o640, "warning"), (0o644, "FAILED"), (0o602, "FAILED")],
)
def test_an_env_file_that_others_can_access_is_reported(
    set_up: SetUp, mode: int, ending: str
) -> None:
    set_up.env_file = set_up.folder / "env"
    set_up.env_file.touch()
    set_up.env_file.chmod(mode)
    line = set_up.line("env file")
    assert str(line).split()[0] == ending
    if ending != "ok":
        has_words(line, f"chmod 600 {set_up.env_file}", f"{mode:04o}")


def test_a_state_file_in_use_is_ok_and_names_the_process(set_up: SetUp) -> None:
    open_state(set_up.state_file).close()
    with RunLock(set_up.state_file):
        line = set_up.line("state file")
    assert line.ok
    has_words(line, "a run is in progress (process ", "remembers 0 users")
    assert "in progress" not in set_up.line("state file").text


def test_the_state_file_check_does_not_keep_the_lock(set_up: SetUp) -> None:
    with RunLock(set_up.state_file):
        pass
    set_up.line("state file")
    with open(RunLock(set_up.state_file).path, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a spreadsheet, not a database", "is not a state file of this program"),
        (b"SQLite format 3\0" + b"\xff" * 4_000, "is not a state file of this program"),
    ],
)
def test_a_file_that_is_no_state_file_fails_and_is_not_changed(
    set_up: SetUp, content: bytes, words: str
) -> None:
    set_up.state_file.write_bytes(content)
    line = set_up.line("state file")
    assert not line.ok
    has_words(line, words)
    assert set_up.state_file.read_bytes() == content


def test_a_sqlite_file_of_another_program_fails(set_up: SetUp) -> None:
    with sqlite3.connect(set_up.state_file) as database:
        database.execute("CREATE TABLE theirs (x)")
    assert not set_up.line("state file").ok


def test_a_state_file_from_before_the_first_release_fails(set_up: SetUp) -> None:
    with sqlite3.connect(set_up.state_file) as database:
        database.execute("CREATE TABLE delivered (person INTEGER PRIMARY KEY)")
        database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        database.execute("PRAGMA user_version = 2")
    line = set_up.line("state file")
    assert not line.ok
    has_words(line, "before version 1.1.0", "move it away", "in Iterable twice")


def test_a_state_file_of_a_newer_version_fails(set_up: SetUp) -> None:
    database = open_state(set_up.state_file)
    database.execute("PRAGMA user_version = 99")
    database.close()
    line = set_up.line("state file")
    assert not line.ok
    has_words(line, "newer version")


def test_a_read_only_state_file_fails_for_root_too(set_up: SetUp) -> None:
    open_state(set_up.state_file).close()
    set_up.state_file.chmod(0o400)
    line = set_up.line("state file")
    assert not line.ok
    has_words(line, "cannot be written", "owner and mode")


def test_the_state_file_check_leaves_no_files_behind(set_up: SetUp) -> None:
    open_state(set_up.state_file).close()
    set_up.line("state file")
    assert list(set_up.folder.iterdir()) == [set_up.state_file]


def test_a_state_file_damaged_in_the_middle_fails(set_up: SetUp) -> None:
    database = open_state(set_up.state_file)
    database.execute(
        "WITH RECURSIVE number (n) AS"
        " (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < 5000)"
        " INSERT INTO delivered SELECT n, 1, 1, 1, 1, 'page-view-abcdefghijklmnop', 1,"
        " NULL, NULL FROM number"
    )
    database.close()
    content = bytearray(set_up.state_file.read_bytes())
    content[20_000:120_000] = b"\x07" * 100_000
    set_up.state_file.write_bytes(content)
    line = set_up.line("state file")
    assert not line.ok
    has_words(line, "damaged", "move it away")


def test_the_users_in_the_state_file_are_counted(set_up: SetUp) -> None:
    database = open_state(set_up.state_file)
    database.execute("INSERT INTO delivered (user_key) VALUES (1), (2)")
    database.close()
    has_words(set_up.line("state file"), "remembers 2 users")


# Not even root can create files in /proc.
@pytest.mark.parametrize(
    ("setting", "value", "name"),
    [
        ("STATE_FILE", "/proc/state.sqlite3", "state file"),
        ("LOG_FILE", "/proc/run.log", "log"),
        ("METRICS_FILE", "/proc/sync.prom", "metrics"),
    ],
)
def test_a_path_that_cannot_be_written_fails(
    set_up: SetUp, setting: str, value: str, name: str
) -> None:
    line = set_up.line(name, **{setting: value})
    assert not line.ok
    has_words(line, "cannot be written", setting)


def test_the_results_folder_is_checked_by_writing_to_it(set_up: SetUp) -> None:
    settings = replace(set_up.settings(), results_dir=Path("/proc"))
    assert failures(list(check_setup(settings, None))) == ["results"]


@pytest.mark.parametrize(("free", "is_warning"), [(259_000_000, True), (261_000_000, False)])
def test_little_free_disk_space_is_a_warning(set_up: SetUp, free: int, is_warning: bool) -> None:
    lines = check_setup(set_up.settings(), None, free_bytes=lambda _folder: free)
    (line,) = [line for line in lines if line.name == "disk"]
    assert line.ok
    assert line.is_warning is is_warning


def put_results(folder: Path, *sizes: int) -> None:
    for number, size in enumerate(sizes):
        (folder / f"integration_results_20260113_14304{number}.json").write_bytes(bytes(size))


def test_the_check_says_how_many_results_are_kept(set_up: SetUp) -> None:
    def text(**settings: str) -> str:
        return set_up.line("results", **settings).text.partition("; ")[2]

    assert text() == "0 files (0.0 MB), at most 1,000 files or 1,000 MB are kept"
    put_results(set_up.folder, 1_500_000)
    assert text(RESULTS_KEEP="0") == "1 file (1.5 MB), at most 1,000 MB are kept"
    put_results(set_up.folder, 1_500_000, 500_000)
    assert text(RESULTS_KEEP_MB="0") == "2 files (2.0 MB), at most 1,000 files are kept"
    assert text(RESULTS_KEEP="0", RESULTS_KEEP_MB="0") == "2 files (2.0 MB), all are kept"


def always(free_bytes: int) -> Callable[[Path], int]:
    return lambda _folder: free_bytes


@pytest.mark.parametrize(
    ("settings", "to_come"),
    [
        ({}, 99_800_000),  # as many files of the usual size
        ({"RESULTS_KEEP_MB": "50"}, 49_800_000),
        ({"RESULTS_KEEP": "0", "RESULTS_KEEP_MB": "50"}, 49_800_000),
        ({"RESULTS_KEEP": "1"}, 0),
        ({"RESULTS_KEEP": "0", "RESULTS_KEEP_MB": "0"}, 0),  # nobody knows
    ],
)
def test_the_free_space_has_to_hold_the_results_that_will_be_kept(
    set_up: SetUp, settings: dict[str, str], to_come: int
) -> None:
    """Results of 144 runs a day filled the disk though `--check` was content."""
    put_results(set_up.folder, 150_000, 50_000)
    for missing in (0, 1) if to_come else (0,):
        free = MIN_FREE_BYTES + to_come - missing
        lines = check_setup(set_up.settings(**settings), None, free_bytes=always(free))
        (line,) = [line for line in lines if line.name == "disk"]
        assert line.is_warning is bool(missing)
        if missing:
            has_words(line, f"will take {to_come / 1e6:,.0f} MB more", "lower RESULTS_KEEP_MB")
