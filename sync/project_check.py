"""Project check: whether a new API key belongs to the project that the state file remembers.

Two projects of one data centre have the same address, so what was delivered is read back.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from config.settings import Settings
from errors import SyncError
from iterable_api.advice import explain_problem
from iterable_api.comparison import WAITS_SECONDS, is_in_iterable, is_unknown_user, lookup_of
from iterable_api.responses import ApiResponse
from records.rows import RequestKind
from state.database import StateError
from state.delivered_samples import DeliveredSample, body_of
from state.project import Match, Project, ProjectMemory

logger = logging.getLogger(__name__)

RECENT_SECONDS = 600.0  # Iterable may take minutes to apply a call

Get = Callable[[str, Mapping[str, str | int]], ApiResponse]  # of a path with a query


class OtherProjectError(SyncError):
    """The API key seems to belong to another project than the state file."""


def to_project(settings: Settings) -> Project:
    """Return the project that the settings lead to."""
    return Project(settings.iterable_api_base_url, settings.iterable_api_key, settings.identify_by)


def match_project(
    memory: ProjectMemory, project: Project, state_file: Path, *, is_dry_run: bool
) -> Match:
    """Compare the project of the settings with that of the state file.

    Raises StateError where it is another one; a dry run only warns.
    """
    try:
        match = memory.match(project)
    except StateError as error:
        if not is_dry_run:
            raise
        logger.warning("%s", error)
        return Match.NOTHING_NOTED
    if match is Match.OTHER_KEY and is_dry_run:
        logger.warning(
            "ITERABLE_API_KEY is not the key that %s was used with: a run first reads some users "
            "back to see whether it is the same project.",
            state_file,
        )
    return match


def is_key_proven(
    get: Get,
    settings: Settings,
    samples: Sequence[DeliveredSample],
    stop: threading.Event,
    *,
    is_accepted: bool,
) -> bool:
    """Return whether a new key belongs to the noted project; raises OtherProjectError.

    With `is_accepted` (--ignore-guards) nothing is read back.
    """
    if is_accepted:
        logger.warning("The new ITERABLE_API_KEY is accepted (--ignore-guards).")
        return True
    chosen = choose_samples(samples)
    if not chosen:
        logger.warning(
            "No row shows whether the new ITERABLE_API_KEY belongs to the same project, so what %s "
            "remembers does not count: everything is sent once more.",
            settings.state_file,
        )
        return False
    logger.info(
        "ITERABLE_API_KEY is new: reading %s users back from Iterable, for up to a minute, to see "
        "whether it is a key of the same project.",
        len(chosen),
    )
    check_key(get, settings, chosen, stop)
    logger.info("The new ITERABLE_API_KEY belongs to the same project as the former one.")
    return True


def choose_samples(samples: Sequence[DeliveredSample]) -> list[DeliveredSample]:
    """Return the events, or the profiles where no event is remembered."""
    events = [sample for sample in samples if sample.kind is RequestKind.EVENT]
    return events or list(samples)


def check_key(
    get: Get,
    settings: Settings,
    samples: Sequence[DeliveredSample],
    stop: threading.Event,
    *,
    waits_seconds: Sequence[float] = WAITS_SECONDS,
    now: Callable[[], float] = time.time,
) -> None:
    """Return if one sample is in Iterable as it was sent; raises OtherProjectError if none is.

    What was delivered in the last ten minutes is read again for up to a minute, and so is what
    could not be read, with `get` from Iterable. Returns early when `stop` is set.
    """
    state_file = settings.state_file
    problem: str | None = None
    for wait_seconds in (*waits_seconds, None):
        may_change = False
        for sample in samples:
            if stop.is_set():
                return
            response = get(*lookup_of(sample.kind, sample.record.identifier, settings.identify_by))
            sent = body_of(sample.record, sample.kind)
            if response.status == 200 and is_in_iterable(sample.kind, sent, response.body):
                return
            problem = _problem_of(settings, sample, response)
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


def _problem_of(settings: Settings, sample: DeliveredSample, response: ApiResponse) -> str | None:
    """Return why a response says nothing about the project; None where it does."""
    if response.status == 200 or is_unknown_user(response):
        return None
    path, _query = lookup_of(sample.kind, "...", settings.identify_by)
    explained = explain_problem(path, response, settings.iterable_api_base_url)
    return f"nothing can be read back: {(explained or 'rate limited').rstrip('.')}"
