"""The settings of the last deliveries, as hashes: what changed settings made different.

See `RowMapping.profile_settings`, `.event_settings` and `.hash_of_setting`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

import orjson

from records.mapping import RowMapping
from state.database import state_errors
from state.remembered import RememberedTable

# Of the newest delivery of a complete read, or of the first delivery.
_PROFILE_SETTINGS, _EVENT_SETTINGS = "profile_settings", "event_settings"
_HASH_OF_SETTING = "hash_of_setting"
_DELIVERED_PROFILE_SETTINGS = "delivered_profile_settings"  # of the newest delivered profile


class MappingSettings:
    """The settings that an open state file remembers. Raises StateError. The caller commits."""

    def __init__(self, remembered: RememberedTable) -> None:
        self._remembered = remembered

    def has_delivered(self, mapping: RowMapping) -> bool:
        """Return whether the newest profile that was delivered had the settings of this mapping."""
        return self._remembered.read(_DELIVERED_PROFILE_SETTINGS) == str(mapping.profile_settings)

    def differ(self, mapping: RowMapping) -> bool:
        """Return whether the last delivery had other settings than this mapping."""
        if self.differ_for_profiles(mapping):
            return True
        if not mapping.sends_events:
            return False
        events = self._remembered.read(_EVENT_SETTINGS)
        return events not in (None, str(mapping.event_settings)) or self.is_renamed(mapping)

    def differ_for_profiles(self, mapping: RowMapping) -> bool:
        """Return whether the last delivery had other settings of profiles."""
        profiles = self._remembered.read(_PROFILE_SETTINGS)
        return mapping.sends_profiles and profiles not in (None, str(mapping.profile_settings))

    def is_renamed(self, mapping: RowMapping) -> bool:
        """Return whether the last delivery had another EVENT_NAME."""
        return mapping.sends_events and "EVENT_NAME" in self.changed_names(mapping)

    def changed_names(self, mapping: RowMapping) -> tuple[str, ...]:
        """Return the names of the settings that changed; empty too if that is not remembered."""
        former = self._former_hashes()
        hashes = mapping.hash_of_setting
        if not former:
            return ()
        names = dict.fromkeys((*hashes, *former))
        return tuple(name for name in names if former.get(name) != hashes.get(name))

    def _former_hashes(self) -> dict[str, int]:
        text = self._remembered.read(_HASH_OF_SETTING)
        if not text:
            return {}
        with state_errors(self._remembered.path):
            try:
                return dict(orjson.loads(text))
            except (ValueError, TypeError):
                raise sqlite3.DatabaseError("malformed settings") from None

    def note_delivery(self, mapping: RowMapping, *, is_complete_read: bool) -> None:
        """Remember the settings of a delivery that begins.

        A partial read leaves rows for which the next run has to say that settings changed. What
        concerns requests that are not sent stays as it is.
        """
        noted = (_PROFILE_SETTINGS, _EVENT_SETTINGS)
        if not is_complete_read and any(self._remembered.read(name) is not None for name in noted):
            return
        hashes = mapping.hash_of_setting
        former = self._former_hashes()
        if mapping.sends_profiles:
            self._remembered.write(_PROFILE_SETTINGS, str(mapping.profile_settings))
        else:
            hashes = _with_former(hashes, former, ("USER_FIELDS", "SEND_NULLS", "PROFILE_FLAG"))
        if mapping.sends_events:
            self._remembered.write(_EVENT_SETTINGS, str(mapping.event_settings))
        else:
            hashes = _with_former(hashes, former, ("EVENT_FIELDS", "EVENT_NAME"))
        self._remembered.write(_HASH_OF_SETTING, orjson.dumps(hashes).decode())

    def note_delivered_profile(self, mapping: RowMapping) -> None:
        """Remember that a profile with these settings was delivered."""
        self._remembered.write(_DELIVERED_PROFILE_SETTINGS, str(mapping.profile_settings))

    def forget_delivered_profile(self) -> None:
        """Forget it: the project may be another one."""
        self._remembered.forget(_DELIVERED_PROFILE_SETTINGS)


def _with_former(
    hashes: Mapping[str, int], former: Mapping[str, int], names: Sequence[str]
) -> dict[str, int]:
    """Return the hashes, but those of these names as they were; absent where they were absent."""
    kept = {name: value for name, value in hashes.items() if name not in names}
    return {**kept, **{name: former[name] for name in names if name in former}}
