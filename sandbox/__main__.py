"""Command line of the Iterable sandbox: `python -m sandbox` serves the API until interrupted."""

from __future__ import annotations

import argparse
import asyncio
import gc
import signal
import ssl
import sys
from collections.abc import Sequence
from typing import Any

from sandbox.api_service import ApiOptions, ApiService
from sandbox.faults import load_fault_script
from sandbox.field_types import FIELD_TYPES
from sandbox.iterable_api import loopback_address, serve, tls_context
from sandbox.project import ProjectType
from sandbox.responses import UnknownUserResponse
from sandbox.traffic import Limit
from sandbox.webhooks import WebhookMix, WebhookSender

# The fields of `WebhookMix`.
_MIX = {
    "twice": "twice",
    "late": "two seconds late",
    "never": "never",
    "without_id": "without the event's id",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM; return 1 if the port is not available, exit 2 on bad flags."""
    parser = _parser()
    flags = vars(parser.parse_args(arguments))
    host, port = flags.pop("host"), flags.pop("port")
    certificate, key = flags.pop("tls_certificate"), flags.pop("tls_key")
    url, token = flags.pop("webhook"), flags.pop("webhook_token")
    mix = WebhookMix(*(flags.pop(f"webhook_{name}") for name in _MIX))
    if key and not certificate:
        parser.error("--tls-key needs --tls-certificate")
    try:
        if url:
            flags["on_event"] = WebhookSender(url, token, mix, seed=flags["seed"])
        loopback_address(host)
        tls = tls_context(certificate, key) if certificate else None
        service = ApiService(_to_options(flags))
    except ValueError as error:
        parser.error(str(error))
    try:
        asyncio.run(_serve(service, host, port, tls))
    except OSError as error:
        sys.stderr.write(f"sandbox: cannot listen on {host}:{port}: {error.strerror}\n")
        return 1
    return 0


async def _serve(service: ApiService, host: str, port: int, tls: ssl.SSLContext | None) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    def ready(url: str) -> None:
        sys.stdout.write(f"Iterable sandbox listening on {url}\n")
        sys.stdout.flush()

    # Users and events live until the end, and 20,000 calls leave only 3,000 objects to collect. A
    # collection would take up to 40 ms, after which the calls that arrived meanwhile fill a second.
    gc.disable()
    await serve(service, stop=stop, ready=ready, host=host, port=port, tls=tls)


def _to_options(flags: dict[str, Any]) -> ApiOptions:
    script = flags.pop("fault_script")
    return ApiOptions(
        latency_seconds=flags.pop("latency_ms") / 1_000,
        jitter_seconds=flags.pop("jitter_ms") / 1_000,
        limits=dict(flags.pop("limits")),
        field_types=dict(flags.pop("field_types")),
        faults=load_fault_script(script) if script else (),
        **flags,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sandbox",
        description="Run a fake Iterable API on loopback that follows Iterable's documentation.",
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="loopback address to listen on (default %(default)s)")
    add("--port", type=_port, default=0, help="TCP port; 0, the default, picks a free one")
    add("--tls-certificate", metavar="FILE", help="serve over https with this certificate (PEM)")
    add("--tls-key", metavar="FILE", help="its key (PEM), if the certificate's file has none")
    add("--latency-ms", type=_milliseconds, default=0.0, metavar="N", help="time to process a call")
    add(
        "--jitter-ms",
        type=_milliseconds,
        default=0.0,
        metavar="N",
        help="vary the latency by up to N ms",
    )
    add(
        "--failure-rate",
        type=_share,
        default=0.0,
        metavar="P",
        help="share of calls (0 to 1) that get a random 500, 502, 503 or 504",
    )
    add(
        "--limit",
        dest="limits",
        type=_limit,
        action="append",
        default=[],
        metavar="ENDPOINT=RPS[/sliding]",
        help="calls per second, for example users/update=500; may be repeated. It is a token bucket"
        " that holds a second's calls; with users/update=500/sliding no more than 500 calls are"
        " accepted in any second",
    )
    add(
        "--retry-after",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="send a Retry-After header with a 429 (default: no; Iterable documents none)",
    )
    add(
        "--rate-limit-reset",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="send params.rateLimitReset with a 429 (default: yes)",
    )
    add(
        "--fault-script",
        metavar="FILE_OR_JSON",
        help="JSON list of fault rules, or a file that contains one",
    )
    add(
        "--seed",
        type=int,
        default=1,
        metavar="N",
        help="seed of the random numbers (default %(default)s)",
    )
    add("--api-key", metavar="KEY", help="the only accepted key (default: any non-empty key)")
    for flag, option, metavar, meaning in (
        ("--forgotten", "forgotten", "EMAIL_OR_ID", "GDPR-forgotten users"),
        ("--invalid-email", "invalid_emails", "EMAIL", "addresses to reject as malformed"),
        ("--invalid-data-email", "invalid_data_emails", "EMAIL", "users to reject: invalid data"),
        ("--conflict-email", "conflict_emails", "EMAIL", "users to reject: conflicting identity"),
        ("--disallow-event", "disallowed_events", "NAME", "event names disallowed from tracking"),
    ):
        add(
            flag,
            dest=option,
            nargs="+",
            action="extend",
            default=[],
            metavar=metavar,
            help=meaning,
        )
    add(
        "--field-type",
        dest="field_types",
        type=_field_type,
        action="append",
        default=[],
        metavar="NAME=TYPE",
        help=f"preset a field's type ({', '.join(FIELD_TYPES)}); EVENT:NAME: in one event only",
    )
    add(
        "--drop-unknown-fields",
        action="store_true",
        help="drop fields without a preset type, as an Iterable project can be configured to do",
    )
    add(
        "--project-type",
        choices=[each.value for each in ProjectType],
        default=ProjectType.EMAIL.value,
        help="how the project identifies users (default %(default)s)",
    )
    add(
        "--unknown-user-response",
        choices=[each.value for each in UnknownUserResponse],
        default=UnknownUserResponse.EMPTY.value,
        help="how users/byUserId answers for an unknown user (default %(default)s)",
    )
    add(
        "--says-bad-params",
        action="store_true",
        help="users/updateEmail answers BadParams, not UnknownEmailError, for an unknown address",
    )
    add(
        "--sparse-bulk-responses",
        action="store_true",
        help="send only the two counts in bulk responses",
    )
    add(
        "--webhook",
        metavar="URL",
        help="post each tracked event to this http URL of this machine, as a journey does",
    )
    add("--webhook-token", default="", metavar="TOKEN", help="sent with it, behind Bearer")
    for name, meaning in _MIX.items():
        add(
            f"--webhook-{name.replace('_', '-')}",
            type=_share,
            default=0.0,
            metavar="P",
            help=f"share of the events (0 to 1) that are posted {meaning}",
        )
    add(
        "--keep-calls",
        type=_count,
        default=0,
        metavar="N",
        help="record the last N calls for GET /sandbox/calls (default %(default)s)",
    )
    return parser


def _number(text: str, highest: float) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= highest:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to {highest:g}, not {text!r}")
    return number


def _milliseconds(text: str) -> float:
    return _number(text, 3_600_000)


def _share(text: str) -> float:
    return _number(text, 1)


def _port(text: str) -> int:
    return int(_number(text, 65_535))


def _count(text: str) -> int:
    return int(_number(text, 1e9))


def _limit(text: str) -> tuple[str, Limit]:
    endpoint, _, limit = text.rpartition("=")
    number, _, window = limit.partition("/")
    if window not in ("", "sliding"):
        raise argparse.ArgumentTypeError(f"must be ENDPOINT=RPS[/sliding], not {text!r}")
    per_second = _number(number, 1e9)
    return endpoint, {"per_second": per_second, "window": window} if window else per_second


def _field_type(text: str) -> tuple[str, str]:
    name, _, type_name = text.rpartition("=")
    if not name:
        raise argparse.ArgumentTypeError(f"must be NAME=TYPE, not {text!r}")
    return name, type_name


if __name__ == "__main__":
    sys.exit(main())
