"""HTTP server of the sandbox: the Iterable API on loopback, here (`serve`) or in a thread.

It uses aiohttp's low-level server (no router, middleware or access log): with more, the sandbox
would be slower than the program that it measures. `api_service` decides the responses.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader

from sandbox.api_service import ApiOptions, ApiService
from sandbox.calls import Call, CallRecord
from sandbox.control import CONTROL_PATH, control
from sandbox.fault_effects import REDIRECT_TARGET
from sandbox.project import Project
from sandbox.traffic import Limit
from sandbox.wire_response import Ending, WireResponse

# Larger than Iterable's limit, so that a client that is still sending can receive the 413.
_READ_LIMIT_BYTES = 64_000_000
_BACKLOG = 1_024  # several hundred clients connect at once
_LINGER_ZERO = struct.pack("ii", 1, 0)  # closing then sends RST
_REQUEST_STARTS = (b"GET ", b"POST ", b"PUT ", b"DELETE ", b"HEAD ", b"PATCH ", b"OPTIONS ")

_T = TypeVar("_T")


async def serve(
    service: ApiService,
    *,
    stop: asyncio.Event,
    ready: Callable[[str], None],
    host: str = "127.0.0.1",
    port: int = 0,
    tls: ssl.SSLContext | None = None,
) -> None:
    """Serve until `stop` is set; `ready` gets the URL. `host` must be a loopback address.

    With `tls` the API is served over https, see `tls_context`.
    """
    loop = asyncio.get_running_loop()

    def to_request(
        message: RawRequestMessage,
        payload: StreamReader,
        connection: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        return web.BaseRequest(
            message, payload, connection, writer, task, loop, client_max_size=_READ_LIMIT_BYTES
        )

    async def respond(request: web.BaseRequest) -> web.StreamResponse:
        return await _respond(service, request)

    # With cancellation, a call that hangs or waits ends when its client disconnects.
    server = web.Server(respond, request_factory=to_request, handler_cancellation=True)
    listener = await loop.create_server(
        lambda: _Connection(server, service, loop),
        loopback_address(host),
        port,
        backlog=_BACKLOG,
        ssl=tls,
    )
    try:
        address, bound_port = listener.sockets[0].getsockname()[:2]
        url_host = f"[{address}]" if ":" in address else address
        scheme = "http" if tls is None else "https"
        ready(f"{scheme}://{url_host}:{bound_port}")
        await stop.wait()
    finally:
        listener.close()
        for connection in server.connections:
            if connection.transport is not None:
                _reset(connection.transport)


def tls_context(certificate: str | Path, key: str | Path | None = None) -> ssl.SSLContext:
    """Return the context of a server with this certificate; without `key`, its file has the key.

    TLS 1.2 or newer, with session tickets. ValueError if the files cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:  # ssl.SSLError is one, too
        names = str(certificate) if key is None else f"{certificate} and {key}"
        raise ValueError(f"cannot use the certificate {names}: {error.strerror}") from None
    return context


def loopback_address(host: str) -> str:
    """Return the address to bind; ValueError if it is not a loopback address."""
    if host == "localhost":
        return "127.0.0.1"
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise ValueError(f"the sandbox listens on loopback addresses only, not on {host}")
    return host


class _Connection(web.RequestHandler):
    """A client's connection; a `down` rule resets it before its request is read."""

    __slots__ = ("_is_counted", "_service")

    def __init__(
        self, server: web.Server, service: ApiService, loop: asyncio.AbstractEventLoop
    ) -> None:
        # aiohttp itself passes None to turn the access log off; its annotation forbids it.
        super().__init__(server, loop=loop, access_log=None)  # type: ignore[arg-type]
        self._service = service
        self._is_counted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection, and its TLS handshake, which is complete."""
        super().connection_made(transport)
        self._is_counted = True
        self._count(transport, 1)

    def leave_out(self) -> None:
        """Take the connection out of the counts, since it is used for control calls."""
        if self._is_counted and self.transport is not None:
            self._is_counted = False
            self._count(self.transport, -1)

    def _count(self, transport: asyncio.BaseTransport, number: int) -> None:
        tls = transport.get_extra_info("ssl_object")
        self._service.count_connection(number, tls is not None, bool(tls and tls.session_reused))

    def data_received(self, data: bytes) -> None:
        """Pass the data on, or reset the connection if the API is down. Control calls pass."""
        # Data that continues a request's body does not count as another attempt.
        is_attempt = self._service.faults.has_down_rules and data.startswith(_REQUEST_STARTS)
        if is_attempt and self.transport is not None:
            is_for_control = f" {CONTROL_PATH}".encode() in data[:30]
            if not is_for_control and self._service.is_down(time.monotonic()):
                _reset(self.transport)
                return
        super().data_received(data)


_EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"


async def _respond(service: ApiService, request: web.BaseRequest) -> web.StreamResponse:
    raw = await request.read()
    arrived_at = time.monotonic()
    target = request.raw_path
    if target.startswith(CONTROL_PATH):
        if isinstance(request.protocol, _Connection) and target != REDIRECT_TARGET:
            request.protocol.leave_out()
        response = control(service, request.method, target, raw)
        return _to_response(response, service.next_request_id())
    api_key = request.headers.get("Api-Key")
    call = Call(request.method, target, api_key=api_key, raw=raw, arrived_at=arrived_at)
    planned = service.serve(call, lambda: _to_text(request, raw))
    response = planned.response
    outcome = "client_left"
    try:
        wait_seconds = arrived_at + planned.service_seconds - time.monotonic()
        if wait_seconds > 0:
            await asyncio.sleep(wait_seconds)
        outcome = str(response.status) if response.status else response.ending.value
    finally:
        planned.finish(outcome)
    if response.ending is Ending.HANG:
        await asyncio.get_running_loop().create_future()
    if response.ending is Ending.HALF:
        return await _send_half(request, response, planned.request_id)
    if response.interim_count and isinstance(request.transport, asyncio.Transport):
        request.transport.write(response.interim_count * _EARLY_HINTS)
    if response.ending is Ending.DROP and request.transport is not None:
        request.transport.close()  # aiohttp then writes to a closed connection
    return _to_response(response, planned.request_id)


def _to_response(response: WireResponse, request_id: str) -> web.Response:
    response.headers["Iterable-Request-Id"] = request_id
    return web.Response(
        body=response.body,
        status=response.status or 500,
        headers=response.headers,
        content_type=response.content_type,
    )


async def _send_half(
    request: web.BaseRequest, response: WireResponse, request_id: str
) -> web.StreamResponse:
    """Send a Content-Length for the whole body but only half of the body, then close."""
    headers = {**response.headers, "Iterable-Request-Id": request_id}
    stream = web.StreamResponse(status=response.status, headers=headers)
    stream.content_type = response.content_type
    stream.content_length = len(response.body)
    await stream.prepare(request)
    await stream.write(response.body[: len(response.body) // 2])
    if request.transport is not None:
        request.transport.close()
    return stream


def _to_text(request: web.BaseRequest, raw: bytes) -> str:
    """Return the request as received, with the API key: some error pages quote all of it."""
    head = "\r\n".join(f"{name}: {value}" for name, value in request.headers.items())
    body = raw.decode("utf-8", "replace")
    return f"{request.method} {request.raw_path} HTTP/1.1\r\n{head}\r\n\r\n{body}"


def _reset(transport: asyncio.BaseTransport) -> None:
    """Close the connection with a TCP reset."""
    connection = transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
    assert isinstance(transport, asyncio.Transport)  # noqa: S101 - always so for TCP
    transport.abort()


class IterableSandbox:
    """The API in a daemon thread; a context manager.

    `options` are the fields of `ApiOptions`; for TLS see `tls_context`. Every method may be called
    from any thread, also after `stop`. `project` is the live project: read it only while no call is
    in progress.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls_certificate: str | Path | None = None,
        tls_key: str | Path | None = None,
        keep_calls: int = 10_000,
        **options: Any,
    ) -> None:
        """Prepare the server without starting it; TypeError or ValueError for a bad option."""
        self._service = ApiService(ApiOptions(keep_calls=keep_calls, **options))
        self._host = loopback_address(host)
        self._port = port
        self._tls = None if tls_certificate is None else tls_context(tls_certificate, tls_key)
        self._started = threading.Event()
        self._start_error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self.url = ""

    def start(self) -> IterableSandbox:
        """Start to listen and set `url`; OSError if the port is taken."""
        self._thread = threading.Thread(target=self._run, name="iterable-sandbox", daemon=True)
        self._thread.start()
        self._started.wait()
        if self._start_error is not None:
            raise self._start_error
        return self

    def stop(self) -> None:
        """Close the listener and all connections; does nothing if already stopped."""
        if self._loop is not None and self._stop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()
        self._loop = None

    def __enter__(self) -> IterableSandbox:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def project(self) -> Project:
        """The users, events and field types."""
        return self._service.project

    @property
    def calls(self) -> list[CallRecord]:
        """The last `keep_calls` calls, oldest first."""
        return self._in_loop(lambda: list(self._service.calls))

    def state(self) -> dict[str, Any]:
        """Return all counts, in the form of GET /sandbox/state."""
        return self._in_loop(self._service.state)

    def set_faults(self, rules: Sequence[Mapping[str, Any]]) -> None:
        """Replace the fault script; ValueError names the rule and the problem."""
        self._in_loop(lambda: self._service.set_faults(rules))

    def set_limits(self, limits: Mapping[str, Limit | None]) -> None:
        """Replace the limits of the named endpoints; None removes a limit."""
        self._in_loop(lambda: self._service.set_limits(limits))

    def reset(self) -> None:
        """Forget users, events, learned types, counts and calls; keep faults and limits."""
        self._in_loop(self._service.reset)

    def _in_loop(self, act: Callable[[], _T]) -> _T:
        if self._loop is None:
            return act()

        async def act_in_loop() -> _T:
            return act()

        return asyncio.run_coroutine_threadsafe(act_in_loop(), self._loop).result()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except OSError as error:
            self._start_error = error
            self._started.set()

    async def _serve(self) -> None:
        def ready(url: str) -> None:
            self.url = url
            self._loop = asyncio.get_running_loop()
            self._started.set()

        self._stop = asyncio.Event()
        await serve(
            self._service,
            stop=self._stop,
            ready=ready,
            host=self._host,
            port=self._port,
            tls=self._tls,
        )
