"""Project check: whether a new API key belongs to the project that the state file remembers.

Two projects of one data centre have the same address, so what was delivered is read back.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from errors import SyncError
from iterable_api.advice import explain_problem
from iterable_api.comparison import WAITS_SECONDS, is_in_iterable, lookup_of
from iterable_api.responses import ApiResponse
from records.rows import RequestKind
from state.delivered_samples import DeliveredSample

RECENT_SECONDS = 600.0  # Iterable may take minutes to apply a call

Get = Callable[[str, Mapping[str, str | int]], ApiResponse]  # of a path with a query


class OtherProjectError(SyncError):
    """The API key seems to belong to another project than the state file."""


def choose_samples(samples: Sequence[DeliveredSample]) -> list[DeliveredSample]:
    """Return the events, or the profiles where no event is remembered."""
    events = [sample for sample in samples if sample.kind is RequestKind.EVENT]
    return events or list(samples)


def check_key(
    get: Get,
    address: str,
    samples: Sequence[DeliveredSample],
    state_file: Path,
    stop: threading.Event,
    *,
    waits_seconds: Sequence[float] = WAITS_SECONDS,
    now: Callable[[], float] = time.time,
) -> None:
    """Return if one sample is in Iterable as it was sent; raises OtherProjectError if none is.

    What was delivered in the last ten minutes is read again for up to a minute, and so is what
    could not be read, with `get` from Iterable at `address`. Returns early when `stop` is set.
    """
    problem: str | None = None
    for wait_seconds in (*waits_seconds, None):
        may_change = False
        for sample in samples:
            if stop.is_set():
                return
            response = get(*lookup_of(sample.kind, sample.record.email))
            sent = (
                sample.record.profile if sample.kind is RequestKind.PROFILE else sample.record.event
            )
            if response.status == 200 and is_in_iterable(sample.kind, sent, response.body):
                return
            problem = _problem_of(address, sample, response)
            is_unanswered = response.status is None or response.status in (408, 429)
            is_unanswered = is_unanswered or (response.status or 0) >= 500
            is_recent = now() - sample.delivered_at <= RECENT_SECONDS
            may_change = may_change or is_unanswered or (is_recent and problem is None)
        if not may_change or wait_seconds is None or stop.wait(wait_seconds):
            break
    if stop.is_set():
        return
    found = problem or f"none of {len(samples)} users that were read back has what was delivered"
    raise OtherProjectError(
        f"ITERABLE_API_KEY is not the key that {state_file} was used with, and {found}. Nothing "
        "was sent. For another project set STATE_FILE to another file; if it is the same project, "
        "run once with --ignore-guards."
    )


def _problem_of(address: str, sample: DeliveredSample, response: ApiResponse) -> str | None:
    """Return why a response says nothing about the project; None where it does."""
    if response.status == 200 or response.code == "UnknownEmailError":
        return None
    path, _query = lookup_of(sample.kind, "...")
    explained = explain_problem(path, response, address)
    return f"nothing can be read back: {(explained or 'rate limited').rstrip('.')}"
