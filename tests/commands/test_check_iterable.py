"""`--check`: address, certificate and key of the Iterable API."""

from __future__ import annotations

import ssl
import subprocess
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from sandbox.iterable_api import IterableSandbox
from tests.support.mariadb import free_port
from tests.support.set_up import SetUp, failures, has_words

pytest_plugins = ["tests.support.set_up_fixtures"]


def test_a_refused_key_fails_with_all_possible_reasons(set_up: SetUp) -> None:
    line = set_up.line("Iterable", ITERABLE_API_KEY="f" * 32)
    assert not line.ok
    has_words(line, "refused the API key (HTTP 401 BadApiKey)", "mistyped", "Server-side")
    has_words(line, "EU data centre: https://api.eu.iterable.com", "ITERABLE_API_BASE_URL")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"fault": "status", "status": 401, "code": "BadAuthorizationHeader"}, "JWT-enabled"),
        ({"fault": "status", "status": 401, "code": "InvalidJwtPayload"}, "JWT-enabled"),
        (
            {"fault": "status", "status": 401, "code": "Unauthorized", "msg": "Bad JWT"},
            "JWT-enabled",
        ),
        ({"fault": "status", "status": 403, "code": "Forbidden"}, "client-side key"),
        ({"fault": "html_body", "status": 401}, "does not lead to Iterable's API"),
        ({"fault": "html_body", "status": 200}, "does not lead to Iterable's API"),
        ({"fault": "empty_body", "status": 200}, "does not lead to Iterable's API"),
        ({"fault": "error_code_on_200", "code": "Success"}, "does not lead to Iterable's API"),
        ({"fault": "redirect", "status": 302}, "does not lead to Iterable's API (HTTP 302)"),
        ({"fault": "status", "status": 404}, "does not lead to Iterable's API (HTTP 404)"),
        ({"fault": "status", "status": 503}, "server error (HTTP 503)"),
        ({"fault": "status", "status": 400, "code": "BadParams"}, "HTTP 400 BadParams"),
        ({"fault": "drop_before"}, "cannot be reached"),
    ],
)
def test_an_unexpected_response_fails_with_an_explanation(
    set_up: SetUp, api: IterableSandbox, fault: dict[str, Any], words: str
) -> None:
    api.set_faults([fault])
    lines = set_up.lines()
    assert failures(lines) == ["Iterable"]
    has_words(next(line for line in lines if not line.ok), words)
    assert lines[-1].text.startswith("not compared")


def test_an_unreachable_api_fails(set_up: SetUp) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    line = set_up.line("Iterable", ITERABLE_API_BASE_URL=nobody)
    assert not line.ok
    has_words(line, "cannot be reached", "HTTPS_PROXY", "ITERABLE_API_BASE_URL")


def test_a_429_is_a_warning(set_up: SetUp, api: IterableSandbox) -> None:
    api.set_faults([{"fault": "rate_limited"}])
    line = set_up.line("Iterable")
    assert line.ok
    assert line.is_warning


def test_an_untrusted_certificate_fails(set_up: SetUp) -> None:
    with UntrustedServer(set_up.folder) as address:
        line = set_up.line("Iterable", ITERABLE_API_BASE_URL=address)
    assert not line.ok
    has_words(line, "certificate is not trusted", "REQUESTS_CA_BUNDLE")


class UntrustedServer:
    """A web server on loopback with a self-signed certificate."""

    def __init__(self, folder: Path) -> None:
        key, certificate = folder / "key.pem", folder / "certificate.pem"
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
                *("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
                *("-keyout", str(key), "-out", str(certificate)),
            ],
            check=True,
            capture_output=True,
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> str:
        self._thread.start()
        return f"https://127.0.0.1:{self._server.server_port}"

    def __exit__(self, *ending: object) -> None:
        self._server.shutdown()
        self._server.server_close()
