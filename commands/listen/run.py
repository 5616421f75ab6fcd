"""`--listen [HOST:]PORT`: receive Iterable's webhooks until a signal ends it.

On waitress: bounded request sizes and connections, time-outs, and no dependencies of its own.
"""

from __future__ import annotations

import ipaddress
import logging
import threading
from contextlib import closing

from commands.console import print_line
from commands.listen.app import MAX_BODY_BYTES, WebhookApp
from commands.listen.recorder import Recorder
from config.settings import Settings
from errors import ConfigError, ExitStatus, SyncError, require_packages
from sync.signals import Interrupted, stop_signals

logger = logging.getLogger(__name__)

_DEFAULT_HOST = "127.0.0.1"
_THREADS = 16  # most wait for a commit, which they share
_MAX_CONNECTIONS = 500
_IDLE_SECONDS = 15  # then a connection without a byte is closed
_MAX_HEADER_BYTES = 16_384


class ListenError(SyncError):
    """The server cannot listen there."""


def to_address(text: str) -> tuple[str, int]:
    """Parse `PORT`, `HOST:PORT` or `[IPV6]:PORT`. Raises ConfigError."""
    host, _colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or _DEFAULT_HOST
    if not port.isascii() or not port.isdigit() or not 0 <= int(port) <= 65_535:
        raise ConfigError(
            [f"--listen needs a port, as in 8080 or {_DEFAULT_HOST}:8080, not {text}"]
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
    from waitress.server import create_server  # only here: a sync does not need it

    with stop_signals() as stop, closing(Recorder(settings.confirmations_file)) as recorder:
        stop.ends_at_once = False
        try:
            server = create_server(
                WebhookApp(settings.webhook_token, recorder.record, settings.event_name),
                host=host,
                port=port,
                threads=_THREADS,
                connection_limit=_MAX_CONNECTIONS,
                backlog=_MAX_CONNECTIONS,
                channel_timeout=_IDLE_SECONDS,
                cleanup_interval=5,
                max_request_header_size=_MAX_HEADER_BYTES,
                max_request_body_size=MAX_BODY_BYTES + 1,
                ident=None,
                clear_untrusted_proxy_headers=True,
            )
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ListenError(
                f"Cannot listen on {host}:{port} ({reason}): choose another port, or end the "
                "program that uses it."
            ) from error
        bound = server.effective_port
        logger.info("Listening for webhooks on %s:%s", host, bound)
        print_line(
            f"Listening for Iterable's webhooks on http://{host}:{bound}; what they confirm is in "
            f"{settings.confirmations_file}"
        )
        if not _is_loopback(host):
            logger.warning(
                "%s can be reached from other machines, without TLS: put a reverse proxy with TLS "
                "in front, see deploy/README.md",
                host,
            )
        thread = threading.Thread(target=server.run, name="listener", daemon=True)
        thread.start()
        stop.event.wait()
        server.close()
        server.task_dispatcher.shutdown()
    print_line(
        f"{recorder.received_count:,} webhooks received, {recorder.new_count:,} of them new; "
        f"{recorder.confirming_count:,} may confirm an event"
    )
    raise Interrupted(stop.number or 0)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
