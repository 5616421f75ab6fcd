"""One HTTP exchange with Iterable, and nothing after it: no retry, no verdict, no pace.

Owns the connections, the time-outs and the reading of whatever comes back; every trouble is an
`ApiResponse` too. `requests` takes about a millisecond a call to merge session, environment and
redirects: here that is resolved once, each endpoint's request is prepared once and copied by
hand, and the adapter is called in place of the session (no cookies, no hooks, no redirects).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import orjson
import requests
import urllib3

from iterable_api.deadline import DeadlineAdapter
from iterable_api.responses import NO_API_RESPONSE, ApiResponse, requested_wait_seconds

# To connect, and between two bytes of the answer; twice the latter for all of it.
TIMEOUT_SECONDS = (5.0, 30.0)
MAX_BODY_BYTES = 8_000_000  # twice Iterable's request limit: more is not the API's
_MIN_KEY_CHARACTERS = 4  # to take a shorter one out would spoil every other word
_CERTIFICATE_ERRORS = {  # what the error's text holds, and what it means
    "CERTIFICATE_VERIFY_FAILED": "the server's certificate is not trusted",
    "TLS CA certificate bundle": "the CA bundle does not exist",
    "NO_CERTIFICATE_OR_CRL_FOUND": "the CA bundle holds no certificate",
}


class IterableHTTP:
    """Connections to one Iterable project. Thread-safe.

    `connections` is how many are kept open; more may be in use. Proxies and the CA bundle are
    taken from the environment (`HTTPS_PROXY`, `REQUESTS_CA_BUNDLE`), once.
    """

    def __init__(
        self,
        api_key: str,
        base_url: str,
        *,
        connections: int = 16,
        timeout_seconds: tuple[float, float] = TIMEOUT_SECONDS,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        if not (api_key.isascii() and api_key.isprintable()) or " " in api_key:
            raise ValueError("the API key holds characters that no key has")
        forms = {api_key, json.dumps(api_key)[1:-1]} if len(api_key) >= _MIN_KEY_CHARACTERS else ()
        self._key_forms = [form.encode() for form in forms]
        self._headers = {
            "Api-Key": api_key,
            "Accept-Encoding": "identity",
            "User-Agent": "mysql-to-iterable/1.0",
        }
        self._adapter = DeadlineAdapter(pool_connections=1, pool_maxsize=connections)
        environment = requests.Session().merge_environment_settings(
            self.base_url, {}, False, None, None
        )
        if not self.base_url.lower().startswith("https:"):
            environment["proxies"] = {}  # the key would travel to the proxy in plain sight
        self._send_options: dict[str, Any] = {
            **environment,
            "timeout": urllib3.Timeout(connect=timeout_seconds[0], read=timeout_seconds[1]),
            "stream": True,
        }
        self._prepared: dict[str, requests.PreparedRequest] = {}

    def close(self) -> None:
        """Close the connections."""
        self._adapter.close()

    def post(self, endpoint: str, body: bytes) -> ApiResponse:
        """Send a JSON body to `/api/{endpoint}`. Never raises for what the network does."""
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
        return self._exchange(request)

    def get(self, endpoint: str, query: Mapping[str, str | int] | None = None) -> ApiResponse:
        """Ask for `/api/{endpoint}`. Never raises for what the network does."""
        question = f"?{urlencode(query)}" if query else ""
        return self._exchange(self._prepare("GET", endpoint + question, self._headers))

    def _prepare(
        self, method: str, path: str, headers: Mapping[str, str]
    ) -> requests.PreparedRequest:
        return requests.Request(method, f"{self.base_url}/api/{path}", headers=headers).prepare()

    def _exchange(self, request: requests.PreparedRequest) -> ApiResponse:
        try:
            response = self._adapter.send(request, **self._send_options)
            content = self._read(response)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            return _no_answer(error)
        except ValueError as error:  # `http.client`'s, of a chunk that is less than nothing long
            return _no_answer(error)
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
        """Return the body with the key taken out: Iterable's error texts can echo a request."""
        content: bytes = response.raw.read(MAX_BODY_BYTES)
        if len(content) == MAX_BODY_BYTES:
            response.raw.close()  # the rest is not waited for
        else:
            response.raw.release_conn()
        return self.without_key(content)

    def without_key(self, content: bytes) -> bytes:
        """Return `content` with the API key taken out."""
        if b"\\" in content:  # JSON can spell any letter as \u..., and / as \/, in the key too
            content = _spelt_plainly(content)
        for form in self._key_forms:
            if form in content:
                content = content.replace(form, b"[api key]")
        return content


def _parsed(content: bytes) -> Any:
    """Return what JSON says, None for what is none or is nested deeper than any answer of the API.

    JSON may be read deeper (1,024 levels) than it can be written again (254) or, by Python's own
    functions, walked through: `str()` of it fills the stack.
    """
    try:
        body = orjson.loads(content)
        orjson.dumps(body)
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return None
    return body


def _spelt_plainly(content: bytes) -> bytes:
    """Return JSON with no more escapes than it needs; what is no JSON, as it is."""
    try:
        return orjson.dumps(orjson.loads(content))
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return content


def _no_answer(error: Exception) -> ApiResponse:
    """Name what came instead of an answer, without its text: that can hold the request."""
    for sign, problem in _CERTIFICATE_ERRORS.items():
        if sign in str(error):
            return ApiResponse(None, problem=problem, is_certificate_error=True)
    return ApiResponse(None, problem=type(error).__name__)
