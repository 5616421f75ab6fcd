"""`--listen` as a process: everything that Iterable, and others, may send to it.

WEBHOOKS=10000 sets the number of events, `--log-cli-level=INFO` shows the memory.
"""

from __future__ import annotations

import base64
import logging
import os
import re
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest
import requests

from sandbox.iterable_api import IterableSandbox
from sandbox.webhooks import WebhookMix, WebhookSender
from state.confirmations import Confirmations
from tests.conftest import SourceDatabase
from tests.support.program import Program
from tests.support.program_files import PROJECT_FOLDER
from tests.support.users import add_users

logger = logging.getLogger(__name__)

TOKEN = "0123456789-secret-token"
EVENTS = int(os.environ.get("WEBHOOKS", "1000"))


def listener_settings(folder: Path) -> dict[str, str]:
    (folder / "settings.env").touch()
    return {
        **{name: "x" for name in ("DB_HOST", "DB_USER", "DB_PASSWORD", "DB_NAME")},
        "ITERABLE_API_KEY": "a-key-of-this-test",
        "WEBHOOK_TOKEN": TOKEN,
        "CONFIRMATIONS_FILE": str(folder / "confirmations.sqlite3"),
        "LOG_FILE": str(folder / "listener.log"),
        "PATH": os.environ["PATH"],
    }


def command(folder: Path, address: str) -> list[str]:
    program = [sys.executable, str(PROJECT_FOLDER / "main.py")]
    return [*program, "--listen", address, "--env-file", str(folder / "settings.env")]


class Listener:
    """A running `main.py --listen`; its port stays the same when it is started again."""

    def __init__(
        self,
        folder: Path,
        *,
        host: str = "127.0.0.1",
        max_file_bytes: int | None = None,
        open_files: tuple[int, int] | None = None,
    ) -> None:
        self.folder = folder
        self._host = host
        self.file = folder / "confirmations.sqlite3"
        self.port = 0
        self._max_file_bytes = max_file_bytes
        self._open_files = open_files
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> Listener:
        def limit() -> None:
            if self._open_files is not None:
                resource.setrlimit(resource.RLIMIT_NOFILE, self._open_files)
            if self._max_file_bytes is not None:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(
                    resource.RLIMIT_FSIZE, (self._max_file_bytes, resource.RLIM_INFINITY)
                )

        self.process = subprocess.Popen(
            command(self.folder, f"{self._host}:{self.port}"),
            env=listener_settings(self.folder),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=limit,
        )
        assert self.process.stdout is not None
        found = re.search(
            r"http://(?:127\.0\.0\.1|0\.0\.0\.0|\[::1\]):(\d+)", self.process.stdout.readline()
        )
        assert found, self.process.stderr and self.process.stderr.read()
        self.port = int(found.group(1))
        return self

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/iterable"

    def post(self, content: Any, token: str = TOKEN, **more: Any) -> int:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        body = content if isinstance(content, bytes) else orjson.dumps(content)
        return requests.post(self.url, body, headers=headers, timeout=30, **more).status_code

    def memory_megabytes(self) -> float:
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found
        return int(found.group(1)) / 1_000

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """End it; return its status as a shell shows it, and what it printed."""
        assert self.process is not None
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=30)
        status = self.process.returncode
        return (128 - status if status < 0 else status), out + err


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    running = Listener(tmp_path).start()
    yield running
    if running.process is not None and running.process.poll() is None:
        running.end(signal.SIGKILL)


def event(number: int, *, with_id: bool = True) -> dict[str, Any]:
    named = {"id": f"page-view-{number}"} if with_id else {}
    return {"eventName": "page_view", "email": f"user{number}@example.com", **named}


def confirmed(listener: Listener, numbers: range) -> int:
    ids = [f"page-view-{number}" for number in numbers]
    return len(Confirmations(listener.file).confirmed_at(ids))


def test_a_call_is_answered_by_token_method_size_and_content(listener: Listener) -> None:
    assert listener.post(event(1)) == 200
    assert listener.post({"eventName": "brandNewKind", "x": {"y": [1]}}) == 200
    for token in ("", "wrong-token-0123456789", TOKEN[:-1], TOKEN + "x"):
        assert listener.post(event(2), token) == 401
    for body in (b"", b"not json", b"[1]", b"\xff\xfe"):
        assert listener.post(body) == 400
    headers = {"Authorization": TOKEN}
    assert requests.get(listener.url, headers=headers, timeout=10).status_code == 405
    assert listener.post({"x": "y" * 300_000}) == 413
    assert confirmed(listener, range(5)) == 1
    assert Confirmations(listener.file).counts() == {"brandNewKind": 1, "page_view": 1}


@pytest.mark.parametrize(
    "header",
    [
        *(TOKEN, f"Basic {TOKEN}", f"OAuth2 {TOKEN}", f"Bearer {TOKEN}"),
        f"Basic {base64.b64encode(f'anybody:{TOKEN}'.encode()).decode()}",
    ],
)
def test_the_token_may_stand_behind_any_scheme(listener: Listener, header: str) -> None:
    answer = requests.post(
        listener.url, orjson.dumps(event(1)), headers={"Authorization": header}, timeout=10
    )
    assert answer.status_code == 200
    in_path = requests.post(f"{listener.url}/{TOKEN}", orjson.dumps(event(2)), timeout=10)
    assert in_path.status_code == 200


def test_many_events_with_repeats_late_ones_garbage_and_a_slow_client_are_counted_right(
    listener: Listener,
) -> None:
    for number in range(50):
        listener.post(event(-1 - number))
    before = listener.memory_megabytes()
    slow = socket.create_connection(("127.0.0.1", listener.port))
    slow.sendall(b"POST /x HTTP/1.1\r\nContent-Length: 100000\r\n")  # and then nothing

    def send(number: int) -> int:
        if number % 10 == 3:
            assert listener.post(b"garbage") == 400
        if number % 10 == 5:
            assert listener.post(event(number), "wrong-token-0123456789") == 401
        status = listener.post(event(number))
        if number % 10 == 7:
            assert listener.post(event(number)) == 200
        return status

    with ThreadPoolExecutor(32) as pool:
        assert set(pool.map(send, range(EVENTS))) == {200}
    assert confirmed(listener, range(EVENTS)) == EVENTS
    assert Confirmations(listener.file).counts() == {"page_view": EVENTS + 50}
    after = listener.memory_megabytes()
    logger.info("%s events: %.1f MB before, %.1f MB after", EVENTS, before, after)
    assert after < before + 15
    slow.close()
    status, printed = listener.end()
    assert status == 143
    assert f"{EVENTS + 50:,} of them new" in printed


def post_at_once(listener: Listener, count: int) -> set[int]:
    """Open so many connections, post an event on each of them, and return the statuses."""
    start = threading.Barrier(count)

    def send(number: int) -> int:
        with socket.create_connection(("127.0.0.1", listener.port), timeout=30) as connection:
            start.wait(30)
            body = orjson.dumps(event(number))
            connection.sendall(
                b"POST /%b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b"
                % (TOKEN.encode(), len(body), body)
            )
            return int(connection.recv(1_000).split(b" ")[1])

    with ThreadPoolExecutor(count) as pool:
        return set(pool.map(send, range(count)))


def test_two_hundred_connections_at_once_are_all_answered(listener: Listener) -> None:
    assert post_at_once(listener, 200) == {200}
    assert confirmed(listener, range(200)) == 200


@pytest.mark.parametrize(("soft", "hard"), [(64, 4_096), (64, 64)])
def test_with_few_open_files_some_of_many_calls_got_503(
    tmp_path: Path, soft: int, hard: int
) -> None:
    listener = Listener(tmp_path, open_files=(soft, hard)).start()
    assert post_at_once(listener, 100) == {200}
    status, printed = listener.end()
    assert status == 143
    assert "Traceback" not in printed


def test_what_was_answered_with_200_survives_a_kill(listener: Listener) -> None:
    answered: list[int] = []

    def send() -> None:
        for number in range(5_000):
            try:
                if listener.post(event(number)) == 200:
                    answered.append(number)
            except requests.ConnectionError:
                return

    sender = threading.Thread(target=send)
    sender.start()
    time.sleep(1.0)
    assert listener.end(signal.SIGKILL)[0] == 137
    sender.join(30)
    assert answered
    ids = [f"page-view-{number}" for number in answered]
    assert len(Confirmations(listener.file).confirmed_at(ids)) == len(ids)
    listener.start()  # on the same port
    assert listener.post(event(answered[-1])) == 200
    assert len(Confirmations(listener.file).confirmed_at(ids)) == len(ids)


class Load:
    """Threads that post events until the listener has gone."""

    def __init__(self, listener: Listener, threads: int = 30) -> None:
        self._listener = listener
        self.stored: list[int] = []  # answered with 200
        self._threads = [
            threading.Thread(target=self._send, args=(1_000_000 * each,)) for each in range(threads)
        ]
        for each in self._threads:
            each.start()

    def _send(self, number: int) -> None:
        while True:
            number += 1
            try:
                status = self._listener.post(event(number))
            except requests.ConnectionError:
                return
            if status == 200:
                self.stored.append(number)

    def join(self) -> None:
        for each in self._threads:
            each.join(30)

    def stored_count(self) -> int:
        """Return how many of them are in the file."""
        ids = [f"page-view-{number}" for number in self.stored]
        return len(Confirmations(self._listener.file).confirmed_at(ids))


def test_sigterm_under_load_was_logged_with_tracebacks(listener: Listener) -> None:
    load = Load(listener)
    time.sleep(1.0)
    status, printed = listener.end()
    load.join()
    assert status == 143
    assert load.stored_count() == len(load.stored) > 0
    for text in ("Traceback", "Canceling", "Task queue depth"):
        assert text not in printed


def test_sigterm_destroyed_the_file_when_it_was_opened_anew(listener: Listener) -> None:
    """The pipe that waitress' threads write to was closed, and the file got its number.

    The file is opened anew after an error, here ten seconds of waiting for a lock.
    """
    assert listener.post(event(0)) == 200
    lock = sqlite3.connect(listener.file, isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    with ThreadPoolExecutor(12) as pool:
        first = pool.submit(listener.post, event(1))
        time.sleep(0.3)
        others = [pool.submit(listener.post, event(number)) for number in range(2, 13)]
        time.sleep(0.5)
        assert listener.process is not None
        listener.process.send_signal(signal.SIGTERM)
        assert first.result(30) == 503
        time.sleep(0.5)
        lock.execute("ROLLBACK")
        lock.close()
        assert [call.result(30) for call in others] == [200] * 11
    assert listener.process.wait(30) == 143
    assert confirmed(listener, range(13)) == 12


def test_the_file_was_deleted_or_moved_and_the_answer_was_200(listener: Listener) -> None:
    assert listener.post(event(1)) == 200
    for suffix in ("", "-wal", "-shm"):
        Path(f"{listener.file}{suffix}").unlink(missing_ok=True)
    assert listener.post(event(2)) == 200
    assert confirmed(listener, range(5)) == 1
    listener.file.rename(listener.folder / "moved.sqlite3")
    assert listener.post(event(3)) == 200
    assert confirmed(listener, range(5)) == 1


def needs_ipv6() -> None:
    with closing(socket.socket(socket.AF_INET6)) as taken:
        try:
            taken.bind(("::1", 0))
        except OSError:
            pytest.skip("needs IPv6")


def test_the_address_of_ipv6_was_printed_without_brackets(tmp_path: Path) -> None:
    needs_ipv6()
    listener = Listener(tmp_path, host="[::1]").start()
    assert listener.end()[0] == 143


def test_a_host_with_two_addresses_was_a_bug(tmp_path: Path) -> None:
    """As localhost is on most machines."""
    needs_ipv6()
    listener = Listener(tmp_path, host="*").start()
    assert listener.post(event(1)) == 200
    assert listener.end()[0] == 143


def test_while_the_disk_is_full_the_answer_is_503(tmp_path: Path) -> None:
    listener = Listener(tmp_path, max_file_bytes=150_000).start()
    statuses = [listener.post(event(number)) for number in range(1_500)]
    stored = statuses.count(200)
    assert set(statuses) == {200, 503}
    assert confirmed(listener, range(1_500)) == stored
    status, printed = listener.end()
    assert status == 143
    assert "HTTP 503" in printed
    roomy = Listener(tmp_path).start()
    assert roomy.post(event(1_499)) == 200
    roomy.end()


def refused(folder: Path, address: str) -> tuple[int, str]:
    """Start a listener that cannot listen; return its exit status and its errors."""
    done = subprocess.run(
        command(folder, address), env=listener_settings(folder), capture_output=True, text=True
    )
    return done.returncode, done.stderr


def test_a_port_in_use_is_a_clear_error(tmp_path: Path) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        status, errors = refused(tmp_path, str(taken.getsockname()[1]))
    assert status == 1
    assert "Address already in use" in errors
    assert "choose another port" in errors


@pytest.mark.parametrize("host", ["no-such-host.invalid", "192.0.2.1"])
def test_a_host_that_is_not_this_machine_is_told_from_a_port_in_use(
    tmp_path: Path, host: str
) -> None:
    status, errors = refused(tmp_path, f"{host}:8080")
    assert status == 1
    assert f"Cannot listen on {host}:8080" in errors
    assert "another address of this machine" in errors
    assert "another port" not in errors


def test_a_runs_events_are_confirmed_by_the_sandboxs_webhooks(
    listener: Listener, embedded: SourceDatabase, tmp_path: Path
) -> None:
    add_users(embedded.run_sql, range(1, 101))
    mix = WebhookMix(twice=0.3, late=0.3, never=0.1, without_id=0.5, late_seconds=0.5)
    sender = WebhookSender(listener.url, TOKEN, mix, seed=7)
    folder = tmp_path / "run"
    with IterableSandbox(on_event=sender) as iterable:
        program = Program.between(folder, embedded, iterable, CONFIRMATIONS_FILE=str(listener.file))
        assert program.run().status == 0
        sender.close()
        missing = 100 - len(Confirmations(listener.file).confirmed_at(iterable.project.events))
        assert 0 < missing < 30
        history = program.run("--history").stdout
        assert f"confirmed {100 - missing} of 100 events" in history
        assert f"Webhooks of the last 30 days: {100 - missing} page_view" in history
        report = program.run(settings={"REPORT": "true"})
        note = f"Webhooks of the last run: confirmed {100 - missing} of 100 events"
        assert note in report.stdout
        (page,) = folder.glob("*.html")
        assert note in page.read_text("utf-8")
