"""The sandbox's Iterable API on a loopback socket: alone (`serve`), or inside a test.

Owns aiohttp, connections, waiting and the thread. Refuses to know what a call means (`service`
does). aiohttp's low-level server carries it: no router, no middlewares, no access log.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader

from sandbox.api_service import ApiOptions, ApiService
from sandbox.calls import Call, CallRecord
from sandbox.control import CONTROL_PATH, control
from sandbox.project import Project
from sandbox.traffic import Limit
from sandbox.wire_response import Ending, WireResponse

# Bodies are read whole, whatever Iterable's limit: the 413 reaches a client that is still sending.
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
) -> None:
    """Serve until `stop` is set; `ready` gets the URL. `host` must be a loopback address."""
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

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return await _answer(service, request)

    # Cancellation: a call that hangs or waits ends when its client leaves.
    server = web.Server(answer, request_factory=to_request, handler_cancellation=True)
    listener = await loop.create_server(
        lambda: _Connection(server, service, loop),
        loopback_address(host),
        port,
        backlog=_BACKLOG,
    )
    try:
        address, bound_port = listener.sockets[0].getsockname()[:2]
        shown = f"[{address}]" if ":" in address else address
        ready(f"http://{shown}:{bound_port}")
        await stop.wait()
    finally:
        listener.close()
        for connection in server.connections:
            if connection.transport is not None:
                _reset(connection.transport)


def loopback_address(host: str) -> str:
    """Give the address to bind; ValueError for any but a loopback one."""
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
    """One client's connection; a `down` rule resets it before its request is read."""

    __slots__ = ("_service",)

    def __init__(
        self, server: web.Server, service: ApiService, loop: asyncio.AbstractEventLoop
    ) -> None:
        # None is how aiohttp itself turns the access log off; its annotation lags.
        super().__init__(server, loop=loop, access_log=None)  # type: ignore[arg-type]
        self._service = service

    def data_received(self, data: bytes) -> None:
        """Take what the client sent. Control calls get through even when the API is down."""
        # A request's body may come in pieces of its own: they are no further attempts to talk.
        is_attempt = self._service.faults.has_down_rules and data.startswith(_REQUEST_STARTS)
        if is_attempt and self.transport is not None:
            is_for_control = f" {CONTROL_PATH}".encode() in data[:30]
            if not is_for_control and self._service.is_down(time.monotonic()):
                _reset(self.transport)
                return
        super().data_received(data)


async def _answer(service: ApiService, request: web.BaseRequest) -> web.StreamResponse:
    raw = await request.read()
    arrived_at = time.monotonic()
    target = request.raw_path
    if target.startswith(CONTROL_PATH):
        response = control(service, request.method, target, raw)
        return _to_response(response, service.next_request_id())
    api_key = request.headers.get("Api-Key")
    call = Call(request.method, target, api_key=api_key, raw=raw, arrived_at=arrived_at)
    decided = service.serve(call, lambda: _to_text(request, raw))
    response = decided.response
    outcome = "client_left"
    try:
        wait_seconds = arrived_at + decided.service_seconds - time.monotonic()
        if wait_seconds > 0:
            await asyncio.sleep(wait_seconds)
        outcome = str(response.status) if response.status else response.ending.value
    finally:
        decided.finish(outcome)
    if response.ending is Ending.HANG:
        await asyncio.get_running_loop().create_future()
    if response.ending is Ending.HALF:
        return await _send_half(request, response, decided.request_id)
    if response.ending is Ending.DROP and request.transport is not None:
        request.transport.close()  # what aiohttp then writes goes nowhere
    return _to_response(response, decided.request_id)


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
    """Announce the whole body, send half of it, close."""
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
    """Give the request as it came, key and all: some servers' error pages do just that."""
    head = "\r\n".join(f"{name}: {value}" for name, value in request.headers.items())
    body = raw.decode("utf-8", "replace")
    return f"{request.method} {request.raw_path} HTTP/1.1\r\n{head}\r\n\r\n{body}"


def _reset(transport: asyncio.BaseTransport) -> None:
    """Close the connection the rude way."""
    connection = transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
    assert isinstance(transport, asyncio.Transport)  # noqa: S101 - what every TCP server gets
    transport.abort()


class IterableSandbox:
    """The API in a daemon thread of its own; use it as a context manager.

    `options` are the fields of `ApiOptions`. Every method may be called from any thread, also
    after the end. `project` is the live project: read it when no call is under way.
    """

    def __init__(
        self, *, host: str = "127.0.0.1", port: int = 0, keep_calls: int = 10_000, **options: Any
    ) -> None:
        """Start nothing yet; TypeError for an unknown option, ValueError for a bad one."""
        self._service = ApiService(ApiOptions(keep_calls=keep_calls, **options))
        self._host = loopback_address(host)
        self._port = port
        self._started = threading.Event()
        self._start_error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self.url = ""

    def start(self) -> IterableSandbox:
        """Listen; `url` is set when this returns. OSError when the port is taken."""
        self._thread = threading.Thread(target=self._run, name="iterable-sandbox", daemon=True)
        self._thread.start()
        self._started.wait()
        if self._start_error is not None:
            raise self._start_error
        return self

    def stop(self) -> None:
        """Close the listener and every connection, hanging ones too; harmless when stopped."""
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
        """The users, events and types."""
        return self._service.project

    @property
    def calls(self) -> list[CallRecord]:
        """The last `keep_calls` requests to the API, oldest first."""
        return self._in_loop(lambda: list(self._service.calls))

    def state(self) -> dict[str, Any]:
        """Give what GET /sandbox/state gives."""
        return self._in_loop(self._service.state)

    def set_faults(self, rules: Sequence[Mapping[str, Any]]) -> None:
        """Replace the fault script; ValueError names the rule and the problem."""
        self._in_loop(lambda: self._service.set_faults(rules))

    def set_limits(self, limits: Mapping[str, Limit | None]) -> None:
        """Replace the limits of the named endpoints; None lifts one."""
        self._in_loop(lambda: self._service.set_limits(limits))

    def reset(self) -> None:
        """Forget users, events, learned types, counts and calls; keep faults and limits."""
        self._in_loop(self._service.reset)

    def _in_loop(self, act: Callable[[], _T]) -> _T:
        if self._loop is None:
            return act()

        async def act_there() -> _T:
            return act()

        return asyncio.run_coroutine_threadsafe(act_there(), self._loop).result()

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
        await serve(self._service, stop=self._stop, ready=ready, host=self._host, port=self._port)
