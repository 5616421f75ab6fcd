"""The canary: a marked key, password and e-mail go every way through the whole program.

Every file and every line that comes out is searched for them, and the process list too. What is
found where it must not be is a secret in somebody's log.
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

from sandbox.iterable_api import IterableSandbox
from sandbox.mysql_server import MySQLSandbox
from tests.conftest import SCHEMA
from tests.support.mariadb import free_port
from tests.support.program import Ending, Program, Running, copy_of_project, wait_until
from tests.support.users import WINDOW, add_user, add_users

KEY = "c4nary0key0c4nary0key0c4nary0key"
PASSWORD = 'c4nary pässword\'s "$HOME" \\ #1'
EMAIL = "c4nary.person@example.com"
CANARY_ID = 77


@dataclass(frozen=True)
class Way:
    """One way through the program: what goes wrong, how it is started, how it ends."""

    name: str
    status: int
    faults: Sequence[Mapping[str, Any]] = ()
    settings: Mapping[str, str | None] = field(default_factory=dict)
    flags: Sequence[str] = ()
    stopped_by: signal.Signals | None = None


@pytest.fixture(scope="module")
def mysql() -> Iterator[MySQLSandbox]:
    """A MySQL server that knows the marked password, with the marked person among others."""
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
            "BULK_UPDATE_RPS": "100",
        },
    )


def forms_of(secret: str) -> set[bytes]:
    """Every spelling in which a secret might slip through."""
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
    """Everything that a run wrote, by the name of where."""
    found = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    if ending is not None:
        found |= {"stdout": ending.stdout.encode(), "stderr": ending.stderr.encode()}
    return found


def places_of(secret: str, found: Mapping[str, bytes]) -> list[str]:
    """Name the places where a secret stands in any spelling."""
    forms = forms_of(secret)
    return [where for where, content in found.items() if any(form in content for form in forms)]


def process_list(running: Running) -> bytes:
    """What everybody on the machine can see of the process."""
    folder = Path(f"/proc/{running.pid}")
    names = [path.read_bytes() for path in folder.glob("task/*/comm")]
    return (folder / "cmdline").read_bytes() + b"".join(names)


QUICK = (
    Way("kill -9", 137, [{"fault": "hang"}], stopped_by=signal.SIGKILL),
    Way("success", 0),
    Way("400 that echoes", 3, [{"fault": "echo_request", "status": 400}]),
    Way("401", 1, [{"fault": "status", "status": 401, "msg": f"Invalid API key {KEY}"}]),
    Way("access denied", 1, settings={"DB_USER": "c4nary"}),
    Way("bad settings", 2, settings={"DB_PORT": "x", "SYNC_MODE": "x", "DB_HOST": None}),
)
SLOW = (
    Way("SIGTERM", 143, [{"fault": "hang"}], stopped_by=signal.SIGTERM),
    Way("success in bulk", 0, flags=["--mode", "bulk"]),
    Way("everything printed", 0, flags=["--verbose"]),
    Way("dry run", 0, flags=["--dry-run", "--limit", "9"]),
    Way("as JSON", 0, flags=["--json"]),
    Way("400 that echoes in bulk", 3, [{"fault": "echo_request"}], flags=["--mode", "bulk"]),
    Way("500 that echoes", 3, [{"fault": "echo_request", "status": 500}]),
    Way("503", 3, [{"fault": "status", "status": 503, "msg": f"Api-Key: {KEY}", "times": 4}]),
    Way("200 that is none", 3, [{"fault": "error_code_on_200", "msg": f"{KEY} {EMAIL}"}]),
    Way("no JSON", 3, [{"fault": "malformed_json"}]),
    Way("half an answer", 3, [{"fault": "half_body"}]),
    Way("dropped", 3, [{"fault": "drop_before"}]),
    Way("redirect", 1, [{"fault": "redirect", "location": f"https://127.0.0.1/?k={KEY}"}]),
    Way("no such query", 1, settings={"QUERY_FILE": "state_file.py"}),
    Way("bad key", 2, settings={"ITERABLE_API_KEY": f"{KEY} {KEY}"}),
    Way("key in the address", 2, settings={"ITERABLE_API_BASE_URL": f"https://{KEY}@x.com/"}),
    Way("key in a bad address", 2, settings={"HEALTHCHECK_URL": f"//{KEY}"}),
    Way("bad flag", 2, flags=["--nonsense"]),
    Way("unreachable", 1, settings={"DB_PORT": str(free_port())}),
    Way("time-out", 3, [{"fault": "hang", "email": EMAIL, "times": 1}], {"MAX_ATTEMPTS": "1"}),
)


def take(
    ways: Sequence[Way], mysql: MySQLSandbox, folder: Path
) -> Iterator[tuple[Way, Program, Ending, bytes]]:
    """Take all the ways at once; give how each ended, and what the process list showed of it."""
    with ExitStack() as stack:
        started = []
        for number, way in enumerate(ways):
            iterable = stack.enter_context(IterableSandbox(faults=way.faults))
            program = program_of(folder / str(number), mysql, iterable)
            running = program.start(*way.flags, settings=way.settings)
            started.append((way, program, running, iterable, process_list(running)))
        for way, program, running, iterable, listed in started:
            if way.stopped_by is not None:
                wait_until(lambda i=iterable: bool(i.calls))  # type: ignore[misc]
                running.send(way.stopped_by)
            yield way, program, running.ending(), listed


def check(way: Way, program: Program, ending: Ending, listed: bytes) -> None:
    """Check how one way ended, and that nothing came out of it."""
    assert ending.status == way.status, (way.name, ending.output)
    assert "Traceback" not in ending.output, way.name
    found = {**written(program.folder, ending), "the process list": listed}
    for secret in (KEY, PASSWORD):
        assert places_of(secret, found) == [], way.name


def test_key_and_password_come_out_nowhere(mysql: MySQLSandbox, tmp_path: Path) -> None:
    programs = {}
    for way, program, ending, listed in take(QUICK, mysql, tmp_path):
        check(way, program, ending, listed)
        programs[way.name] = program
    # The search finds what is there, and there was something to take out.
    assert places_of(EMAIL, written(programs["success"].folder, None))
    assert "Api-Key: [api key]" in programs["400 that echoes"].log
    echoed = programs["400 that echoes"].results["records"][0]["users_update"]["response"]["msg"]
    assert "Api-Key: [api key]" in echoed


@pytest.mark.slow
def test_key_and_password_come_out_nowhere_on_rarer_ways_either(
    mysql: MySQLSandbox, tmp_path: Path
) -> None:
    for way, program, ending, listed in take(SLOW, mysql, tmp_path):
        check(way, program, ending, listed)
        if way.name == "time-out":
            assert "Timeout" in program.log


def test_a_crash_that_holds_every_secret_writes_none(
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


@pytest.mark.slow
@pytest.mark.parametrize("log_payloads", ["true", "false"])
def test_what_looks_at_a_sync_lets_nothing_out_either(
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
        for action in (["--check"], ["--verify", "20"], ["--history"]):
            endings.append(program.run("--verbose", *action))
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
        "echo_request",
        *(pytest.param(f, marks=pytest.mark.slow) for f in ("none", "error_code_on_200")),
    ],
)
@pytest.mark.parametrize("mode", ["per-user", pytest.param("bulk", marks=pytest.mark.slow)])
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
