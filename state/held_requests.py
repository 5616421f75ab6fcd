"""Requests that are held back because Iterable has rejected the same content not long ago. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import orjson

from records.outcomes import UNREACHABLE_CODES, Verdict
from records.rows import FailureAge, FailureAges, RequestKind
from state.outbox_file import Held, OutboxRow


class KnownFailure(NamedTuple):
    """A row of the table `failures`."""

    http_status: int | None
    code: str | None
    content_hash: int | None
    event_hash: int | None
    judged_at: int  # unix seconds
    first_failed_at: int
    runs_failed: int
    row_count: int

    @property
    def age_in_this_run(self) -> FailureAge:
        """The age if it fails once more."""
        return FailureAge(self.first_failed_at, self.runs_failed + 1)


Failures = dict[tuple[int, str], KnownFailure]  # by `row_key` and `kind`


class HeldRow(NamedTuple):
    """The columns of an outbox row that has a request which is held back."""

    seq: int
    held: str  # `Held`
    failure_ages: str
    update_verdict: str | None
    update_result: str | None
    event_verdict: str | None
    event_result: str | None


def hold_back(
    row: OutboxRow,
    user_key: int,
    failures: Failures,
    is_recent: Callable[[KnownFailure], bool],
    *,
    event_needs_profile: bool = False,
) -> tuple[OutboxRow, HeldRow | None]:
    """Return the row to insert, and what of it is held back. Pure.

    A rejected profile rules its event as it does when it is sent. `event_needs_profile` is that of
    `PendingRow`.
    """
    profile = failures.get((user_key, RequestKind.PROFILE.value))
    if profile and not (
        row.profile is not None and profile.content_hash == row.profile_hash and is_recent(profile)
    ):
        profile = None
    if profile and row.event is not None and profile.event_hash == row.event_hash:
        # Delivered, but in doubt as long as the profile is not delivered.
        row = row._replace(event=None)
    event = failures.get((user_key, RequestKind.EVENT.value))
    if event and not (
        row.event is not None and event.content_hash == row.event_hash and is_recent(event)
    ):
        event = None
    is_unreachable = profile is not None and (
        event_needs_profile or profile.code in UNREACHABLE_CODES
    )
    if is_unreachable:
        event = None  # as in the run that sent the profile, its event gets no result of its own
    if not (profile or event):
        return row, None
    sends_profile = row.profile is not None and not profile
    sends_event = row.event is not None and not event and not is_unreachable
    held = Held.ROW
    if sends_profile or sends_event:
        held = Held.PROFILE if profile else Held.EVENT
    ages = {
        kind.value: failure.age_in_this_run
        for kind, failure in ((RequestKind.PROFILE, profile), (RequestKind.EVENT, event))
        if failure
    }
    rejected = Verdict.REJECTED.value
    return row, HeldRow(
        row.seq,
        held.value,
        to_ages_text(ages),
        update_verdict=profile and rejected,
        update_result=profile and _to_result_text(profile),
        event_verdict=event and rejected,
        event_result=event and _to_result_text(event),
    )


def to_ages_text(ages: FailureAges) -> str:
    return orjson.dumps({kind: list(age) for kind, age in ages.items()}).decode()


def _to_result_text(failure: KnownFailure) -> str:
    """Return the result of a request that is not made, as JSON text."""
    return orjson.dumps(
        {
            "success": False,
            "verdict": Verdict.REJECTED.value,
            "http_status": failure.http_status,
            "attempts": 0,
            "request_id": None,
            "response": {"code": failure.code},
        }
    ).decode()
