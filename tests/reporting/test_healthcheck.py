"""Health check pings, sent to a real HTTP server on loopback."""

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

from config.version import VERSION
from reporting.healthcheck import Healthcheck

SECRET = "5f1c9a34-health-check-key"
SHORT = (0.3, 0.3)  # time-outs in seconds
SOON = 0.02  # seconds until the retry


@dataclass
class Ping:
    """A received request."""

    method: str
    path: str
    body: str
    content_type: str | None


class Receiver:
    """A small HTTP server that stores the pings; `respond` sends its response."""

    def __init__(self) -> None:
        self.pings: list[Ping] = []
        self.user_agents: list[str | None] = []
        self.respond: Callable[[BaseHTTPRequestHandler], None] = self.reply(200, b"OK")
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                content_type = self.headers.get("Content-Type")
                receiver.user_agents.append(self.headers.get("User-Agent"))
                receiver.pings.append(Ping("POST", self.path, body.decode(), content_type))
                receiver.respond(self)

            do_GET = do_POST

            def log_message(self, *_arguments: object) -> None:
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/{SECRET}"

    @staticmethod
    def reply(
        status: int, body: bytes = b"", **headers: str
    ) -> Callable[[BaseHTTPRequestHandler], None]:
        def respond(request: BaseHTTPRequestHandler) -> None:
            request.send_response(status)
            for name, value in headers.items():
                request.send_header(name, value)
            request.send_header("Content-Length", str(len(body)))
            request.end_headers()
            request.wfile.write(body)

        return respond

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


def test_start_and_success_are_pinged_with_the_summary_as_body(receiver: Receiver) -> None:
    check = Healthcheck(receiver.url, retry_after_seconds=SOON)
    check.started()
    check.succeeded("Run completed\n  users 26 ✓")
    assert receiver.pings == [
        Ping("POST", f"/{SECRET}/start", "", "text/plain; charset=utf-8"),
        Ping("POST", f"/{SECRET}", "Run completed\n  users 26 ✓", "text/plain; charset=utf-8"),
    ]


def test_a_failure_is_pinged_with_the_summary_as_body(receiver: Receiver) -> None:
    Healthcheck(receiver.url).failed("Run aborted: the database is unreachable")
    assert receiver.paths() == ["/check/fail"]
    assert receiver.pings[0].body == "Run aborted: the database is unreachable"


def test_every_ping_names_the_sync(receiver: Receiver) -> None:
    check = Healthcheck(receiver.url, sync="shop-eu")
    check.started()
    check.failed("Run aborted")
    assert [ping.body for ping in receiver.pings] == ["shop-eu\n", "shop-eu\nRun aborted"]


def test_pings_went_out_under_the_name_of_a_library(receiver: Receiver) -> None:
    Healthcheck(receiver.url).succeeded("")
    assert receiver.user_agents == [f"mysql-to-iterable/{VERSION}"]


def test_the_query_of_the_address_is_kept(receiver: Receiver) -> None:
    check = Healthcheck(receiver.url + "?create=1")
    check.started()
    check.succeeded("")
    assert receiver.paths() == ["/check/start?create=1", "/check?create=1"]


def test_without_an_address_nothing_is_sent() -> None:
    check = Healthcheck("")  # pytest-socket forbids connections
    check.started()
    check.succeeded("done")
    check.failed("not done")


def test_a_body_is_cut_at_the_size_that_the_service_stores(receiver: Receiver) -> None:
    Healthcheck(receiver.url, retry_after_seconds=SOON).succeeded("x" * 1_000_000)
    assert len(receiver.pings[0].body) == 100_000


def test_the_start_ping_is_not_waited_for_and_the_end_is_pinged_after_it(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    goes_on = threading.Event()
    happened: list[str] = []

    def slow_at_the_start(request: BaseHTTPRequestHandler) -> None:
        happened.append(f"{request.path.removeprefix('/' + SECRET)} arrived")
        if request.path.endswith("start"):
            goes_on.wait(10)
            time.sleep(0.1)
        happened.append("responded")
        receiver.reply(200, b"OK")(request)

    receiver.respond = slow_at_the_start
    check = Healthcheck(receiver.url, timeout_seconds=(2, 2))
    check.started()
    goes_on.set()
    check.succeeded("done")
    assert happened == ["/start arrived", "responded", " arrived", "responded"]
    assert caplog.records == []


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_transient_error_is_retried_once(
    receiver: Receiver, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    receiver.respond = receiver.reply(status)
    with at_most(3):
        Healthcheck(receiver.url, retry_after_seconds=SOON).failed("broken")
    assert receiver.paths() == ["/check/fail", "/check/fail"]
    assert [record.getMessage() for record in caplog.records] == [
        f"The failure was not reported to the health check: HTTP status {status}"
    ]


def test_a_retry_that_succeeds_logs_nothing(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    def fail_once(request: BaseHTTPRequestHandler) -> None:
        receiver.reply(503 if len(receiver.pings) == 1 else 200)(request)

    receiver.respond = fail_once
    Healthcheck(receiver.url, retry_after_seconds=SOON).succeeded("done")
    assert len(receiver.pings) == 2
    assert caplog.records == []


def test_a_wrong_address_is_not_retried(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.respond = receiver.reply(404)
    Healthcheck(receiver.url, retry_after_seconds=SOON).succeeded("done")
    assert len(receiver.pings) == 1
    assert "HTTP status 404" in caplog.text


def test_a_check_that_does_not_exist_is_logged(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.respond = receiver.reply(200, b"OK (not found)")
    Healthcheck(receiver.url, retry_after_seconds=SOON).succeeded("done")
    assert "the check does not exist" in caplog.text


def test_a_redirect_is_not_followed(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    receiver.respond = receiver.reply(302, Location=f"{receiver.url}/elsewhere")
    Healthcheck(receiver.url, retry_after_seconds=SOON).succeeded("done")
    assert receiver.paths() == ["/check"]
    assert "HTTP status 302" in caplog.text


def test_an_unreachable_service_delays_the_run_little(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, but not listening
        check = Healthcheck(f"http://127.0.0.1:{closed.getsockname()[1]}/{SECRET}")
        with at_most(3):
            check.started()
            check.succeeded("done")
    assert "The start was not reported to the health check: ConnectionError" in caplog.text
    assert "The success was not reported to the health check: ConnectionError" in caplog.text


def test_a_service_that_hangs_delays_the_run_by_the_time_out_at_most(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.respond = lambda _request: time.sleep(5)
    check = Healthcheck(receiver.url, timeout_seconds=SHORT, retry_after_seconds=SOON)
    with at_most(3):
        check.started()
        check.failed("broken")
    assert "ReadTimeout" in caplog.text


def test_a_response_that_never_ends_is_not_waited_for(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    ended = threading.Event()

    def drip(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not ended.wait(0.05):  # too often for a time-out
            request.wfile.write(b"x")
            request.wfile.flush()

    receiver.respond = drip
    check = Healthcheck(receiver.url, timeout_seconds=SHORT, finish_seconds=0.5)
    with at_most(2):
        check.succeeded("done")
    ended.set()
    assert "The health check service did not respond in time" in caplog.text


@pytest.mark.parametrize(
    "response", [b"", b"nonsense\r\n", b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n"]
)
def test_the_address_is_never_logged(
    receiver: Receiver, caplog: pytest.LogCaptureFixture, response: bytes
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "urllib3")

    def raw(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(response)
        request.close_connection = True

    receiver.respond = raw
    check = Healthcheck(receiver.url, timeout_seconds=SHORT, retry_after_seconds=SOON)
    check.started()
    check.failed("broken")
    assert receiver.pings
    assert SECRET not in caplog.text
    assert "127.0.0.1" not in caplog.text


def test_an_invalid_address_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
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
