"""Redaction: a marked API key, password and e-mail in many situations of the whole program.

All files and output of the program and the process list are searched for them.
"""

from __future__ import annotations

import base64
import json
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from commands.console import print_payload
from logger_config import CONTROL_CHARACTERS
from sandbox.iterable_api import IterableSandbox
from sandbox.mysql_server import MySQLSandbox
from tests.conftest import SCHEMA
from tests.support.mariadb import free_port
from tests.support.program import Ending, Program, Running, copy_of_project, wait_until
from tests.support.users import WINDOW, add_user, add_users

KEY = "c4nary0key0c4nary0key0c4nary0key"
PASSWORD = 'c4nary pässword\'s "$HOME" \\ #1'
EMAIL = "c4nary.user@example.com"
CANARY_ID = 77


@dataclass(frozen=True)
class Situation:
    """One situation: the faults, settings and flags, and the expected exit status."""

    name: str
    status: int
    faults: Sequence[Mapping[str, Any]] = ()
    settings: Mapping[str, str | None] = field(default_factory=dict)
    flags: Sequence[str] = ()
    stopped_by: signal.Signals | None = None


@pytest.fixture(scope="module")
def mysql() -> Iterator[MySQLSandbox]:
    """A MySQL server with the marked password and, among others, the marked user."""
    with MySQLSandbox([SCHEMA], password=PASSWORD) as server:
        add_users(server.run_sql, range(1, 6))
        add_user(server.run_sql, CANARY_ID, EMAIL, first_name="Canary")
        yield server


def program_of(folder: Path, mysql: MySQLSandbox, iterable: IterableSandbox) -> Program:
    """Return the program with the marked key and password."""
    return Program(
        folder,
        {
            **WINDOW,
            "DB_HOST": mysql.host,
            "DB_PORT": str(mysql.port),
            "DB_USER": mysql.user,
            "DB_PASSWORD": PASSWORD,
            "DB_NAME": mysql.database,
            "ITERABLE_API_KEY": KEY,
            "ITERABLE_API_BASE_URL": iterable.url,
            "MAX_ATTEMPTS": "2",
            "OUTAGE_PATIENCE_SECONDS": "2",
            "BULK_UPDATE_RPS": "100",
        },
    )


def forms_of(secret: str) -> set[bytes]:
    """Return every spelling in which a secret might be written."""
    spelt = {
        secret,
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        repr(secret)[1:-1],
        ascii(secret)[1:-1],
        quote(secret),
        secret.replace("'", "''"),
    }
    raw = secret.encode()
    return {form.encode() for form in spelt} | {base64.b64encode(raw), raw.hex().encode()}


def written(folder: Path, ending: Ending | None) -> dict[str, bytes]:
    """Return all that a run wrote, by file or stream."""
    found = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    if ending is not None:
        found |= {"stdout": ending.stdout.encode(), "stderr": ending.stderr.encode()}
    return found


def places_of(secret: str, found: Mapping[str, bytes]) -> list[str]:
    """Return the files and streams that contain a secret in any spelling."""
    forms = forms_of(secret)
    return [where for where, content in found.items() if any(form in content for form in forms)]


def process_list(running: Running) -> bytes:
    """Return what other users of the machine can see of the process."""
    folder = Path(f"/proc/{running.pid}")
    names = [path.read_bytes() for path in folder.glob("task/*/comm")]
    return (folder / "cmdline").read_bytes() + b"".join(names)


QUICK = (
    Situation("kill -9", 137, [{"fault": "hang"}], stopped_by=signal.SIGKILL),
    Situation("success", 0),
    Situation("400 that echoes", 3, [{"fault": "echo_request", "status": 400}]),
    Situation("401", 1, [{"fault": "status", "status": 401, "msg": f"Invalid API key {KEY}"}]),
    Situation("access denied", 1, settings={"DB_USER": "c4nary"}),
    Situation("bad settings", 2, settings={"DB_PORT": "x", "SYNC_MODE": "x", "DB_HOST": None}),
)
SLOW = (
    Situation("SIGTERM", 143, [{"fault": "hang"}], stopped_by=signal.SIGTERM),
    Situation("success in bulk", 0, flags=["--mode", "bulk"]),
    Situation("everything printed", 0, flags=["--verbose"]),
    Situation("dry run", 0, flags=["--dry-run", "--limit", "9"]),
    Situation("as JSON", 0, flags=["--json"]),
    Situation("400 that echoes in bulk", 3, [{"fault": "echo_request"}], flags=["--mode", "bulk"]),
    Situation("500 that echoes", 1, [{"fault": "echo_request", "status": 500}]),
    Situation("503", 1, [{"fault": "status", "status": 503, "msg": f"Api-Key: {KEY}", "times": 4}]),
    Situation("200 that is none", 3, [{"fault": "error_code_on_200", "msg": f"{KEY} {EMAIL}"}]),
    Situation("no JSON", 1, [{"fault": "malformed_json"}]),
    Situation("half a response", 1, [{"fault": "half_body"}]),
    Situation("dropped", 1, [{"fault": "drop_before"}]),
    Situation("redirect", 1, [{"fault": "redirect", "location": f"https://127.0.0.1/?k={KEY}"}]),
    Situation("no such query", 1, settings={"QUERY_FILE": "main.py"}),
    Situation("bad key", 2, settings={"ITERABLE_API_KEY": f"{KEY} {KEY}"}),
    Situation("key in the address", 2, settings={"ITERABLE_API_BASE_URL": f"https://{KEY}@x.com/"}),
    Situation("key in a bad address", 2, settings={"HEALTHCHECK_URL": f"//{KEY}"}),
    Situation("bad flag", 2, flags=["--nonsense"]),
    Situation("unreachable", 1, settings={"DB_PORT": str(free_port())}),
    Situation(
        "time-out", 3, [{"fault": "hang", "email": EMAIL, "times": 1}], {"MAX_ATTEMPTS": "1"}
    ),
)


def run_all(
    situations: Sequence[Situation], mysql: MySQLSandbox, folder: Path
) -> Iterator[tuple[Situation, Program, Ending, bytes]]:
    """Run all situations at once; yield how each ended, and its entry in the process list."""
    with ExitStack() as stack:
        started = []
        for number, situation in enumerate(situations):
            iterable = stack.enter_context(IterableSandbox(faults=situation.faults))
            program = program_of(folder / str(number), mysql, iterable)
            running = program.start(*situation.flags, settings=situation.settings)
            started.append((situation, program, running, iterable, process_list(running)))
        for situation, program, running, iterable, listed in started:
            if situation.stopped_by is not None:
                wait_until(lambda i=iterable: bool(i.calls))  # type: ignore[misc]
                running.send(situation.stopped_by)
            yield situation, program, running.ending(), listed


def check(situation: Situation, program: Program, ending: Ending, listed: bytes) -> None:
    """Check how one situation ended, and that it revealed no secret."""
    assert ending.status == situation.status, (situation.name, ending.output)
    assert "Traceback" not in ending.output, situation.name
    found = {**written(program.folder, ending), "the process list": listed}
    for secret in (KEY, PASSWORD):
        assert places_of(secret, found) == [], situation.name


def test_no_output_holds_the_api_key_or_the_password(mysql: MySQLSandbox, tmp_path: Path) -> None:
    programs = {}
    for situation, program, ending, listed in run_all(QUICK, mysql, tmp_path):
        check(situation, program, ending, listed)
        programs[situation.name] = program
    # The search works, and there was something to redact.
    assert places_of(EMAIL, written(programs["success"].folder, None))
    assert "Api-Key: [api key]" in programs["400 that echoes"].log
    echoed = programs["400 that echoes"].results["records"][0]["users_update"]["response"]["msg"]
    assert "Api-Key: [api key]" in echoed


def test_no_output_holds_the_api_key_or_the_password_in_rarer_situations(
    mysql: MySQLSandbox, tmp_path: Path
) -> None:
    for situation, program, ending, listed in run_all(SLOW, mysql, tmp_path):
        check(situation, program, ending, listed)
        if situation.name == "time-out":
            assert "Timeout" in program.log


def test_a_traceback_full_of_secrets_is_redacted(
    mysql: MySQLSandbox, iterable: IterableSandbox, tmp_path: Path
) -> None:
    program = program_of(tmp_path / "run", mysql, iterable)
    program.project = copy_of_project(tmp_path / "project")
    code = program.project / "iterable_client.py"
    code.write_text(
        code.read_text() + "\n\ndef _crash(self, endpoint, body, subject='', **_):\n"
        "    import os\n"
        "    secrets = [os.environ['DB_PASSWORD'], self._http._headers]\n"
        "    try:\n"
        "        raise KeyError(secrets[0])\n"
        "    except KeyError as error:\n"
        "        raise RuntimeError(f'{secrets} {secrets[0]} {secrets[1]}') from error\n"
        "IterableClient.call = _crash\n"
    )
    ending = program.run("--verbose")
    assert ending.status == 70, ending.output
    assert "Traceback" not in ending.output
    assert "Traceback" in program.log
    assert "[database password]" in program.log
    found = written(program.folder, ending)
    for secret in (KEY, PASSWORD):
        assert places_of(secret, found) == []


@pytest.mark.parametrize("log_payloads", ["true", "false"])
def test_check_verify_history_and_export_reveal_no_secret(
    mysql: MySQLSandbox, tmp_path: Path, log_payloads: str
) -> None:
    ping = "c4nary-ping-c4nary"
    with IterableSandbox(api_key=KEY, keep_calls=100) as iterable:
        program = program_of(tmp_path / "run", mysql, iterable)
        program.settings |= {
            "LOG_PAYLOADS": log_payloads,
            "REPORT": "true",
            "METRICS_FILE": str(program.folder / "sync.prom"),
            "HEALTHCHECK_URL": f"{iterable.url}/{ping}",
        }
        endings = [program.run("--verbose", "--limit", "20")]
        for action in (["--check"], ["--verbose", "--verify", "20"], ["--history"]):
            endings.append(program.run(*action))
        export = program.folder / "rows.csv"
        endings.append(program.run("--verbose", "--export", str(export)))
    assert [ending.status for ending in endings] == [0] * 5, [e.output for e in endings]
    assert EMAIL in export.read_text()
    found = written(program.folder, None)
    found |= {f"output {number}": e.output.encode() for number, e in enumerate(endings)}
    assert any(path.suffix == ".html" for path in program.folder.iterdir())
    for secret in (KEY, PASSWORD, ping):
        assert places_of(secret, found) == []
    assert (EMAIL in program.log) == (log_payloads == "true")


@pytest.mark.parametrize(
    "fault",
    [
        *("echo_request", "none", "error_code_on_200"),
    ],
)
@pytest.mark.parametrize("mode", ["per-user", "bulk"])
def test_without_payloads_no_email_is_in_the_log_or_on_the_console(
    mysql: MySQLSandbox, tmp_path: Path, mode: str, fault: str
) -> None:
    faults = [{"fault": fault, "email": EMAIL}] if fault != "none" else []
    with IterableSandbox(faults=faults, invalid_emails=[EMAIL]) as iterable:
        program = program_of(tmp_path / "run", mysql, iterable)
        ending = program.run("--verbose", settings={"LOG_PAYLOADS": "false", "SYNC_MODE": mode})
    assert ending.status == 3, ending.output
    found = written(program.folder, ending)
    assert [Path(where).suffix for where in places_of(EMAIL, found)] == [".json"]
    assert {Path(where).suffix for where in places_of("Canary", found)} <= {".json"}
    assert "users/" in program.log


@pytest.mark.parametrize("password", ["example", "true", "total_users", "user"])
def test_a_password_that_is_an_ordinary_word_changed_payloads_and_json(
    password: str, iterable: IterableSandbox, tmp_path: Path
) -> None:
    """DB_PASSWORD=example made `ann@[database password].com` of an address."""
    with MySQLSandbox([SCHEMA], password=password) as server:
        add_user(server.run_sql, 1, "ann@example.com", first_name="true \u202e user")
        program = program_of(tmp_path, server, iterable)
        own = {"DB_PASSWORD": password}
        dry_run = program.run("--dry-run", "--limit", "1", settings=own)
        run = program.run("--json", settings=own)
        verified = program.run("--verify", "1", settings=own)
        exported = program.run("--export", str(tmp_path / "x.csv"), settings=own)
    assert [ending.status for ending in (dry_run, run, verified, exported)] == [0, 0, 0, 0]
    shown = dict(line.split(" ", 1) for line in dry_run.stdout.splitlines()[:2])
    assert {name: json.loads(body) for name, body in shown.items()} == {
        call.endpoint: call.body for call in iterable.calls if call.body is not None
    }
    assert "\u202e" not in dry_run.stdout
    summary = json.loads(run.stdout)
    assert summary == {name: value for name, value in program.results.items() if name != "records"}
    assert summary["total_users"] == 1
    assert "ann@example.com" in Path(tmp_path, "x.csv").read_text(encoding="utf-8")
    sent = [line for line in program.log.splitlines() if "attempt 1" in line]
    assert all('request {"email":"ann@example.com",' in line for line in sent)
    assert len(sent) == 2


def test_a_payload_is_valid_json_in_any_encoding_of_the_terminal(tmp_path: Path) -> None:
    body = '{"a":"\u00e9 \u202e \U000e0001 \u009b \u4e2d"}'.encode()
    for encoding in ("utf-8", "ascii", "latin-1"):
        path = tmp_path / encoding
        with path.open("w", encoding=encoding) as out:
            print_payload(out, "users/update", body)
        text = path.read_text(encoding=encoding)
        assert json.loads(text.removeprefix("users/update ")) == json.loads(body)
        assert not CONTROL_CHARACTERS.search(text.rstrip("\n"))
