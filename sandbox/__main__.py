"""`python -m sandbox`: the Iterable API alone, until it is interrupted.

Owns the flags. Refuses to know what they do (`ApiOptions` does).
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import signal
import sys
from collections.abc import Sequence
from typing import Any

from sandbox.faults import load_fault_script
from sandbox.field_types import FIELD_TYPES
from sandbox.iterable_api import loopback_address, serve
from sandbox.service import ApiOptions, ApiService


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM; exit 2 for bad flags, 1 when the port cannot be had."""
    parser = _parser()
    flags = vars(parser.parse_args(arguments))
    host, port = flags.pop("host"), flags.pop("port")
    try:
        loopback_address(host)
        service = ApiService(_to_options(flags))
    except ValueError as error:
        parser.error(str(error))
    try:
        asyncio.run(_serve(service, host, port))
    except OSError as error:
        sys.stderr.write(f"sandbox: cannot listen on {host}:{port}: {error.strerror}\n")
        return 1
    return 0


async def _serve(service: ApiService, host: str, port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    def ready(url: str) -> None:
        sys.stdout.write(f"Iterable sandbox listening on {url}\n")
        sys.stdout.flush()

    # A million users and events are no garbage: look for some rarely.
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    await serve(service, stop=stop, ready=ready, host=host, port=port)


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
        description="An Iterable API on loopback that behaves as Iterable documents it.",
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="a loopback address (default %(default)s)")
    add("--port", type=_port, default=0, help="0 takes a free one (default)")
    add("--latency-ms", type=_milliseconds, default=0.0, metavar="N", help="service time of a call")
    add("--jitter-ms", type=_milliseconds, default=0.0, metavar="N", help="give or take so much")
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
        metavar="ENDPOINT=RPS",
        help="rate limit, like users/update=500; may be repeated",
    )
    add(
        "--retry-after",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="whether a 429 has a Retry-After header (default: no, as Iterable documents none)",
    )
    add(
        "--rate-limit-reset",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="whether a 429 has params.rateLimitReset (default: yes)",
    )
    add("--fault-script", metavar="FILE_OR_JSON", help="a JSON list of fault rules")
    add("--seed", type=int, default=1, metavar="N", help="of all randomness (default %(default)s)")
    add("--api-key", metavar="KEY", help="the one accepted key (default: any that is not empty)")
    add(
        "--forgotten",
        nargs="+",
        action="extend",
        default=[],
        metavar="EMAIL",
        help="GDPR-forgotten users",
    )
    add(
        "--invalid-email",
        dest="invalid_emails",
        nargs="+",
        action="extend",
        default=[],
        metavar="EMAIL",
        help="addresses that Iterable finds malformed",
    )
    add(
        "--invalid-data-email",
        dest="invalid_data_emails",
        nargs="+",
        action="extend",
        default=[],
        metavar="EMAIL",
        help="users whose data Iterable finds invalid",
    )
    add(
        "--conflict-email",
        dest="conflict_emails",
        nargs="+",
        action="extend",
        default=[],
        metavar="EMAIL",
        help="users whose identity conflicts with another's",
    )
    add(
        "--disallow-event",
        dest="disallowed_events",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="event names that are disallowed from tracking",
    )
    add(
        "--field-type",
        dest="field_types",
        type=_field_type,
        action="append",
        default=[],
        metavar="NAME=TYPE",
        help=f"preset a field's type ({', '.join(FIELD_TYPES)}); EVENT:NAME for one event only",
    )
    add(
        "--drop-unknown-fields",
        action="store_true",
        help="drop fields that no preset names, as a project can be set to",
    )
    add(
        "--sparse-bulk-answers",
        action="store_true",
        help="leave out all keys of a bulk answer but the two counts",
    )
    add(
        "--keep-calls",
        type=_count,
        default=0,
        metavar="N",
        help="keep the last N requests for GET /sandbox/calls",
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


def _limit(text: str) -> tuple[str, float]:
    endpoint, _, number = text.rpartition("=")
    return endpoint, _number(number, 1e9)


def _field_type(text: str) -> tuple[str, str]:
    name, _, type_name = text.rpartition("=")
    if not name:
        raise argparse.ArgumentTypeError(f"must be NAME=TYPE, not {text!r}")
    return name, type_name


if __name__ == "__main__":
    sys.exit(main())
