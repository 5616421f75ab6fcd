"""What an operator is told before changed settings change what is sent."""

from __future__ import annotations

from collections.abc import Sequence

# %s: which settings (`changed_names`), and how many.
CHANGED_PROFILES = (
    "%s changed since the last run. Profiles that became different and are sent again: %s"
)
KEPT_EVENTS = (
    "%s changed since the last run. Delivered events are not sent again for that, except with "
    "--full-refresh. Events that are different now: %s"
)
OF_PROFILES = ("USER_FIELDS", "SEND_NULLS", "DB_TIMEZONE")
OF_EVENTS = ("EVENT_FIELDS", "DB_TIMEZONE")


def changed_names(changed_settings: Sequence[str], candidates: Sequence[str]) -> str:
    """Return which of the candidates changed: all of them, with "or", where that is not known."""
    changed = [name for name in candidates if name in changed_settings]
    if changed:
        return " and ".join(changed)
    return f"{', '.join(candidates[:-1])} or {candidates[-1]}"
