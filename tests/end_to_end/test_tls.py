"""TLS: which servers the program trusts, and that others never receive the key or the password.

The tests make a CA and certificates of their own; all servers run on this machine.
"""

from __future__ import annotations

import socket
import ssl
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import SourceDatabase
from tests.support.certificates import make_ca, make_certificate
from tests.support.private_server import PrivateServer
from tests.support.program import API_KEY, Ending, Program
from tests.support.program_files import PROJECT_FOLDER
from tests.support.recording_servers import Website, make_self_signed, website
from tests.support.users import WINDOW, add_users

NOT_TRUSTED = (
    "the server's certificate is not trusted, so the API key was not sent: "
    "check ITERABLE_API_BASE_URL. If your network has a proxy that reads TLS traffic, "
    "set REQUESTS_CA_BUNDLE to its CA file."
)
PROXY_PASSWORD = "c4nary-proxy-pw"


@dataclass(frozen=True)
class Certificates:
    """A CA and certificates for servers; each file contains its private key, too."""

    ca: Path
    another_ca: Path
    good: Path
    expired: Path
    self_signed: Path


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("tls")
    ca = make_ca(folder / "ca")

    def issued(days: int) -> Path:
        certificate, key = make_certificate(ca, "IP:127.0.0.1", days=days)
        certificate.write_bytes(certificate.read_bytes() + key.read_bytes())
        return certificate

    return Certificates(
        ca=ca,
        another_ca=make_ca(folder / "another"),
        good=issued(2),
        expired=issued(-1),
        self_signed=make_self_signed(folder, "IP:127.0.0.1"),
    )


@pytest.fixture
def program(embedded: SourceDatabase, tmp_path: Path) -> Program:
    """The program with two rows to send; tests add the URL of the API."""
    add_users(embedded.run_sql, [1, 2])
    settings = {**embedded.settings(), **WINDOW, "ITERABLE_API_KEY": API_KEY}
    settings |= {"MAX_ATTEMPTS": "1", "OUTAGE_PATIENCE_SECONDS": "1"}
    return Program(tmp_path / "run", settings)


def run_against(program: Program, site: Website, bundle: Path | None, *flags: str) -> Ending:
    trusts = {} if bundle is None else {"REQUESTS_CA_BUNDLE": str(bundle)}
    return program.run(*flags, settings={"ITERABLE_API_BASE_URL": site.url, **trusts})


def check_refused(program: Program, site: Website, ending: Ending) -> None:
    assert ending.status == 1, ending.output
    assert ending.stderr.splitlines()[-1] == NOT_TRUSTED
    assert site.requests == []  # no request, so no key either
    assert program.results["not_attempted"] == 1  # the first row went alone
    assert program.results["status"] == "aborted"


def test_a_server_whose_ca_is_given_is_trusted(
    program: Program, certificates: Certificates
) -> None:
    with website(certificates.good) as site:
        ending = run_against(program, site, certificates.ca)
    assert ending.status == 0, ending.output
    assert len(site.requests) == 5  # the question for the field types, too
    assert {request.headers["Api-Key"] for request in site.requests} == {API_KEY}


def test_a_self_signed_server_is_refused_before_the_key_is_sent(
    program: Program, certificates: Certificates
) -> None:
    with website(certificates.self_signed) as site:
        check_refused(program, site, run_against(program, site, None))


def test_a_self_signed_server_is_trusted_with_its_own_certificate_as_bundle(
    program: Program, certificates: Certificates
) -> None:
    with website(certificates.self_signed) as site:
        ending = run_against(program, site, certificates.self_signed)
    assert ending.status == 0, ending.output
    assert len(site.requests) == 5  # the question for the field types, too


@pytest.mark.parametrize(
    ("certificate", "trusted", "mode"),
    [
        *(("good", None, "per-user"), ("good", "another_ca", "bulk")),
        *(("expired", "ca", "per-user"), ("good at another name", "ca", "bulk")),
    ],
)
def test_a_server_with_an_invalid_certificate_is_refused_before_the_key_is_sent(
    program: Program, certificates: Certificates, certificate: str, trusted: str | None, mode: str
) -> None:
    with website(getattr(certificates, certificate.split()[0])) as site:
        if certificate.endswith("name"):
            site.url = site.url.replace("127.0.0.1", "localhost")
        bundle = getattr(certificates, trusted) if trusted else None
        ending = run_against(program, site, bundle, "--mode", mode)
    assert ending.status == 1
    assert ending.stderr.splitlines()[-1] == NOT_TRUSTED
    assert site.requests == []


@pytest.mark.parametrize("flags", [["--check"], ["--verify", "2"]])
def test_check_and_verify_do_not_send_the_key_to_an_untrusted_server(
    program: Program, certificates: Certificates, flags: list[str]
) -> None:
    with website(certificates.good) as site:
        assert run_against(program, site, certificates.ca).status == 0
        site.requests.clear()
        ending = run_against(program, site, certificates.another_ca, *flags)
    assert ending.status != 0
    assert "certificate is not trusted, so the API key was not sent" in ending.output
    assert "REQUESTS_CA_BUNDLE" in ending.output
    assert site.requests == []


def old_tls(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context


def test_a_server_with_tls_1_1_is_refused_before_the_key_is_sent(
    program: Program, certificates: Certificates
) -> None:
    old = old_tls(ssl.PROTOCOL_TLS_SERVER)
    old.load_cert_chain(certificates.good)
    with website(context=old) as site:
        # A client that accepts TLS 1.1 can connect.
        port = int(site.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
            try:
                with old_tls(ssl.PROTOCOL_TLS_CLIENT).wrap_socket(plain) as client:
                    assert client.version() == "TLSv1.1"
            except ssl.SSLError as error:
                pytest.skip(f"OpenSSL on this machine does not support TLS 1.1: {error}")
        ending = run_against(program, site, certificates.ca)
    assert ending.status == 1
    assert program.results["not_attempted"] == 2
    assert "SSLError" in ending.stderr
    assert site.requests == []


@pytest.mark.parametrize(
    "proxy",
    [
        "http://user:%s@127.0.0.1:9",  # it may respond later: the run waits
        "user:%s@127.0.0.1:9",
        "socks5://user:%s@127.0.0.1:9",
        "http://user:%s@[::1",
        "http://user:%s@127.0.0.1:port",
    ],
)
def test_a_proxy_password_is_redacted_everywhere(program: Program, proxy: str) -> None:
    proxy %= PROXY_PASSWORD
    settings = {"HTTPS_PROXY": proxy, "ITERABLE_API_BASE_URL": "https://iterable.invalid"}
    endings = [program.run(*flags, settings=settings) for flags in (["--verbose"], ["--check"])]
    assert [ending.status for ending in endings] == [1, 2]
    for path in program.folder.iterdir():
        assert PROXY_PASSWORD.encode() not in path.read_bytes()
    assert PROXY_PASSWORD not in "".join(ending.output for ending in endings)


# MySQL


@pytest.fixture(scope="module")
def tls_database(
    real_server: PrivateServer, certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PrivateServer]:
    """A database server with a certificate of the CA for its address."""
    good = certificates.good
    options = [f"--ssl-cert={good}", f"--ssl-key={good}"]
    with type(real_server)(tmp_path_factory.mktemp("server"), options) as server:
        server.create_database("sync_test", PROJECT_FOLDER / "sql" / "schema.sql")
        add_users(lambda script: server.run_sql(script, "sync_test"), [1, 2])
        yield server


def test_a_database_is_trusted_only_with_its_ca_and_name(
    tls_database: PrivateServer, certificates: Certificates, tmp_path: Path
) -> None:
    database = {
        "DB_HOST": tls_database.host,
        "DB_PORT": str(tls_database.port),
        "DB_USER": tls_database.user,
        "DB_PASSWORD": tls_database.password,
        "DB_NAME": "sync_test",
    }
    settings = {**database, **WINDOW, "ITERABLE_API_KEY": API_KEY}
    with website() as site:
        settings["ITERABLE_API_BASE_URL"] = site.url
        program = Program(tmp_path / "run", settings)
        for wrong in ({"DB_SSL_CA": str(certificates.another_ca)}, {"DB_HOST": "localhost"}):
            changed = {"DB_SSL_CA": str(certificates.ca), **wrong}
            ending = program.run(settings=changed)
            assert ending.status == 1
            (line,) = ending.stderr.splitlines()[-1:]
            assert line.startswith("No trusted TLS connection to MySQL at ")
            assert line.endswith("Check DB_SSL_CA and DB_HOST.")
            assert "No trusted TLS connection" in program.run("--check", settings=changed).stdout
        assert [r for r in site.requests if "getFields" not in r.line] == []
        ending = program.run(settings={"DB_SSL_CA": str(certificates.ca)})
    assert ending.status == 0, ending.output
    assert program.results["successful"] == 2
