"""Flags and settings of `main.py`, and the messages about invalid ones."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from sandbox.iterable_api import IterableSandbox
from tests.conftest import SourceDatabase
from tests.support.program import API_KEY, Ending, Program, counts_of, wait_until
from tests.support.recording_servers import website
from tests.support.users import add_user, add_users, check_project, email_of, sent_calls


@pytest.fixture
def program(embedded: SourceDatabase, iterable: IterableSandbox, tmp_path: Path) -> Program:
    """The program between the embedded MySQL and the sandbox."""
    return Program.between(tmp_path / "run", embedded, iterable)


def test_a_dry_run_sends_nothing_and_remembers_nothing(
    program: Program, embedded: SourceDatabase, iterable: IterableSandbox
) -> None:
    add_users(embedded.run_sql, [1, 2])
    add_user(embedded.run_sql, 3, "not-an-email")
    ending = program.run("--dry-run")
    assert ending.status == 3, ending.output
    assert iterable.calls == []
    assert not program.state_file.exists()
    assert program.results["dry_run"] is True
    assert counts_of(program.results) == {"not_attempted": 2, "invalid": 1}
    assert program.run("--limit", "1").status == 0
    remembered = program.state_file.read_bytes()
    assert program.run("--dry-run", "--limit", "2").status == 0
    assert counts_of(program.results) == {"not_attempted": 1, "unchanged": 1}
    assert program.state_file.read_bytes() == remembered
    assert len(sent_calls(iterable)) == 2


def test_a_dry_run_with_a_limit_prints_the_payloads_that_the_real_run_sends(
    program: Program, embedded: SourceDatabase, iterable: IterableSandbox
) -> None:
    add_users(embedded.run_sql, [1, 2])
    dry = program.run("--dry-run", "--limit", "1")
    assert program.run("--limit", "1").status == 0
    printed = [
        line.split(" ", 1) for line in dry.stdout.splitlines() if line.startswith(("u", "e"))
    ]
    assert [(endpoint, json.loads(body)) for endpoint, body in printed] == [
        (call.endpoint, call.body) for call in sent_calls(iterable)
    ]


def test_a_limited_run_remembers_what_it_sent_and_the_next_sends_the_rest(
    program: Program, embedded: SourceDatabase, iterable: IterableSandbox
) -> None:
    add_users(embedded.run_sql, range(1, 8))
    assert program.run("--limit", "3").status == 0
    check_project(iterable.project, range(1, 4))
    assert counts_of(program.results) == {"successful": 3}
    assert program.run().status == 0
    assert counts_of(program.results) == {"successful": 4, "unchanged": 3}
    check_project(iterable.project, range(1, 8))
    assert len(sent_calls(iterable)) == 14


def test_a_bulk_dry_run_with_a_limit_prints_the_batches(
    program: Program, embedded: SourceDatabase, iterable: IterableSandbox
) -> None:
    add_users(embedded.run_sql, [1, 2, 3])
    settings = {"SYNC_MODE": "bulk", "BULK_BATCH_SIZE": "2"}
    dry = program.run("--dry-run", "--limit", "3", settings=settings)
    printed = [line.split(" ", 1) for line in dry.stdout.splitlines()[:4]]
    assert "3 profiles and 3 events would be sent, about 1 s at 5 requests/s" in dry.stdout
    assert program.run("--limit", "3", settings=settings).status == 0
    sent = [(call.endpoint, call.body) for call in sent_calls(iterable)]
    assert sorted(((name, json.loads(body)) for name, body in printed), key=str) == sorted(
        sent, key=str
    )


def test_an_export_with_a_limit_wrote_all_rows(program: Program, embedded: SourceDatabase) -> None:
    add_users(embedded.run_sql, range(1, 8))
    ending = program.run("--export", "rows.csv", "--limit", "3")
    assert (ending.status, ending.stdout) == (0, "3 rows written to rows.csv\n")
    assert len((program.folder / "rows.csv").read_text().splitlines()) == 4
    assert program.run("--export", "rows.csv", "--quiet").output == ""
    assert len((program.folder / "rows.csv").read_text().splitlines()) == 8


@pytest.mark.parametrize("flag", ["--check", "--history", "--verify=9"])
def test_json_of_an_action_is_all_that_is_on_standard_output(
    program: Program, embedded: SourceDatabase, flag: str
) -> None:
    add_users(embedded.run_sql, [1, 2])
    assert program.run().status == 0
    ending = program.run(flag, "--json")
    assert (ending.status, ending.stderr) == (0, "")
    assert isinstance(json.loads(ending.stdout), dict)


def test_a_misspelt_setting_ends_every_command_before_anything_is_opened(
    program: Program, iterable: IterableSandbox
) -> None:
    program.env_file.write_text("LOG_PAYLOAD=false\nMAILTO=root\n", encoding="utf-8")
    words = f"{program.env_file} has LOG_PAYLOAD: did you mean LOG_PAYLOADS?"
    for flags in ([], ["--dry-run"], ["--check"], ["--verify", "5"], ["--export", "x.csv"]):
        ending = program.run(*flags)
        assert ending.status == 2
        assert ending.output.count(words) == 1
        assert ("MAILTO" in ending.output) == (flags == ["--check"])
    assert iterable.calls == []
    assert [path.name for path in program.folder.iterdir()] == [program.env_file.name]


def test_a_run_that_its_settings_stopped_pinged_nothing(program: Program) -> None:
    with website() as health:
        settings = {"HEALTHCHECK_URL": health.url, "SYNC_NAME": "shop-eu", "DB_PORT": "x"}
        assert program.run("--dry-run", settings=settings).status == 2
        assert program.run("--verify", "1", settings=settings).status == 2
        assert health.requests == []
        assert program.run(settings=settings).status == 2
        assert program.run(settings={**settings, "HEALTHCHECK_URL": "nowhere"}).status == 2
        (ping,) = health.requests
    assert ping.line.split()[1] == "/fail"
    assert ping.body == b"shop-eu\nDB_PORT must be a whole number, not 'x'"


def test_a_report_of_an_aborted_run_did_not_say_why(program: Program) -> None:
    with website() as health:
        settings = {"HEALTHCHECK_URL": health.url, "DB_HOST": "127.0.0.1", "DB_PORT": "1"}
        assert program.run(settings=settings).status == 1
        start, fail = health.requests
    assert (start.line.split()[1], fail.line.split()[1]) == ("/start", "/fail")
    reason, _blank, heading = fail.body.decode().splitlines()[:3]
    assert reason.startswith("Cannot reach MySQL at 127.0.0.1:1")
    assert heading == "Run aborted"


def test_the_name_of_the_sync_is_in_everything_that_a_run_leaves_behind(
    program: Program, embedded: SourceDatabase
) -> None:
    add_users(embedded.run_sql, [1])
    metrics = program.folder / "sync.prom"
    settings = {"SYNC_NAME": "shop-eu", "METRICS_FILE": str(metrics), "REPORT": "true"}
    ending = program.run(settings=settings)
    assert ending.status == 0, ending.output
    assert "\nRun of shop-eu completed\n" in f"\n{ending.stdout}"
    assert program.results["sync"] == "shop-eu"
    assert "(per-user mode, shop-eu, run " in program.log
    assert "Run of shop-eu completed: 1 total users" in program.log
    assert 'iterable_sync_last_run_api_calls{sync="shop-eu"} 3\n' in metrics.read_text()
    (report,) = program.folder.glob("*.html")
    assert "of shop-eu" in report.read_text()
    assert program.run().status == 0
    assert program.results["sync"] is None


@pytest.mark.parametrize("mode", ["per-user", "bulk"])
def test_no_run_had_more_users_per_second_than_its_limit(
    program: Program, embedded: SourceDatabase, mode: str
) -> None:
    """A few rows take milliseconds; a run of unchanged rows had 20,000 users/s."""
    add_users(embedded.run_sql, [1, 2, 3])
    limits = {"USERS_UPDATE_RPS": "10", "BULK_UPDATE_RPS": "10", "BULK_BATCH_SIZE": "1"}
    assert program.run("--mode", mode, settings=limits).status == 0
    assert 0 < program.results["users_per_second"] <= 10
    assert program.run("--mode", mode, settings=limits).status == 0
    assert program.results["users_per_second"] == 0


def test_a_full_refresh_resends_unchanged_rows_and_duplicates_no_event(
    program: Program, embedded: SourceDatabase, iterable: IterableSandbox
) -> None:
    add_users(embedded.run_sql, range(1, 4))
    assert program.run().status == 0
    assert program.run("--full-refresh").status == 0
    assert counts_of(program.results) == {"successful": 3}
    assert len(sent_calls(iterable)) == 12
    check_project(iterable.project, range(1, 4))


def test_the_mode_flag_overrides_the_setting(
    program: Program, embedded: SourceDatabase, iterable: IterableSandbox
) -> None:
    add_users(embedded.run_sql, [1])
    assert program.run("--mode", "bulk", settings={"SYNC_MODE": "per-user"}).status == 0
    endpoints = [call.endpoint for call in sent_calls(iterable)]
    assert endpoints == ["users/bulkUpdate", "events/trackBulk"]
    assert program.results["mode"] == "bulk"


def test_the_history_shows_the_past_runs_the_newest_first(
    program: Program, embedded: SourceDatabase
) -> None:
    assert program.run("--history").stdout == "No run yet.\n"
    assert not program.state_file.exists()
    add_users(embedded.run_sql, [1, 2])
    program.run("--limit", "1")
    program.run(settings={"DB_USER": "nobody"})
    ending = program.run("--history")
    assert ending.status == 0
    aborted, completed = ending.stdout.splitlines()
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC  per-user  aborted .*nobody", aborted)
    assert re.search(r" completed +[\d.]+ s  1 total users, 1 successful$", completed)


def test_settings_come_from_a_file_and_real_variables_win(
    program: Program, embedded: SourceDatabase, iterable: IterableSandbox, tmp_path: Path
) -> None:
    add_users(embedded.run_sql, [1])
    in_file = {**program.settings, "SYNC_MODE": "bulk", "ITERABLE_API_KEY": "key-of-the-file"}
    program.env_file.write_text(
        "# made by hand\n"
        + "".join(f'export {name}="{value}"  # why\n' for name, value in in_file.items())
    )
    only_one: dict[str, str | None] = {**dict.fromkeys(program.settings), "SYNC_MODE": "per-user"}
    ending = program.run(settings=only_one, cwd=tmp_path)
    assert ending.status == 0, ending.output
    assert program.results["mode"] == "per-user"
    check_project(iterable.project, [1])


def test_a_password_with_odd_characters_is_read_from_the_file_as_it_is(
    mariadb: SourceDatabase, iterable: IterableSandbox, tmp_path: Path
) -> None:
    odd = "$HOME #1 \\\"ü' {x}"
    quoted = odd.replace("\\", "\\\\").replace("'", "\\'")
    mariadb.run_sql(
        f"CREATE USER odd@'%' IDENTIFIED BY '{quoted}'; GRANT SELECT ON sync_test.* TO odd@'%'"
    )
    try:
        add_users(mariadb.run_sql, [1])
        program = Program.between(tmp_path, mariadb, iterable, DB_USER="odd")
        program.env_file.write_text(f"DB_PASSWORD='{quoted}'\n", encoding="utf-8")
        ending = program.run(settings={"DB_PASSWORD": None})
        assert ending.status == 0, ending.output
    finally:
        mariadb.run_sql("DROP USER odd@'%'")


def test_settings_can_come_from_standard_input(program: Program) -> None:
    """`--env-file /dev/stdin` and `--env-file <(cat .env)` named "no file"."""
    settings = "".join(f"{name}={value}\n" for name, value in program.settings.items())
    command = [sys.executable, str(program.project / "main.py"), "--env-file", "/dev/stdin"]
    ended = subprocess.run(
        [*command, "--dry-run"],
        input=settings,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode in (0, 3), ended.stderr
    assert program.results["dry_run"]


def test_ctrl_c_ends_the_wait_for_an_env_file_that_nobody_writes(program: Program) -> None:
    program.env_file.unlink()
    os.mkfifo(program.env_file)
    running = program.start()
    writers: list[int] = []

    def is_opened_by_the_program() -> bool:
        with suppress(OSError):  # nobody reads yet
            writers.append(os.open(program.env_file, os.O_WRONLY | os.O_NONBLOCK))
        return bool(writers)

    wait_until(is_opened_by_the_program)
    running.send(signal.SIGINT)
    assert running.ending() == Ending(130, "", "")
    os.close(writers[0])


def test_an_empty_environment_variable_is_named_and_does_not_hide_the_file(
    program: Program,
) -> None:
    program.env_file.write_text("DB_NAME=from_the_file\n", encoding="utf-8")
    words = f"The environment variable DB_NAME is empty, so the value in {program.env_file} is used"
    for flag in ("--dry-run", "--check", "--history"):
        ending = program.run(flag, settings={"DB_NAME": ""})
        assert ending.output.count(words) == 1
        assert "is missing" not in ending.output
    assert words in program.log


def test_version_and_help_need_no_settings(tmp_path: Path) -> None:
    program = Program(tmp_path, {})
    version = program.run("--version", reads_env_file=False)
    assert (version.status, version.stderr) == (0, "")
    assert re.fullmatch(r"mysql-to-iterable \d+\.\d+\.\d+\n", version.stdout)
    usage = program.run("--help", reads_env_file=False)
    assert (usage.status, usage.stderr) == (0, "")
    for flag in ("--dry-run", "--limit N", "--mode", "--full-refresh", "--env-file PATH"):
        assert flag in usage.stdout
    assert "Exit status" in usage.stdout


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--limit", "0"], "must be a whole number, 1 or more, not '0'"),
        (["--limit", "ten"], "must be a whole number, 1 or more, not 'ten'"),
        (["--mode", "both"], "invalid choice: 'both'"),
        (["--dry"], "unknown flag --dry: did you mean --dry-run?"),
        (["--check", "--dry-run"], "--check does not use --dry-run: leave it out"),
        (["--quiet", "--verbose"], "not allowed with argument --quiet"),
        (["--env-file", "/nowhere/at.all"], "/nowhere/at.all is not an existing file"),
    ],
)
def test_a_bad_flag_is_one_line_and_status_2(
    program: Program, flags: list[str], message: str
) -> None:
    ending = program.run(*flags)
    assert (ending.status, ending.stdout) == (2, "")
    (line,) = ending.stderr.splitlines()
    assert message in line
    assert not program.log_file.exists()


def test_all_problems_of_the_settings_are_reported_at_once(
    program: Program, iterable: IterableSandbox, embedded: SourceDatabase
) -> None:
    add_users(embedded.run_sql, [1])
    wrong: dict[str, str | None] = {
        "DB_HOST": None,
        "DB_NAME": "",
        "ITERABLE_API_KEY": "your_iterable_api_key_here",
        "DB_PORT": "33o6",
        "DB_TIMEZONE": "Mars/Olympus",
        "SYNC_MODE": "fast",
        "USERS_UPDATE_RPS": "0",
        "MAX_ATTEMPTS": "many",
        "USER_FIELDS": "first_name,signupDate,itblInternal",
        "EVENT_FIELDS": "page,page",
        "LOG_LEVEL": "LOUD",
        "SEND_NULLS": "perhaps",
        "QUERY_FILE": "sql/none.sql",
        "RESULTS_DIR": "/nowhere/at/all",
        "STATE_FILE": "/nowhere/at/all",
        "ITERABLE_API_BASE_URL": "http://api.iterable.com",
    }
    ending = program.run(settings=wrong)
    assert (ending.status, ending.stdout) == (2, "")
    names = [line.split(" ", 1)[0] for line in ending.stderr.splitlines()]
    assert sorted(set(names)) == sorted(wrong)
    assert names.count("USER_FIELDS") == 2
    assert "ITERABLE_API_KEY still holds the template's placeholder" in ending.stderr
    assert "ITERABLE_API_BASE_URL must start with https://" in ending.stderr
    assert iterable.calls == []
    assert [path.name for path in program.folder.iterdir()] == ["settings.env"]


def test_the_api_key_is_never_sent_over_plain_http_to_another_machine(program: Program) -> None:
    for address in ("http://example.com", "http://127.0.0.1.example.com", "http://10.0.0.1:8080"):
        ending = program.run(settings={"ITERABLE_API_BASE_URL": address})
        assert ending.status == 2
        assert "must start with https://" in ending.stderr


def test_a_quiet_run_that_succeeds_prints_nothing(
    program: Program, embedded: SourceDatabase
) -> None:
    add_users(embedded.run_sql, [1])
    ending = program.run("--quiet")
    assert (ending.status, ending.output) == (0, "")
    assert counts_of(program.results) == {"successful": 1}
    # The file has everything all the same.
    assert email_of(1) in program.log
    assert API_KEY not in program.log
