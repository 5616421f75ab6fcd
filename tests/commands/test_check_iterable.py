"""`--check`: what is wrong with Iterable, as its answer to one harmless question shows."""

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


class TestIterable:
    def test_that_refuses_the_key_fails_with_all_that_it_can_mean(self, set_up: SetUp) -> None:
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
            ({"fault": "status", "status": 503}, "has a server error (HTTP 503)"),
            ({"fault": "status", "status": 400, "code": "BadParams"}, "HTTP 400 BadParams"),
            ({"fault": "drop_before"}, "cannot be reached"),
        ],
    )
    def test_that_answers_otherwise_fails_and_says_what_that_means(
        self, set_up: SetUp, api: IterableSandbox, fault: dict[str, Any], words: str
    ) -> None:
        api.set_faults([fault])
        lines = set_up.lines()
        assert failures(lines) == ["Iterable"]
        has_words(next(line for line in lines if not line.ok), words)
        assert lines[-1].text.startswith("not compared")

    def test_that_nobody_answers_for_fails(self, set_up: SetUp) -> None:
        nobody = f"http://127.0.0.1:{free_port()}"
        line = set_up.line("Iterable", ITERABLE_API_BASE_URL=nobody)
        assert not line.ok
        has_words(line, "cannot be reached", "HTTPS_PROXY", "ITERABLE_API_BASE_URL")

    def test_that_is_asked_too_often_says_nothing_of_the_key(
        self, set_up: SetUp, api: IterableSandbox
    ) -> None:
        api.set_faults([{"fault": "rate_limited"}])
        line = set_up.line("Iterable")
        assert line.ok
        assert line.is_warning

    def test_whose_certificate_nobody_vouches_for_fails(self, set_up: SetUp) -> None:
        with UntrustedServer(set_up.folder) as address:
            line = set_up.line("Iterable", ITERABLE_API_BASE_URL=address)
        assert not line.ok
        has_words(line, "certificate is not trusted", "REQUESTS_CA_BUNDLE")


class UntrustedServer:
    """A web server on loopback whose certificate is its own word only."""

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
