"""`--listen [HOST:]PORT`: receive Iterable's webhooks until a signal ends it.

On waitress: bounded request sizes and connections, time-outs, and no dependencies of its own.
"""

from __future__ import annotations

import errno
import ipaddress
import logging
import re
import resource
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

from commands.console import print_line
from commands.listen.app import MAX_BODY_BYTES, WebhookApp
from commands.listen.recorder import TIMEOUT_SECONDS, Recorder
from commands.prepare import allow_open_files
from config.settings import Settings
from errors import ConfigError, ExitStatus, SyncError, require_packages
from sync.signals import Interrupted, stop_signals

if TYPE_CHECKING:
    from waitress.server import BaseWSGIServer, MultiSocketServer

logger = logging.getLogger(__name__)

_DEFAULT_HOST = "127.0.0.1"
_THREADS = 16  # most wait for a commit, which they share
_MAX_CONNECTIONS = 500
_IDLE_SECONDS = 15  # then a connection without a byte is closed
_MAX_HEADER_BYTES = 16_384
_WORKS_IN_ADDRESSES = re.compile(r"[A-Za-z0-9._~+=-]*")
_DRAIN_SECONDS = 2.0  # for calls that have arrived, after a stop signal
_LOOK_EVERY_SECONDS = 0.05


class ListenError(SyncError):
    """The server cannot listen there."""


class _Server(NamedTuple):
    """What serves, and its sockets: a name with two addresses, as localhost may be, has two."""

    whole: BaseWSGIServer | MultiSocketServer
    sockets: Sequence[BaseWSGIServer]

    @property
    def urls(self) -> str:
        return " and ".join(
            f"http://{_in_url(str(each.effective_host))}:{each.effective_port}"
            for each in self.sockets
        )

    @property
    def is_loopback(self) -> bool:
        return all(
            ipaddress.ip_address(str(each.effective_host).partition("%")[0]).is_loopback
            for each in self.sockets
        )

    def is_busy(self) -> bool:
        """Return whether a call has arrived, or began to, that has no answer yet."""
        return any(
            channel.requests or channel.request or channel.total_outbufs_len
            for each in self.sockets
            for channel in list(each.active_channels.values())
        )

    def stop(self) -> None:
        """Accept no more connections, answer what has arrived, and end the threads."""
        for each in self.sockets:
            each.accepting = False
        ends_at = time.monotonic() + _DRAIN_SECONDS
        while self.is_busy() and time.monotonic() < ends_at:
            time.sleep(_LOOK_EVERY_SECONDS)
        # Not `close()`: it closes a pipe that the threads still write to. The next file that is
        # opened gets its number; once that was the file of confirmations, which was destroyed.
        self.whole.task_dispatcher.shutdown(timeout=TIMEOUT_SECONDS + 1.0)


def works_in_an_address(token: str) -> bool:
    """Return whether a token can stand at the end of a path; every token can be in a header."""
    return _WORKS_IN_ADDRESSES.fullmatch(token) is not None


def to_address(text: str) -> tuple[str, int]:
    """Parse `PORT`, `HOST:PORT` or `[IPV6]:PORT`. Raises ConfigError."""
    host, _colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or _DEFAULT_HOST
    is_port = port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65_535
    if not is_port or "/" in host:
        raise ConfigError(
            [f"--listen needs a port, as in 8080 or {_DEFAULT_HOST}:8080, not {text[:100]}"]
        )
    return host, int(port)


def run_listen(settings: Settings, address: str) -> ExitStatus:
    """Serve until a stop signal, which raises Interrupted. Raises ConfigError, ListenError."""
    host, port = to_address(address)
    if not settings.webhook_token:
        raise ConfigError(
            ["WEBHOOK_TOKEN is missing: --listen needs it, see docs/confirmations.md"]
        )
    require_packages(["waitress"])
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # calls that wait are usual
    with stop_signals() as stop, closing(Recorder(settings.confirmations_file)) as recorder:
        stop.ends_at_once = False
        app = WebhookApp(settings.webhook_token, recorder.record, settings.event_name)
        server = _open_server(app, host, port)
        _announce(server, settings)
        threading.Thread(target=server.whole.run, name="listener", daemon=True).start()
        stop.event.wait()
        server.stop()
    print_line(
        f"{recorder.received_count:,} webhooks received, {recorder.new_count:,} of them new; "
        f"{recorder.confirming_count:,} may confirm an event"
    )
    raise Interrupted(stop.number or 0)


def _open_server(app: WebhookApp, host: str, port: int) -> _Server:
    # Imported here, because a sync does not need the package.
    from waitress.server import BaseWSGIServer, create_server

    dispatchers: dict[int, object] = {}
    try:
        whole = create_server(
            app,
            map=dispatchers,
            host=host,
            port=port,
            threads=_THREADS,
            connection_limit=_connection_limit(),
            backlog=_MAX_CONNECTIONS,
            channel_timeout=_IDLE_SECONDS,
            cleanup_interval=5,
            max_request_header_size=_MAX_HEADER_BYTES,
            max_request_body_size=MAX_BODY_BYTES + 1,
            ident=None,
            clear_untrusted_proxy_headers=True,
        )
    except (OSError, ValueError) as error:
        raise ListenError(f"Cannot listen on {_in_url(host)}:{port} ({_explain(error)}.") from error
    return _Server(
        whole, [each for each in dispatchers.values() if isinstance(each, BaseWSGIServer)]
    )


def _connection_limit() -> int:
    """Return how many connections may be open: half of the files that may be, where that is less.

    Others wait until one is free. Without a limit SQLite could open no file.
    """
    allow_open_files()
    open_files, _most = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(_MAX_CONNECTIONS, open_files // 2)


def _explain(error: Exception) -> str:
    """Return the reason and, after a parenthesis, what to do."""
    if not isinstance(error, OSError):  # waitress' ValueError says no more
        return f"the host is unknown): use {_DEFAULT_HOST} or another address of this machine"
    reason = error.strerror or str(error)
    if error.errno == errno.EADDRINUSE:
        return f"{reason}): choose another port, or end the program that uses it"
    if error.errno == errno.EACCES:
        return f"{reason}): choose a port from 1024 on"
    return f"{reason}): use {_DEFAULT_HOST} or another address of this machine"


def _announce(server: _Server, settings: Settings) -> None:
    if not works_in_an_address(settings.webhook_token):
        logger.warning(
            "WEBHOOK_TOKEN has other characters than letters, digits and ._~+=-, so it works in "
            "the header Authorization only, not in an address: openssl rand -hex 24 makes one that "
            "works in both."
        )
    logger.info("Listening for webhooks on %s", server.urls)
    print_line(
        f"Listening for Iterable's webhooks on {server.urls}; what they confirm is in "
        f"{settings.confirmations_file}"
    )
    if not server.is_loopback:
        logger.warning(
            "%s can be reached from other machines, without TLS: put a reverse proxy with TLS "
            "in front, see deploy/README.md",
            server.urls,
        )


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
