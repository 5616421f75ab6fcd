"""What a dry run shows: how much a run would send, and the bodies of its requests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from config.settings import Settings
from iterable_api.responses import (
    EVENTS_TRACK,
    EVENTS_TRACK_BULK,
    USERS_BULK_UPDATE,
    USERS_GET_FIELDS,
    USERS_UPDATE,
)
from iterable_client import bulk_body
from records.rows import PendingRow, RequestKind
from reporting.formatting import counted
from state.delivered_samples import DeliveredSample
from sync.bulk import to_batches
from sync.bulk_responses import body_of
from sync.dropped_fields import drops_fields_silently
from sync.progress import pace_at_the_limits
from sync.project_check import choose_samples

FIELD_TYPES_REQUEST = (
    "  No profile was delivered with these settings yet, so a run would first ask Iterable for the "
    f"types of its profile fields ({USERS_GET_FIELDS}) and compare them."
)


FIELDS_REQUEST = (
    f"  A run first asks Iterable for its profile fields ({USERS_GET_FIELDS}), to say which of "
    "these are dropped (CREATE_NEW_FIELDS=false)."
)


def plan_lines(
    settings: Settings,
    profiles: int,
    events: int,
    *,
    samples: Sequence[DeliveredSample] = (),
    is_new_mapping: bool = False,
    is_held_back: bool = False,
    moves: int = 0,
) -> list[str]:
    """Return what a run would send, then what it would ask Iterable first.

    `moves` is the number of users who would get another address; the requests of their rows, which
    follow only where something else has changed, are not in the counts.
    `samples` are rows that show whether a new API key belongs to the same project. With
    `is_new_mapping` these settings have not delivered any profile yet. `is_held_back` means that
    the row-count guard would stop the run.
    """
    if is_held_back:
        return ["nothing would be sent, because the number of rows is unusual"]
    lines = [_requests_text(settings, profiles, events)]
    if moves:
        others = lines[0] if profiles or events else "nothing else would be sent"
        lines = [
            f"{counted(moves, 'user')} would be moved to a new e-mail address, and {others}",
            "  What else has changed in the rows of moved users follows, and is not counted here.",
        ]
    if chosen := choose_samples(samples):
        lines.append(
            f"  A run first reads {counted(len(chosen), 'user')} back from Iterable, because "
            "ITERABLE_API_KEY is new."
        )
    if is_new_mapping and profiles:
        lines.append(FIELD_TYPES_REQUEST)
    elif drops_fields_silently(settings) and profiles:
        lines.append(FIELDS_REQUEST)
    return lines


def _requests_text(settings: Settings, profiles: int, events: int) -> str:
    """Return how many requests a run would send, and how long the rate limits make that take."""
    if not profiles and not events:
        return "nothing would be sent"
    pace = pace_at_the_limits(settings, profiles, events)
    parts = [counted(profiles, "profile")] * settings.sends_profiles
    parts += [counted(events, "event")] * settings.sends_events
    counts = " and ".join(parts)
    limit = f"{pace.requests_per_second:,g} requests/s"
    return f"{counts} would be sent, about {_duration(pace.seconds)} at {limit}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{max(seconds, 1):.0f} s"
    if seconds < 7_200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3_600:,.1f} h"


def request_bodies(settings: Settings, rows: Iterator[PendingRow]) -> Iterator[tuple[str, bytes]]:
    """Yield endpoint and body of each request that a run would send, in their order.

    In bulk mode these are the batches before any is split.
    """
    if settings.sync_mode == "bulk":
        option = settings.creates_new_fields
        has_option = option is not None
        for batch in to_batches(rows, settings.bulk_batch_size, has_option=has_option):
            profiles = [
                body_of(RequestKind.PROFILE, row) for row in batch if row.profile is not None
            ]
            events = [body_of(RequestKind.EVENT, row) for row in batch if row.event is not None]
            if profiles:
                yield (
                    USERS_BULK_UPDATE,
                    bulk_body(USERS_BULK_UPDATE, profiles, create_new_fields=option),
                )
            if events:
                yield EVENTS_TRACK_BULK, bulk_body(EVENTS_TRACK_BULK, events)
        return
    for row in rows:
        if row.profile is not None:
            yield USERS_UPDATE, row.profile
        if row.event is not None:
            yield EVENTS_TRACK, row.event
