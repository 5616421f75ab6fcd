"""The health check, told to a real receiver on loopback."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from reporting.healthcheck import Healthcheck

SECRET = "5f1c9a34-health-check-key"
SHORT = (0.3, 0.3)  # time-outs, seconds
SOON = 0.02  # until the second try, seconds


@dataclass
class Ping:
    """A request as it arrived."""

    method: str
    path: str
    body: str
    content_type: str | None


class Receiver:
    """A small HTTP server that notes the pings and answers as it is told."""

    def __init__(self) -> None:
        self.pings: list[Ping] = []
        self.answer: Callable[[BaseHTTPRequestHandler], None] = self.say(200, b"OK")
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                content_type = self.headers.get("Content-Type")
                receiver.pings.append(Ping("POST", self.path, body.decode(), content_type))
                receiver.answer(self)

            do_GET = do_POST

            def log_message(self, *_arguments: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/{SECRET}"

    @staticmethod
    def say(
        status: int, body: bytes = b"", **headers: str
    ) -> Callable[[BaseHTTPRequestHandler], None]:
        def answer(request: BaseHTTPRequestHandler) -> None:
            request.send_response(status)
            for name, value in headers.items():
                request.send_header(name, value)
            request.send_header("Content-Length", str(len(body)))
            request.end_headers()
            request.wfile.write(body)

        return answer

    def paths(self) -> list[str]:
        return [ping.path.replace(SECRET, "check") for ping in self.pings]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    began_at = time.monotonic()
    yield
    assert time.monotonic() - began_at < seconds


def test_start_and_success_are_told_with_the_summary_as_body(receiver: Receiver) -> None:
    check = Healthcheck(receiver.url, retry_after_seconds=SOON)
    check.started()
    check.succeeded("Run completed\n  users 26 ✓")
    assert receiver.pings == [
        Ping("POST", f"/{SECRET}/start", "", "text/plain; charset=utf-8"),
        Ping("POST", f"/{SECRET}", "Run completed\n  users 26 ✓", "text/plain; charset=utf-8"),
    ]


def test_a_failure_is_told_with_the_summary_as_body(receiver: Receiver) -> None:
    Healthcheck(receiver.url).failed("Run aborted: the database is unreachable")
    assert receiver.paths() == ["/check/fail"]
    assert receiver.pings[0].body == "Run aborted: the database is unreachable"


def test_the_query_of_the_address_is_kept(receiver: Receiver) -> None:
    check = Healthcheck(receiver.url + "?create=1")
    check.started()
    check.succeeded("")
    assert receiver.paths() == ["/check/start?create=1", "/check?create=1"]


def test_without_an_address_nothing_is_told() -> None:
    check = Healthcheck("")  # pytest-socket would not let it out
    check.started()
    check.succeeded("done")
    check.failed("not done")


def test_a_body_is_cut_where_the_service_would_cut_it(receiver: Receiver) -> None:
    Healthcheck(receiver.url, retry_after_seconds=SOON).succeeded("x" * 1_000_000)
    assert len(receiver.pings[0].body) == 100_000


def test_a_start_is_not_waited_for_and_the_end_is_told_after_it(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    goes_on = threading.Event()
    happened: list[str] = []

    def slow_at_the_start(request: BaseHTTPRequestHandler) -> None:
        happened.append(f"{request.path.removeprefix('/' + SECRET)} arrived")
        if request.path.endswith("start"):
            goes_on.wait(10)
            time.sleep(0.1)
        happened.append("answered")
        receiver.say(200, b"OK")(request)

    receiver.answer = slow_at_the_start
    check = Healthcheck(receiver.url, timeout_seconds=(2, 2))
    check.started()
    goes_on.set()
    check.succeeded("done")
    assert happened == ["/start arrived", "answered", " arrived", "answered"]
    assert caplog.records == []


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_receiver_in_trouble_is_tried_once_more(
    receiver: Receiver, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    receiver.answer = receiver.say(status)
    with at_most(3):
        Healthcheck(receiver.url, retry_after_seconds=SOON).failed("broken")
    assert receiver.paths() == ["/check/fail", "/check/fail"]
    assert [record.getMessage() for record in caplog.records] == [
        f"The health check could not be told of the failure: it answered HTTP {status}"
    ]


def test_a_second_try_that_works_is_no_trouble(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    def fail_once(request: BaseHTTPRequestHandler) -> None:
        receiver.say(503 if len(receiver.pings) == 1 else 200)(request)

    receiver.answer = fail_once
    Healthcheck(receiver.url, retry_after_seconds=SOON).succeeded("done")
    assert len(receiver.pings) == 2
    assert caplog.records == []


def test_a_wrong_address_is_not_tried_again(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answer = receiver.say(404)
    Healthcheck(receiver.url, retry_after_seconds=SOON).succeeded("done")
    assert len(receiver.pings) == 1
    assert "HTTP 404" in caplog.text


def test_a_check_that_does_not_exist_is_said(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answer = receiver.say(200, b"OK (not found)")
    Healthcheck(receiver.url, retry_after_seconds=SOON).succeeded("done")
    assert "it does not exist" in caplog.text


def test_a_redirect_is_not_followed(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    receiver.answer = receiver.say(302, Location=f"{receiver.url}/elsewhere")
    Healthcheck(receiver.url, retry_after_seconds=SOON).succeeded("done")
    assert receiver.paths() == ["/check"]
    assert "HTTP 302" in caplog.text


def test_a_receiver_that_is_down_delays_little_and_breaks_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, but not listening
        check = Healthcheck(f"http://127.0.0.1:{nobody.getsockname()[1]}/{SECRET}")
        with at_most(3):
            check.started()
            check.succeeded("done")
    assert "could not be told of the start: ConnectionError" in caplog.text
    assert "could not be told of the success: ConnectionError" in caplog.text


def test_a_receiver_that_hangs_delays_no_longer_than_its_time_outs(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answer = lambda _request: time.sleep(5)
    check = Healthcheck(receiver.url, timeout_seconds=SHORT, retry_after_seconds=SOON)
    with at_most(3):
        check.started()
        check.failed("broken")
    assert "ReadTimeout" in caplog.text


def test_an_answer_that_never_ends_is_not_waited_for(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    ended = threading.Event()

    def drip(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not ended.wait(0.05):  # never silent for long enough to be a time-out
            request.wfile.write(b"x")
            request.wfile.flush()

    receiver.answer = drip
    check = Healthcheck(receiver.url, timeout_seconds=SHORT, settle_seconds=0.5)
    with at_most(2):
        check.succeeded("done")
    ended.set()
    assert "The health check does not answer" in caplog.text


@pytest.mark.parametrize("answer", [b"", b"nonsense\r\n", b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n"])
def test_the_address_is_in_no_log_line_whatever_the_receiver_does(
    receiver: Receiver, caplog: pytest.LogCaptureFixture, answer: bytes
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "urllib3")

    def raw(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(answer)
        request.close_connection = True

    receiver.answer = raw
    check = Healthcheck(receiver.url, timeout_seconds=SHORT, retry_after_seconds=SOON)
    check.started()
    check.failed("broken")
    assert receiver.pings
    assert SECRET not in caplog.text
    assert "127.0.0.1" not in caplog.text


def test_an_address_that_is_none_breaks_nothing(caplog: pytest.LogCaptureFixture) -> None:
    for url in ("http://[", "nonsense", "ftp://127.0.0.1/x", "http://127.0.0.1:99999/x"):
        Healthcheck(url, retry_after_seconds=SOON).succeeded("done")
    assert len(caplog.records) == 4
    assert "127.0.0.1" not in caplog.text


def test_other_requests_are_logged_as_before(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    import requests

    caplog.set_level(logging.DEBUG, "urllib3")
    Healthcheck(receiver.url, retry_after_seconds=SOON).succeeded("done")
    assert not caplog.records
    requests.get(receiver.url, timeout=5)
    assert caplog.records
