"""One HTTP exchange with Iterable: connections, time-outs, reading the response.

A network error is returned as an `ApiResponse` too.

`requests.Session` spends about a millisecond per call on merging settings with the environment.
Here the environment is read once, each endpoint's request is prepared once and copied, and the
adapter is called directly: no cookies, hooks or redirects.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import orjson
import requests
import urllib3

from config.version import USER_AGENT
from iterable_api.deadline import DeadlineAdapter
from iterable_api.responses import NO_API_RESPONSE, ApiResponse, requested_wait_seconds
from iterable_api.send_budget import NO_SHARE, PIECE_BYTES, Share

# To connect, and between two bytes of the response or two pieces of the request; `deadline` limits
# the whole response.
TIMEOUT_SECONDS = (5.0, 30.0)
MAX_BODY_BYTES = 8_000_000  # twice Iterable's limit for a request; API responses are smaller
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
        self._adapter = DeadlineAdapter(pool_connections=1, pool_maxsize=connections)
        environment = requests.Session().merge_environment_settings(
            self.base_url, {}, False, None, None
        )
        if not self.base_url.lower().startswith("https:"):
            environment["proxies"] = {}  # a proxy would see the key
        self._send_options: dict[str, Any] = {
            **environment,
            "timeout": urllib3.Timeout(connect=timeout_seconds[0], read=timeout_seconds[1]),
            "stream": True,
        }
        self._prepared: dict[str, requests.PreparedRequest] = {}

    def close(self) -> None:
        """Close the connections."""
        self._adapter.close()

    def post(self, endpoint: str, body: bytes, share: Share = NO_SHARE) -> ApiResponse:
        """POST a JSON body to `/api/{endpoint}`. Returns network errors, never raises them.

        `share` is the body's share of the `SendBudget`; it is returned when the body is sent.
        """
        prepared = self._prepared.get(endpoint)
        if prepared is None:
            headers = {**self._headers, "Content-Type": "application/json"}
            prepared = self._prepare("POST", endpoint, headers)
            self._prepared[endpoint] = prepared
        request = requests.PreparedRequest()
        request.method, request.url, request.hooks = prepared.method, prepared.url, prepared.hooks
        request.headers = prepared.headers.copy()
        request.headers["Content-Length"] = str(len(body))
        request.body = body
        if len(body) > PIECE_BYTES:
            # `requests` accepts an iterable body, but its type hint does not say so.
            request.body = share.pieces(body)  # type: ignore[assignment]
        return self._exchange(request)

    def get(self, endpoint: str, query: Mapping[str, str | int] | None = None) -> ApiResponse:
        """GET `/api/{endpoint}`. Returns network errors, never raises them."""
        query_string = f"?{urlencode(query)}" if query else ""
        return self._exchange(self._prepare("GET", endpoint + query_string, self._headers))

    def _prepare(
        self, method: str, path: str, headers: Mapping[str, str]
    ) -> requests.PreparedRequest:
        return requests.Request(method, f"{self.base_url}/api/{path}", headers=headers).prepare()

    def _exchange(self, request: requests.PreparedRequest) -> ApiResponse:
        try:
            response = self._adapter.send(request, **self._send_options)
            content = self._read(response)
        except (
            requests.RequestException,
            urllib3.exceptions.HTTPError,
            OSError,
            ValueError,  # from `http.client`, for a chunk of negative length
        ) as error:
            return _to_network_error(error)
        status, headers = response.status_code, response.headers
        body = _parsed(content)
        return ApiResponse(
            status,
            body,
            "" if isinstance(body, dict) else NO_API_RESPONSE,
            requested_wait_seconds(headers.get("Retry-After"), body) if status >= 400 else None,
            headers.get("Iterable-Request-Id"),
            content,
        )

    def _read(self, response: requests.Response) -> bytes:
        """Return the body with the key redacted: Iterable's error messages can echo a request.

        It is decoded if it is compressed, which we did not ask for; the limit is that of the
        decoded bytes. Empty if it cannot be decoded.
        """
        try:
            content: bytes = response.raw.read(
                MAX_BODY_BYTES, decode_content="Content-Encoding" in response.headers
            )
        except urllib3.exceptions.DecodeError:
            response.raw.close()
            return b""
        if len(content) >= MAX_BODY_BYTES:
            response.raw.close()  # do not wait for the rest
        else:
            response.raw.release_conn()
        return self.without_key(content)

    def without_key(self, content: bytes) -> bytes:
        """Return `content` with the API key redacted."""
        if b"\\" in content:  # JSON may escape any letter of the key
            content = _without_escapes(content)
        for form in self._key_forms:
            if form in content:
                content = content.replace(form, b"[api key]")
        return content


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
    if isinstance(error, requests.exceptions.InvalidURL):  # ours was checked before
        problem = "the address of the proxy is not like http://HOST:PORT"
        return ApiResponse(None, problem=problem, is_permanent_error=True)
    if isinstance(error, requests.exceptions.ProxyError):
        return ApiResponse(None, problem="the proxy does not respond")
    return ApiResponse(None, problem=type(error).__name__)
