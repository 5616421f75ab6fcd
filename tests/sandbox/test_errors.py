"""The sandbox's Iterable API in trouble: spoilt answers, broken connections, start and stop."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from sandbox.iterable_api import IterableSandbox
from tests.support.sandbox_calls import get, post

PROJECT_FOLDER = Path(__file__).resolve().parent.parent.parent
SARAH = "sarah.johnson@email.com"
UPDATE = {"email": SARAH, "dataFields": {"plan_type": "pro"}}
USERS = {"users": [UPDATE, {"email": "two@x.io"}, {"email": "malformed"}]}


@pytest.fixture
def sandbox() -> Iterator[IterableSandbox]:
    with IterableSandbox() as started:
        yield started


# Faults


@pytest.mark.parametrize(
    ("rule", "status", "text"),
    [
        ({"fault": "status", "status": 503}, 503, '"code":"GenericError"'),
        ({"fault": "status", "status": 401}, 401, '"code":"BadApiKey"'),
        ({"fault": "rate_limited", "reset": 0.05}, 429, '"rateLimitReset":0.05'),
        ({"fault": "rate_limited", "reset": None}, 429, '"rateLimitRemaining":0}'),
        ({"fault": "success_code_on_error"}, 500, '"code":"Success"'),
        ({"fault": "error_code_on_200", "code": "DatabaseError"}, 200, '"code":"DatabaseError"'),
        ({"fault": "echo_request"}, 400, "Api-Key: a-key"),
        ({"fault": "echo_request", "status": 500}, 500, SARAH),
        ({"fault": "empty_body"}, 200, ""),
        ({"fault": "html_body", "applied": False, "status": 502}, 502, "<h1>Bad Gateway</h1>"),
    ],
)
def test_a_spoilt_answer_that_applies_nothing(
    sandbox: IterableSandbox, rule: dict[str, Any], status: int, text: str
) -> None:
    sandbox.set_faults([{**rule, "times": 1}])
    answer = post(sandbox, "users/update", UPDATE)
    assert answer.status_code == status
    assert text in answer.text
    assert not sandbox.project.users
    assert post(sandbox, "users/update", UPDATE).ok


@pytest.mark.parametrize(
    ("rule", "status"),
    [
        ({"fault": "malformed_json"}, 200),
        ({"fault": "html_body"}, 200),
        ({"fault": "huge_body", "bytes": 100_000}, 200),
        ({"fault": "status", "status": 500, "applied": True}, 500),
    ],
)
def test_a_spoilt_answer_to_a_call_that_was_applied(
    sandbox: IterableSandbox, rule: dict[str, Any], status: int
) -> None:
    sandbox.set_faults([rule])
    answer = post(sandbox, "users/update", UPDATE)
    assert answer.status_code == status
    if rule["fault"] in ("malformed_json", "html_body"):
        with pytest.raises(requests.JSONDecodeError):
            answer.json()
    assert SARAH in sandbox.project.users


@pytest.mark.parametrize(
    ("fault", "is_applied"),
    [("drop_before", False), ("drop_after", True), ("half_body", True), ("down", False)],
)
def test_a_broken_connection(sandbox: IterableSandbox, fault: str, is_applied: bool) -> None:
    sandbox.set_faults([{"fault": fault}])
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        post(sandbox, "users/update", UPDATE)
    assert bool(sandbox.project.users) is is_applied


def test_control_calls_get_through_when_the_api_is_down(sandbox: IterableSandbox) -> None:
    sandbox.set_faults([{"fault": "unavailable_listener", "nth": [1, 3]}])
    with requests.Session() as session:
        outcomes = []
        for _ in range(3):
            try:
                url = f"{sandbox.url}/api/users/getFields"
                answer = session.get(url, headers={"Api-Key": "a-key"}, timeout=5)
                outcomes.append(str(answer.status_code))
            except requests.ConnectionError:
                outcomes.append("reset")
            session.post(f"{sandbox.url}/sandbox/limits", data=b"{}", timeout=5).raise_for_status()
    assert outcomes == ["reset", "200", "reset"]
    assert sandbox.state()["reset_connections"] == 2


def test_a_hanging_call_ends_when_its_client_leaves(sandbox: IterableSandbox) -> None:
    sandbox.set_faults([{"fault": "hang"}])
    with pytest.raises(requests.Timeout):
        post(sandbox, "users/update", UPDATE, timeout=0.1)
    counts = sandbox.state()["endpoints"]["users/update"]
    assert counts["answers"] == {"hung": 1}
    assert counts["in_flight"] == 0


def test_a_redirect_shows_whether_it_was_followed(sandbox: IterableSandbox) -> None:
    sandbox.set_faults([{"fault": "redirect", "status": 307}])
    answer = post(sandbox, "users/update", UPDATE)
    assert (answer.status_code, sandbox.state()["redirects_followed"]) == (307, 0)
    requests.get(f"{sandbox.url}{answer.headers['Location']}", timeout=5)
    assert sandbox.state()["redirects_followed"] == 1


def test_a_miscounted_batch_is_applied_and_its_counts_do_not_add_up(
    sandbox: IterableSandbox,
) -> None:
    sandbox.set_faults([{"fault": "miscount", "by": -1}])
    counts = post(sandbox, "users/bulkUpdate", USERS).json()
    assert counts["successCount"] + counts["failCount"] == 2
    assert len(sandbox.project.users) == 2


def test_a_fault_can_be_aimed_at_one_person_in_a_batch() -> None:
    faults = [{"fault": "status", "status": 500, "email": "TWO@x.io"}]
    with IterableSandbox(faults=faults) as sandbox:
        assert post(sandbox, "users/update", UPDATE).ok
        assert post(sandbox, "users/bulkUpdate", USERS).status_code == 500
        assert get(sandbox, "/api/users/two@x.io").status_code == 500


def test_the_failure_rate_gives_every_gateway_error() -> None:
    with IterableSandbox(failure_rate=1.0) as sandbox, requests.Session() as session:
        url = f"{sandbox.url}/api/users/getFields"
        statuses = {session.get(url, timeout=5).status_code for _ in range(40)}
    assert statuses == {500, 502, 503, 504}


def test_a_client_that_leaves_during_the_latency_had_its_call_applied() -> None:
    with IterableSandbox(latency_seconds=30) as sandbox:
        with pytest.raises(requests.Timeout):
            post(sandbox, "users/update", UPDATE, timeout=0.1)
        deadline = time.monotonic() + 5
        while sandbox.state()["endpoints"]["users/update"]["in_flight"]:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        assert sandbox.state()["endpoints"]["users/update"]["answers"] == {"client_left": 1}
        assert sandbox.calls[0].status is None
        assert SARAH in sandbox.project.users


# Start and stop


def test_it_stops_at_once_with_connections_idle_and_hanging() -> None:
    with IterableSandbox(faults=[{"fault": "hang"}]) as sandbox:
        port = int(sandbox.url.rpartition(":")[2])
        idle = socket.create_connection(("127.0.0.1", port), timeout=5)
        hanging = socket.create_connection(("127.0.0.1", port), timeout=5)
        hanging.sendall(b"GET /api/users/getFields HTTP/1.1\r\nHost: x\r\n\r\n")
        while not sandbox.calls:
            time.sleep(0.005)
        started_at = time.perf_counter()
    assert time.perf_counter() - started_at < 1
    for connection in (idle, hanging):
        with connection, pytest.raises(ConnectionError):
            connection.recv(1)
    assert sandbox.state()["calls"] == 1


def test_a_bad_option_or_a_foreign_address_is_refused_before_anything_starts() -> None:
    with pytest.raises(ValueError, match="loopback addresses only"):
        IterableSandbox(host="0.0.0.0")  # noqa: S104
    with pytest.raises(ValueError, match="no endpoint users/upsert"):
        IterableSandbox(limits={"users/upsert": 1})
    with pytest.raises(TypeError):
        IterableSandbox(latencyseconds=1)


def test_a_taken_port_is_an_error_of_the_start(sandbox: IterableSandbox) -> None:
    port = int(sandbox.url.rpartition(":")[2])
    with pytest.raises(OSError, match="address already in use"):
        IterableSandbox(port=port).start()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_program_serves_until_a_signal_and_exits_quietly(number: signal.Signals) -> None:
    command = [sys.executable, "-m", "sandbox", "--forgotten", SARAH, "--keep-calls", "5"]
    command += ["--field-type", "seen=date", "--fault-script", '[{"fault": "hang", "nth": 2}]']
    process = subprocess.Popen(
        command, cwd=PROJECT_FOLDER, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("Iterable sandbox listening on http://127.0.0.1:")
    url = f"{line.split()[-1]}/api/users/update"
    key = {"Api-Key": "a-secret-key"}
    assert requests.post(url, json=UPDATE, headers=key, timeout=5).status_code == 409
    with pytest.raises(requests.Timeout):
        requests.post(url, json=UPDATE, headers=key, timeout=0.1)
    process.send_signal(number)
    output, errors = process.communicate(timeout=10)
    assert (process.returncode, output, errors) == (0, "", "")


def test_bad_flags_are_refused_with_exit_status_2() -> None:
    for flags, complaint in (
        (["--host", "192.0.2.1"], "loopback addresses only"),
        (["--fault-script", '[{"fault": "delay"}]'], "fault rule 1 (delay): needs `seconds`"),
        (["--limit", "users/update"], "must be ENDPOINT=RPS[/sliding]"),
        (["--limit", "users/update=1.5/sliding"], "must be a whole number"),
    ):
        command = [sys.executable, "-m", "sandbox", *flags]
        ended = subprocess.run(
            command, cwd=PROJECT_FOLDER, capture_output=True, text=True, timeout=10, check=False
        )
        assert ended.returncode == 2
        assert complaint in ended.stderr
        assert "Traceback" not in ended.stderr
