"""One HTTP exchange with Iterable: connections, time-outs, reading the response.

A network error is returned as an `ApiResponse` too.

`requests` reads the environment and makes the connections. A request is written and read without
it: `requests.Session` takes a millisecond of CPU time a call, its adapter half a millisecond. So
there are no cookies, hooks or redirects.
"""

from __future__ import annotations

import codecs
import json
import re
import ssl
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from http.client import HTTPException
from typing import Any
from urllib.parse import urlencode

import orjson
import requests
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    LocationValueError,
    NewConnectionError,
    ProxyError,
    ReadTimeoutError,
    SSLError,
)

from config.version import USER_AGENT
from iterable_api.connections import Adapter, Pool
from iterable_api.connections import Connection as PooledConnection
from iterable_api.responses import NO_API_RESPONSE, ApiResponse, requested_wait_seconds
from iterable_api.send_budget import NO_SHARE, PIECE_BYTES, Share

# To connect, and between two bytes of the response or two pieces of the request; `connections`
# limits the whole response.
TIMEOUT_SECONDS = (5.0, 30.0)
_NOT_IN_REQUEST_ID = re.compile(r"[^!-~]+")
_MAX_REQUEST_ID_CHARACTERS = 100
_MIN_KEY_CHARACTERS = 4  # replacing a shorter one would damage other text
# A part of the error's text -> what it means, for errors that every attempt would meet.
_PERMANENT_ERRORS = {
    "CERTIFICATE_VERIFY_FAILED": "the server's certificate is not trusted",
    "TLS CA certificate bundle": "the CA bundle does not exist",
    "NO_CERTIFICATE_OR_CRL_FOUND": "the CA bundle holds no certificate",
    "dependencies for SOCKS": "a SOCKS proxy needs one more package: pip install requests[socks]",
    "Tunnel connection failed: 407": "the proxy asks for a user name and password (HTTP 407)",
    "Tunnel connection failed: 4": "the proxy does not let requests to this address through",
}

_BAD_PROXY = "the address of the proxy is not like http://HOST:PORT"
# What a connection and an exchange can raise; `http.client` raises ValueError for a chunk of
# negative length.
_ERRORS = (requests.RequestException, HTTPError, HTTPException, OSError, ValueError)
# Error -> its name in the log and in the results; the first that fits.
_ERROR_NAMES: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
    # The addresses of the proxy and of Iterable; the latter was checked before.
    ((requests.exceptions.InvalidURL, LocationValueError), _BAD_PROXY),
    (ProxyError, "the proxy does not respond"),
    (NewConnectionError, "ConnectionError"),
    (ConnectTimeoutError, "ConnectTimeout"),
    ((TimeoutError, ReadTimeoutError), "ReadTimeout"),
    ((ssl.SSLError, SSLError), "SSLError"),
    ((OSError, HTTPException), "ConnectionError"),
)


class IterableHTTP:
    """Connections to one Iterable project. Thread-safe.

    `connections` is the number kept open; more may be in use. Proxies and the CA bundle are read
    once, from the environment (`HTTPS_PROXY`, `REQUESTS_CA_BUNDLE`). Raises ValueError for a
    malformed key.
    """

    def __init__(
        self,
        api_key: str,
        base_url: str,
        *,
        connections: int = 16,
        timeout_seconds: tuple[float, float] = TIMEOUT_SECONDS,
    ) -> None:
        self.base_url = base_url.rstrip("/").removesuffix("/api").rstrip("/")
        if not (api_key.isascii() and api_key.isprintable()) or " " in api_key:
            raise ValueError("the API key contains characters that are not allowed in a key")
        forms = {api_key, json.dumps(api_key)[1:-1]} if len(api_key) >= _MIN_KEY_CHARACTERS else ()
        self._key_forms = [form.encode() for form in forms]
        self._headers = {
            "Api-Key": api_key,
            "Accept-Encoding": "identity",
            "User-Agent": USER_AGENT,
        }
        self._connections = connections
        self._timeout_seconds = timeout_seconds
        self._environment = requests.Session().merge_environment_settings(
            self.base_url, {}, False, None, None
        )
        if not self.base_url.lower().startswith("https:"):
            self._environment["proxies"] = {}  # a proxy would see the key
        self._pool: Pool | None = None
        self._is_closed = False
        self._building = threading.Lock()
        self._post_heads: dict[str, bytes] = {}

    def close(self) -> None:
        """Close the connections."""
        with self._building:
            self._is_closed = True
            if self._pool is not None:
                self._pool.close()

    def open_connections(self, count: int) -> None:
        """Open connections in the background until `count` are free; errors are ignored.

        The first calls then need not wait for a handshake. Nothing is sent.
        """

        def start() -> None:
            with suppress(*_ERRORS):  # a later call meets it, too
                self.pool().open_ahead(count)

        threading.Thread(target=start, daemon=True).start()

    def connection(self) -> Connection:
        """Return a connection for one attempt, to be used in a `with` statement."""
        return Connection(self)

    def post(self, endpoint: str, body: bytes, share: Share = NO_SHARE) -> ApiResponse:
        """Connect, then do what `Connection.post` does."""
        with self.connection() as connection:
            return connection.open() or connection.post(endpoint, body, share)

    def get(self, endpoint: str, query: Mapping[str, str | int] | None = None) -> ApiResponse:
        """GET `/api/{endpoint}`. Returns network errors, never raises them."""
        query_string = f"?{urlencode(query)}" if query else ""
        with self.connection() as connection:
            return connection.open() or connection.get(endpoint + query_string)

    def pool(self) -> Pool:
        """Return the connection pool. Raises the errors of an unusable proxy or CA bundle."""
        if self._pool is None:
            with self._building:
                if self._pool is None:
                    self._pool = Pool(
                        Adapter().get_connection_with_tls_context(
                            self._prepare("GET", ""),
                            self._environment["verify"],
                            self._environment["proxies"],
                        ),
                        self._connections,
                        self._timeout_seconds,
                    )
                    if self._is_closed:  # while `open_connections` was at work
                        self._pool.close()
        return self._pool

    def post_head(self, endpoint: str) -> bytes:
        """Return the request line and headers of a POST, without `Content-Length`."""
        head = self._post_heads.get(endpoint)
        if head is None:
            headers = {**self._headers, "Content-Type": "application/json"}
            head = self._post_heads[endpoint] = self._head("POST", endpoint, headers)
        return head

    def get_head(self, path: str) -> bytes:
        """Return the request line and headers of a GET."""
        return self._head("GET", path, self._headers)

    def _head(self, method: str, path: str, headers: dict[str, str]) -> bytes:
        target = self._prepare(method, path).path_url
        return self.pool().request_head(method, target, headers)

    def _prepare(self, method: str, path: str) -> requests.PreparedRequest:
        return requests.Request(method, f"{self.base_url}/api/{path}").prepare()

    def to_request_id(self, header: str) -> str:
        """Return the value of `Iterable-Request-Id` without anything that no id has."""
        text = self.without_key(header.encode("utf-8", "replace")).decode("utf-8", "replace")
        return _NOT_IN_REQUEST_ID.sub("", text)[:_MAX_REQUEST_ID_CHARACTERS]

    def without_key(self, content: bytes) -> bytes:
        """Return `content` with the API key redacted."""
        if b"\\" in content:  # JSON may escape any letter of the key
            content = _without_escapes(content)
        for form in self._key_forms:
            if form in content:
                content = content.replace(form, b"[api key]")
        return content


class Connection:
    """A connection for one attempt. Returns network errors, never raises them.

    It is taken from the pool at the beginning of the `with` block and given back at its end.
    """

    def __init__(self, http: IterableHTTP) -> None:
        self._http = http
        self._pooled: PooledConnection | None = None
        self._error: ApiResponse | None = None

    def __enter__(self) -> Connection:
        try:
            self._pooled = self._http.pool().take()
        except _ERRORS as error:
            self._error = _to_network_error(error)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_rest: object) -> None:
        if self._pooled is not None:
            if kind is not None:
                self._pooled.close()
            self._http.pool().give_back(self._pooled)

    @property
    def is_open(self) -> bool:
        return self._pooled is not None and self._pooled.is_open

    def open(self) -> ApiResponse | None:
        """Connect, unless an open connection was taken; return the error, or None.

        A second call connects anew if the server has closed the connection since.
        """
        if self._pooled is None:
            return self._error
        try:
            self._pooled.open_if_closed()
        except _ERRORS as error:
            return _to_network_error(error)
        finally:
            self._http.pool().end_opening(self._pooled)
        return None

    def post(self, endpoint: str, body: bytes, share: Share = NO_SHARE) -> ApiResponse:
        """POST a JSON body to `/api/{endpoint}`.

        `share` is the body's share of the `SendBudget`; it is returned when the body is sent.
        """
        head = b"%bContent-Length: %d\r\n\r\n" % (self._http.post_head(endpoint), len(body))
        is_large = len(body) > PIECE_BYTES
        return self._exchange("POST", head, share.pieces(body) if is_large else body)

    def get(self, path: str) -> ApiResponse:
        """GET `/api/{path}`."""
        return self._exchange("GET", self._http.get_head(path) + b"\r\n", b"")

    def _exchange(
        self, method: str, head: bytes, body: bytes | Iterable[memoryview]
    ) -> ApiResponse:
        assert self._pooled is not None  # noqa: S101 - see `open`
        try:
            status, retry_after, request_id, content = self._pooled.exchange(method, head, body)
        except _ERRORS as error:
            return _to_network_error(error)
        content = self._http.without_key(content)
        parsed = _parsed(content)
        return ApiResponse(
            status,
            parsed,
            "" if isinstance(parsed, dict) else NO_API_RESPONSE,
            requested_wait_seconds(retry_after, parsed) if status >= 400 else None,
            None if request_id is None else self._http.to_request_id(request_id),
            content,
        )


def _parsed(content: bytes) -> Any:
    """Return the parsed JSON, None if it is invalid or nested too deep to be written again.

    orjson reads 1,024 levels but writes only 254; `str()` of 1,024 levels would exceed Python's
    recursion limit.
    """
    try:
        body = orjson.loads(content.removeprefix(codecs.BOM_UTF8))
        orjson.dumps(body)
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return None
    return body


def _without_escapes(content: bytes) -> bytes:
    """Return JSON with only the escapes it needs, any other content unchanged."""
    try:
        return orjson.dumps(orjson.loads(content))
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return content


def _to_network_error(error: Exception) -> ApiResponse:
    """Return a response with the error's name. Its text is left out: it can contain the request."""
    for text, problem in _PERMANENT_ERRORS.items():
        if text in str(error):
            return ApiResponse(None, problem=problem, is_permanent_error=True)
    for kinds, name in _ERROR_NAMES:
        if isinstance(error, kinds):
            return ApiResponse(None, problem=name, is_permanent_error=name == _BAD_PROXY)
    return ApiResponse(None, problem=type(error).__name__)
