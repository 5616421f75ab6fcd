"""Fields that Iterable does not have and drops, because CREATE_NEW_FIELDS or the project says so.

In bulk mode its responses name them. Those of single calls do not, so in per-user mode the profile
fields are compared with `users/getFields`; the API does not list event fields.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from config.settings import Settings
from logger_config import redact
from records.rows import RequestKind

_MAX_FIELDS, _MAX_NAME_CHARACTERS = 1_000, 200
_MAX_SHOWN = 10


def drops_fields_silently(settings: Settings) -> bool:
    """Return whether Iterable drops profile fields without saying so."""
    return settings.creates_new_fields is False and settings.sync_mode == "per-user"


class DroppedFields:
    """The fields that Iterable has dropped, by kind of request: names as it gives them."""

    def __init__(self) -> None:
        self._names: dict[RequestKind, set[str]] = {kind: set() for kind in RequestKind}
        self._unknown: set[RequestKind] = set()

    def __bool__(self) -> bool:
        return any(self._names.values())

    def add(self, kind: RequestKind, names: Iterable[str]) -> None:
        """Add names; only the first thousand of a kind are kept."""
        known = self._names[kind]
        known.update(islice(names, max(0, _MAX_FIELDS - len(known))))

    def mark_unknown(self, kind: RequestKind) -> None:
        """Note that Iterable does not say which fields of this kind it drops."""
        self._unknown.add(kind)

    def to_json(self) -> dict[str, list[str] | None]:
        """Return the names, as they stand in the head of the results file; None: not known."""
        return {
            f"{kind.value}s": None
            if kind in self._unknown
            else sorted(redact(name)[:_MAX_NAME_CHARACTERS] for name in names)
            for kind, names in self._names.items()
        }

    def lines(self) -> list[str]:
        """Return the lines of the summary; none where nothing was dropped."""
        if not self:
            return []
        found = [f"of {kind}: {_listed(names)}" for kind, names in self.to_json().items() if names]
        return [
            f"Fields that Iterable does not have, and dropped: {'; '.join(found)}",
            "To have them, create them in the project or set CREATE_NEW_FIELDS=true, then run once "
            "with --full-refresh.",
        ]


def _listed(names: Sequence[str]) -> str:
    others = len(names) - _MAX_SHOWN
    more = f" and {others:,} more" if others > 0 else ""
    return ", ".join(names[:_MAX_SHOWN]) + more
