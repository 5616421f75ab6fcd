"""`--check`: a set-up that works, and each broken one with its line: settings, files, disk."""

from __future__ import annotations

import fcntl
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from commands.check.run import check_setup, settings_problems
from config.settings import Settings
from errors import ConfigError
from sandbox.iterable_api import IterableSandbox
from state.database import APPLICATION_ID, SCHEMA_STEPS, open_state
from state.lock import RunLock
from tests.conftest import SAMPLE_DATA, SourceDatabase
from tests.support.mariadb import free_port
from tests.support.set_up import KEY, SetUp, failures, has_words

pytest_plugins = ["tests.support.set_up_fixtures"]
PASSWORD = "sandbox-password"


class TestASetUpThatWorks:
    def test_has_no_line_that_fails_and_one_for_each_thing(self, with_mariadb: SetUp) -> None:
        lines = with_mariadb.lines()
        assert not failures(lines)
        assert [line.name for line in lines] == [
            *("settings", "state file", "results", "log", "disk"),
            *("driver", "database", "query plan", "query", "rows", "Iterable", "field types"),
        ]
        assert not [line for line in lines if line.is_warning]

    def test_is_found_working_on_the_embedded_server(self, set_up: SetUp) -> None:
        assert not failures(set_up.lines())

    def test_is_left_as_it_was(self, set_up: SetUp, api: IterableSandbox) -> None:
        set_up.lines()
        assert list(set_up.folder.iterdir()) == []
        assert [call.endpoint for call in api.calls] == ["users/getFields"]
        assert not api.project.users

    def test_is_told_line_by_line_as_it_is_looked_at(
        self, set_up: SetUp, api: IterableSandbox
    ) -> None:
        lines = check_setup(set_up.settings(), None)
        assert next(lines).name == "settings"
        for line in lines:
            if line.name == "rows":
                break
        assert not api.calls
        assert next(line.name for line in lines if api.calls) == "Iterable"

    def test_shows_how_each_line_ended(self, set_up: SetUp) -> None:
        shown = {str(line).split()[0] for line in set_up.lines(ITERABLE_API_KEY="f" * 32)}
        assert shown == {"ok", "warning", "FAILED"}

    def test_shows_neither_key_nor_password(self, set_up: SetUp, api: IterableSandbox) -> None:
        api.set_faults([{"fault": "echo_request", "status": 500}])
        described = "\n".join(map(str, set_up.lines() + set_up.lines(DB_PORT=str(free_port()))))
        assert KEY not in described
        assert PASSWORD not in described


def test_the_sample_data_is_found_in_order_but_for_its_odd_rows(
    embedded: SourceDatabase, tmp_path: Path, api: IterableSandbox
) -> None:
    embedded.run_sql(SAMPLE_DATA.read_text(encoding="utf-8"))
    line = SetUp(tmp_path, embedded, api).line("rows", ENGAGEMENT_WINDOW_DAYS="7")
    has_words(line, "of 26 2 are invalid and never sent")


class TestSettings:
    def test_that_cannot_be_used_are_all_named(self) -> None:
        with pytest.raises(ConfigError) as raised:
            Settings.from_environment({"DB_HOST": "localhost", "SYNC_MODE": "both"})
        lines = list(settings_problems(raised.value))
        assert len(lines) == 5
        assert not any(line.ok for line in lines)

    @pytest.mark.parametrize(
        ("mode", "ending"),
        [(0o600, "ok"), (0o640, "warning"), (0o644, "FAILED"), (0o602, "FAILED")],
    )
    def test_in_a_file_that_others_can_read_are_told(
        self, set_up: SetUp, mode: int, ending: str
    ) -> None:
        set_up.env_file = set_up.folder / "env"
        set_up.env_file.touch()
        set_up.env_file.chmod(mode)
        line = set_up.line("env file")
        assert str(line).split()[0] == ending
        if ending != "ok":
            has_words(line, f"chmod 600 {set_up.env_file}", f"{mode:04o}")


class TestTheStateFile:
    def test_that_is_in_use_is_left_to_the_run_that_holds_it(self, set_up: SetUp) -> None:
        open_state(set_up.state_file).close()
        with RunLock(set_up.state_file):
            line = set_up.line("state file")
        assert line.ok
        has_words(line, "a run is at work now (process ", "remembers 0 people")
        assert "at work" not in set_up.line("state file").text

    def test_is_looked_at_without_keeping_a_run_from_starting(self, set_up: SetUp) -> None:
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
    def test_that_is_not_ours_fails_and_stays_as_it_is(
        self, set_up: SetUp, content: bytes, words: str
    ) -> None:
        set_up.state_file.write_bytes(content)
        line = set_up.line("state file")
        assert not line.ok
        has_words(line, words)
        assert set_up.state_file.read_bytes() == content

    def test_of_another_program_fails(self, set_up: SetUp) -> None:
        with sqlite3.connect(set_up.state_file) as database:
            database.execute("CREATE TABLE theirs (x)")
        assert not set_up.line("state file").ok

    def test_of_an_older_version_is_upgraded_by_the_next_run(self, set_up: SetUp) -> None:
        with sqlite3.connect(set_up.state_file) as database:
            database.executescript(SCHEMA_STEPS[0])
            database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            database.execute("PRAGMA user_version = 1")
        line = set_up.line("state file")
        assert line.ok
        has_words(line, "older version", "upgrades it")

    def test_of_a_newer_version_fails(self, set_up: SetUp) -> None:
        database = open_state(set_up.state_file)
        database.execute("PRAGMA user_version = 99")
        database.close()
        line = set_up.line("state file")
        assert not line.ok
        has_words(line, "newer version")

    def test_that_nobody_may_write_fails_for_root_too(self, set_up: SetUp) -> None:
        open_state(set_up.state_file).close()
        set_up.state_file.chmod(0o400)
        line = set_up.line("state file")
        assert not line.ok
        has_words(line, "cannot be written", "owner and mode")

    def test_is_looked_at_without_leaving_anything_beside_it(self, set_up: SetUp) -> None:
        open_state(set_up.state_file).close()
        set_up.line("state file")
        assert list(set_up.folder.iterdir()) == [set_up.state_file]

    def test_that_is_damaged_in_the_middle_fails(self, set_up: SetUp) -> None:
        database = open_state(set_up.state_file)
        database.execute(
            "WITH RECURSIVE person (n) AS"
            " (SELECT 1 UNION ALL SELECT n + 1 FROM person WHERE n < 5000)"
            " INSERT INTO delivered SELECT n, 1, 1, 1, 'page-view-abcdefghijklmnop', 1 FROM person"
        )
        database.close()
        content = bytearray(set_up.state_file.read_bytes())
        content[20_000:120_000] = b"\x07" * 100_000
        set_up.state_file.write_bytes(content)
        line = set_up.line("state file")
        assert not line.ok
        has_words(line, "damaged", "move it away")

    def test_that_remembers_people_says_how_many(self, set_up: SetUp) -> None:
        database = open_state(set_up.state_file)
        database.execute("INSERT INTO delivered (person) VALUES (1), (2)")
        database.close()
        has_words(set_up.line("state file"), "remembers 2 people")


class TestFolders:
    # /proc takes no files, not even root's.
    @pytest.mark.parametrize(
        ("setting", "value", "name"),
        [
            ("STATE_FILE", "/proc/state.sqlite3", "state file"),
            ("LOG_FILE", "/proc/run.log", "log"),
            ("METRICS_FILE", "/proc/sync.prom", "metrics"),
        ],
    )
    def test_that_cannot_be_written_fail(
        self, set_up: SetUp, setting: str, value: str, name: str
    ) -> None:
        line = set_up.line(name, **{setting: value})
        assert not line.ok
        has_words(line, "cannot be written", setting)

    def test_for_results_are_tried_not_only_looked_at(self, set_up: SetUp) -> None:
        settings = replace(set_up.settings(), results_dir=Path("/proc"))
        assert failures(list(check_setup(settings, None))) == ["results"]

    @pytest.mark.parametrize(("free", "is_warning"), [(259_000_000, True), (261_000_000, False)])
    def test_on_a_disk_that_is_nearly_full_are_a_warning(
        self, set_up: SetUp, free: int, is_warning: bool
    ) -> None:
        lines = check_setup(set_up.settings(), None, free_bytes=lambda _folder: free)
        (line,) = [line for line in lines if line.name == "disk"]
        assert line.ok
        assert line.is_warning is is_warning
