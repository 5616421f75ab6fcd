"""The sandbox over TLS: who can connect, what is counted, and that faults reach the client."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from sandbox.__main__ import main
from sandbox.iterable_api import IterableSandbox
from tests.support.certificates import make_ca, make_certificate

UPDATE = {"email": "sarah.johnson@email.com", "dataFields": {"plan_type": "pro"}}


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_ca(tmp_path_factory.mktemp("tls") / "ca")


@pytest.fixture(scope="module")
def certificate(ca: Path) -> tuple[Path, Path]:
    return make_certificate(ca, "IP:127.0.0.1")


@pytest.fixture
def sandbox(certificate: tuple[Path, Path]) -> Iterator[IterableSandbox]:
    with IterableSandbox(tls_certificate=certificate[0], tls_key=certificate[1]) as started:
        yield started


def update(
    session: requests.Session, sandbox: IterableSandbox, timeout: float = 5
) -> requests.Response:
    url, headers = f"{sandbox.url}/api/users/update", {"Api-Key": "a-key"}
    return session.post(url, json=UPDATE, headers=headers, timeout=timeout)


def session_that_trusts(ca: Path) -> requests.Session:
    session = requests.Session()
    session.trust_env = False  # REQUESTS_CA_BUNDLE would win
    session.verify = str(ca)
    return session


@pytest.fixture
def session(ca: Path) -> Iterator[requests.Session]:
    with session_that_trusts(ca) as opened:
        yield opened


def test_calls_are_answered_on_one_connection(
    sandbox: IterableSandbox, session: requests.Session
) -> None:
    assert sandbox.url.startswith("https://127.0.0.1:")
    assert [update(session, sandbox).json()["code"] for _ in range(3)] == ["Success"] * 3
    state = sandbox.state()
    assert (state["connections"], state["handshakes"], state["resumed"]) == (1, 1, 0)


def test_a_client_that_does_not_know_the_ca_is_not_counted(sandbox: IterableSandbox) -> None:
    with pytest.raises(requests.exceptions.SSLError):
        update(requests.Session(), sandbox)
    assert sandbox.state()["calls"] == 0


def test_connections_of_control_calls_are_not_counted(
    sandbox: IterableSandbox, session: requests.Session, ca: Path
) -> None:
    assert session.get(f"{sandbox.url}/sandbox/state", timeout=5).json()["connections"] == 0
    with session_that_trusts(ca) as other:
        update(other, sandbox)
    assert session.get(f"{sandbox.url}/sandbox/state", timeout=5).json()["connections"] == 1


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_can_be_resumed(
    sandbox: IterableSandbox, ca: Path, version: ssl.TLSVersion
) -> None:
    context = ssl.create_default_context(cafile=str(ca))
    context.minimum_version = context.maximum_version = version
    address = ("127.0.0.1", urlsplit(sandbox.url).port or 0)
    saved = None
    for _ in range(2):
        with (
            socket.create_connection(address, timeout=5) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1", session=saved) as client,
        ):
            client.sendall(b"GET /api/users/getFields HTTP/1.1\r\nHost: x\r\nApi-Key: k\r\n\r\n")
            assert client.recv(65_536).startswith(b"HTTP/1.1 200 OK\r\n")  # tickets came before it
            saved = client.session
    state = sandbox.state()
    assert (state["connections"], state["handshakes"], state["resumed"]) == (2, 2, 1)


@pytest.mark.parametrize("fault", ["drop_before", "drop_after", "half_body", "hang", "down"])
def test_connection_faults_reach_the_client(
    sandbox: IterableSandbox, session: requests.Session, fault: str
) -> None:
    sandbox.set_faults([{"fault": fault}])
    with pytest.raises(requests.RequestException) as caught:
        update(session, sandbox, timeout=0.3 if fault == "hang" else 5)
    assert isinstance(caught.value, requests.ReadTimeout) == (fault == "hang")
    sandbox.set_faults([])
    assert update(session, sandbox).ok


def test_a_certificate_that_cannot_be_used_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "missing.pem"
    for flags in (["--tls-certificate", str(missing)], ["--tls-key", str(missing)]):
        with pytest.raises(SystemExit, match="2"):
            main(flags)
    printed = capsys.readouterr().err
    assert f"cannot use the certificate {missing}: No such file or directory" in printed
    assert "--tls-key needs --tls-certificate" in printed
