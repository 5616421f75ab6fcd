"""What an operator is told before changed settings change what is sent."""

from __future__ import annotations

from collections.abc import Sequence

from state.outbox import FillSummary

OF_PROFILES = ("USER_FIELDS", "PROFILE_FLAG", "SEND_NULLS", "DB_TIMEZONE")
OF_EVENTS = ("EVENT_FIELDS", "DB_TIMEZONE")


def changed_profiles_text(filled: FillSummary) -> str:
    """Return which settings made delivered profiles different, and how many."""
    names = changed_names(filled.changed_settings, OF_PROFILES)
    return (
        f"{names} changed since the last run. Profiles that became different and are sent again: "
        f"{filled.changed_by_settings:,}"
    )


def kept_events_text(filled: FillSummary) -> str:
    """Return which settings make delivered events different, which are not sent for that."""
    names = changed_names(filled.changed_settings, OF_EVENTS)
    return (
        f"{names} changed since the last run. Delivered events are not sent again for that, except "
        f"with --full-refresh. Events that are different now: {filled.kept_events:,}"
    )


def renamed_events_text(filled: FillSummary) -> str:
    """Return how many delivered events stand in Iterable under another name."""
    return (
        "EVENT_NAME changed since the last run. The events of the former name stay in Iterable. "
        f"Users who have one and get an event of the new name: {filled.renamed_events:,}"
    )


def changed_names(changed_settings: Sequence[str], candidates: Sequence[str]) -> str:
    """Return which of the candidates changed: all of them, with "or", where that is not known."""
    changed = [name for name in candidates if name in changed_settings]
    if changed:
        return " and ".join(changed)
    return f"{', '.join(candidates[:-1])} or {candidates[-1]}"
