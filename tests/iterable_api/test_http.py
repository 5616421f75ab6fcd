"""One HTTP exchange: bytes on the wire, redaction of the key, TLS and proxies."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from urllib3.util.wait import wait_for_read

from config.version import USER_AGENT
from iterable_api.advice import explain_refusal
from iterable_api.http import IterableHTTP
from iterable_api.responses import USERS_UPDATE
from records.outcomes import Verdict
from tests.support.raw_server import raw_server
from tests.support.recording_servers import Website, make_self_signed, proxy, website
from tests.support.rows import API_KEY, unwaiting_client, wait_until

USER = b'{"email":"user1@example.com"}'
PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the proxy and CA settings of this machine."""
    for name in (*PROXY_VARIABLES, *map(str.upper, PROXY_VARIABLES), *CA_VARIABLES):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def site() -> Iterator[Website]:
    with website() as running:
        yield running


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_self_signed(tmp_path_factory.mktemp("tls"), "IP:127.0.0.1")


@pytest.fixture
def secure_site(certificate: Path) -> Iterator[Website]:
    with website(certificate) as running:
        yield running


# On the wire


def test_a_post_sends_json_with_the_key_in_a_header(site: Website) -> None:
    response = IterableHTTP(API_KEY, site.url).post(USERS_UPDATE, USER)
    assert (response.status, response.code) == (200, "Success")
    (request,) = site.requests
    assert request.line == "POST /api/users/update HTTP/1.1"
    assert request.body == USER
    assert request.headers == {
        "Host": site.url.removeprefix("http://"),
        "Api-Key": API_KEY,
        "Content-Type": "application/json",
        "Content-Length": str(len(USER)),
        "Accept-Encoding": "identity",
        "User-Agent": USER_AGENT,
    }


def test_a_get_sends_query_parameters_and_no_body(site: Website) -> None:
    email = "a+b&c@example.com"
    IterableHTTP(API_KEY, site.url).get("users/getByEmail", {"email": email, "n": 1})
    (request,) = site.requests
    assert request.line == "GET /api/users/getByEmail?email=a%2Bb%26c%40example.com&n=1 HTTP/1.1"
    assert request.headers["Api-Key"] == API_KEY
    assert "Content-Type" not in request.headers


def test_a_body_is_sent_unchanged(site: Website) -> None:
    body = '{"first_name":"小龙 🚀 Amélie"}'.encode()
    IterableHTTP(API_KEY, site.url).post(USERS_UPDATE, body)
    assert site.requests[0].body == body
    assert site.requests[0].headers["Content-Length"] == str(len(body))


def test_a_slash_at_the_end_of_the_base_url_changes_nothing(site: Website) -> None:
    IterableHTTP(API_KEY, site.url + "/").post(USERS_UPDATE, USER)
    assert site.requests[0].line == "POST /api/users/update HTTP/1.1"


def test_calls_share_a_connection(site: Website) -> None:
    http = IterableHTTP(API_KEY, site.url)
    for _ in range(5):
        http.post(USERS_UPDATE, USER)
    assert (len(site.requests), site.connection_count) == (5, 1)
    http.close()


def test_a_connection_that_the_server_closed_is_replaced(site: Website) -> None:
    site.closes_after_response = True
    http = IterableHTTP(API_KEY, site.url)
    for _ in range(3):
        assert http.post(USERS_UPDATE, USER).status == 200
        time.sleep(0.1)  # until the close has arrived
    assert site.connection_count == 3


def test_cookies_are_not_kept(site: Website) -> None:
    site.response_headers = {"Set-Cookie": "tracked=yes; Path=/"}
    http = IterableHTTP(API_KEY, site.url)
    for _ in range(2):
        http.post(USERS_UPDATE, USER)
    assert "Cookie" not in site.requests[1].headers


def test_a_response_has_iterables_request_id(site: Website) -> None:
    site.response_headers = {"Iterable-Request-Id": "request-1"}
    assert IterableHTTP(API_KEY, site.url).post(USERS_UPDATE, USER).request_id == "request-1"


@pytest.mark.parametrize("content", [b"[1]", b"null", b'"text"', b"1", b"\xff", b"{" * 10_000])
def test_only_a_json_object_is_an_api_response(site: Website, content: bytes) -> None:
    site.response = content
    response = IterableHTTP(API_KEY, site.url).post(USERS_UPDATE, USER)
    assert (response.status, response.code) == (200, "not an API response")


# Redaction of the key


def test_a_key_that_the_server_echoes_is_redacted_in_the_whole_response(site: Website) -> None:
    site.response = b'{"code":"%(key)b","msg":"key %(key)b","params":{"%(key)b":"%(key)b"}}' % {
        b"key": API_KEY.encode()
    }
    response = IterableHTTP(API_KEY, site.url).post(USERS_UPDATE, USER)
    assert API_KEY not in repr(response)
    assert response.message == "key [api key]"


def test_a_key_with_quotes_is_redacted_in_json(site: Website) -> None:
    key = 'very"odd\\key'
    site.response = b'{"code":"GenericError","msg":"Api-Key: very\\"odd\\\\key."}'
    response = IterableHTTP(key, site.url).post(USERS_UPDATE, USER)
    assert response.message == "Api-Key: [api key]."


def test_a_key_with_unicode_escapes_is_redacted_in_json(site: Website) -> None:
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in API_KEY[:3]) + API_KEY[3:]
    site.response = (
        b'{"code":"Bad","msg":"Api-Key: %b \\u5c0f","params":{"n":1.5}}' % escaped.encode()
    )
    response = IterableHTTP(API_KEY, site.url).post(USERS_UPDATE, USER)
    assert (response.message, response.params) == ("Api-Key: [api key] 小", {"n": 1.5})
    assert API_KEY[3:].encode() not in response.content
    site.response = b"<p>\\u0041 is no JSON</p>"
    assert IterableHTTP(API_KEY, site.url).post(USERS_UPDATE, USER).content == site.response


def test_a_key_with_escaped_slashes_is_redacted_in_json(site: Website) -> None:
    site.response = b'{"code":"GenericError","msg":"Api-Key: odd\\/key\\/."}'
    response = IterableHTTP("odd/key/", site.url).post(USERS_UPDATE, USER)
    assert response.message == "Api-Key: [api key]."
    assert b"odd" not in response.content


@pytest.mark.parametrize("key", ["", "c", "key"])
def test_a_key_of_a_few_letters_is_not_redacted(site: Website, key: str) -> None:
    site.response = b'{"code":"Success","msg":"a monkey","params":null}'
    response = IterableHTTP(key, site.url).post(USERS_UPDATE, USER)
    assert (response.code, response.message) == ("Success", "a monkey")


# TLS


def test_a_self_signed_certificate_is_refused(
    secure_site: Website, caplog: pytest.LogCaptureFixture
) -> None:
    client, stop = unwaiting_client(secure_site.url)
    result = client.call(USERS_UPDATE, USER)
    assert (result.verdict, result.http_status) == (Verdict.REFUSED, None)
    assert (result.attempts, stop.waits_seconds) == (1, [])
    assert secure_site.requests == []
    assert caplog.messages == [
        "No response from users/update: the server's certificate is not trusted"
    ]


@pytest.mark.parametrize("variable", CA_VARIABLES)
def test_a_certificate_in_the_ca_bundle_is_accepted(
    secure_site: Website, certificate: Path, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, str(certificate))
    client, _stop = unwaiting_client(secure_site.url)
    assert client.call(USERS_UPDATE, USER).delivered
    assert secure_site.requests[0].headers["Api-Key"] == API_KEY


def test_a_certificate_for_another_name_is_refused(
    secure_site: Website, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    client, _stop = unwaiting_client(secure_site.url.replace("127.0.0.1", "localhost"))
    assert client.call(USERS_UPDATE, USER).verdict is Verdict.REFUSED
    assert secure_site.requests == []


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "the CA bundle does not exist"),
        ("no certificate", "the CA bundle holds no certificate"),
    ],
)
def test_an_unusable_ca_bundle_is_refused_with_the_reason(
    secure_site: Website,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: str | None,
    problem: str,
) -> None:
    bundle = tmp_path / "ca.pem"
    if content is not None:
        bundle.write_text(content, encoding="ascii")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    client, _stop = unwaiting_client(secure_site.url)
    result = client.call(USERS_UPDATE, USER)
    assert (result.verdict, result.message) == (Verdict.REFUSED, problem)


def test_the_ca_bundle_was_loaded_for_every_connection(
    secure_site: Website, certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It took 22 ms and 0.7 MB each."""
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(certificate.read_bytes())
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    secure_site.closes_after_response = True
    http = IterableHTTP(API_KEY, secure_site.url)
    with ThreadPoolExecutor(10) as threads:
        first = threads.map(lambda _: http.post(USERS_UPDATE, USER).status, range(10))
        assert set(first) == {200}
        bundle.unlink()
        assert set(threads.map(lambda _: http.post(USERS_UPDATE, USER).status, range(10))) == {200}
    assert secure_site.connection_count == 20
    http.close()


def test_a_folder_of_cas_is_accepted(
    secure_site: Website, certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["openssl", "x509", "-in", str(certificate), "-noout", "-subject_hash"]
    name = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    (tmp_path / f"{name}.0").write_bytes(certificate.read_bytes())
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path))
    client, _stop = unwaiting_client(secure_site.url)
    assert client.call(USERS_UPDATE, USER).delivered


def test_a_server_without_tls_is_unavailable(site: Website) -> None:
    client, _stop = unwaiting_client(site.url.replace("http:", "https:"), max_attempts=2)
    result = client.call(USERS_UPDATE, USER)
    assert (result.verdict, result.attempts) == (Verdict.UNAVAILABLE, 2)
    assert site.requests == []


# Proxies


def test_https_is_tunnelled_through_the_proxy_without_showing_it_the_key(
    secure_site: Website, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with proxy() as between:
        monkeypatch.setenv("HTTPS_PROXY", between.url)
        client, _stop = unwaiting_client(secure_site.url)
        assert client.call(USERS_UPDATE, USER).delivered
        assert client.call(USERS_UPDATE, USER).delivered
        client.close()
    host = secure_site.url.removeprefix("https://")
    assert [request.line.split()[:2] for request in between.requests] == [["CONNECT", host]]
    assert API_KEY not in repr(between.requests)
    assert len(secure_site.requests) == 2


def test_a_proxy_may_itself_be_reached_over_tls(
    secure_site: Website, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with proxy(certificate) as between:
        monkeypatch.setenv("HTTPS_PROXY", between.url)
        client, _stop = unwaiting_client(secure_site.url)
        assert client.call(USERS_UPDATE, USER).delivered
        assert client.call(USERS_UPDATE, USER).delivered
        client.close()
    assert [request.line.split()[0] for request in between.requests] == ["CONNECT"]
    assert API_KEY not in repr(between.requests)
    assert len(secure_site.requests) == 2


def test_a_session_ticket_behind_a_proxy_over_tls_ended_the_new_connection(
    secure_site: Website, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with proxy(certificate) as between:
        monkeypatch.setenv("HTTPS_PROXY", between.url)
        http = IterableHTTP(API_KEY, secure_site.url)
        idle = http.pool()._idle
        http.open_connections(1)
        assert wait_until(lambda: idle and wait_for_read(idle[0]._socket, 0.0))
        assert http.post(USERS_UPDATE, USER).status == 200
        http.close()
    assert len(between.requests) == 1


def test_a_proxy_with_an_untrusted_certificate_is_refused(
    secure_site: Website, certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with proxy(make_self_signed(tmp_path, "IP:127.0.0.1")) as between:
        monkeypatch.setenv("HTTPS_PROXY", between.url)
        client, _stop = unwaiting_client(secure_site.url)
        assert client.call(USERS_UPDATE, USER).verdict is Verdict.REFUSED
    assert between.requests == []


def test_no_proxy_is_respected(
    secure_site: Website, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with proxy() as between:
        monkeypatch.setenv("HTTPS_PROXY", between.url)
        client, _stop = unwaiting_client(secure_site.url)
        assert client.call(USERS_UPDATE, USER).delivered
    assert between.requests == []


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_plain_http_is_never_sent_through_a_proxy(
    site: Website, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    with proxy() as between:
        monkeypatch.setenv(variable, between.url)
        client, _stop = unwaiting_client(site.url)
        assert client.call(USERS_UPDATE, USER).delivered
    assert between.requests == []


def test_an_unreachable_proxy_is_unavailable(
    secure_site: Website, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with proxy() as gone:
        pass
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    monkeypatch.setenv("HTTPS_PROXY", gone.url)
    client, _stop = unwaiting_client(secure_site.url, max_attempts=2)
    result = client.call(USERS_UPDATE, USER)
    assert (result.verdict, result.code) == (Verdict.UNAVAILABLE, "the proxy does not respond")


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("socks5://127.0.0.1:9", "a SOCKS proxy needs one more package"),
        ("ftp://127.0.0.1:9", "the address of the proxy is not like http://HOST:PORT"),
        ("http://", "the address of the proxy is not like http://HOST:PORT"),
        ("http://127.0.0.1:port", "the address of the proxy is not like http://HOST:PORT"),
        ("http://[::1", "the address of the proxy is not like http://HOST:PORT"),
    ],
)
def test_a_proxy_that_cannot_be_used_was_retried_for_ever(
    secure_site: Website, monkeypatch: pytest.MonkeyPatch, address: str, problem: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", address)
    client, stop = unwaiting_client(secure_site.url)
    result = client.call(USERS_UPDATE, USER)
    assert (result.verdict, result.attempts, stop.waits_seconds) == (Verdict.REFUSED, 1, [])
    assert result.message.startswith(problem)
    advice = explain_refusal(result.http_status, result.code, result.message)
    assert advice.startswith(problem)
    assert "nothing was sent: correct HTTPS_PROXY" in advice


@pytest.mark.parametrize(
    ("status", "verdict", "problem"),
    [
        (407, Verdict.REFUSED, "the proxy asks for a user name and password (HTTP 407)"),
        (403, Verdict.REFUSED, "the proxy does not let requests to this address through"),
        (502, Verdict.UNAVAILABLE, "the proxy does not respond"),
    ],
)
def test_a_proxy_that_refuses_to_connect_is_named(
    secure_site: Website,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    verdict: Verdict,
    problem: str,
) -> None:
    server = raw_server()
    server.response = f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode()
    monkeypatch.setenv("HTTPS_PROXY", server.url)
    client, _stop = unwaiting_client(secure_site.url, max_attempts=2)
    result = client.call(USERS_UPDATE, USER)
    assert (result.verdict, result.message) == (verdict, problem)
    assert secure_site.requests == []


@pytest.mark.parametrize("end", ["", "/", "/api", "/api/"])
def test_a_base_url_may_end_in_api(site: Website, end: str) -> None:
    assert IterableHTTP(API_KEY, site.url + end).post(USERS_UPDATE, USER).status == 200
    assert site.requests[-1].line == "POST /api/users/update HTTP/1.1"
