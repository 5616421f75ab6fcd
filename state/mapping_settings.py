"""The settings of the last deliveries, as hashes: what changed settings made different.

See `RowMapping.profile_settings`, `.event_settings` and `.hash_of_setting`.
"""

from __future__ import annotations

import sqlite3

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
        events = self._remembered.read(_EVENT_SETTINGS)
        return self.differ_for_profiles(mapping) or events not in (
            None,
            str(mapping.event_settings),
        )

    def differ_for_profiles(self, mapping: RowMapping) -> bool:
        """Return whether the last delivery had other settings of profiles."""
        profiles = self._remembered.read(_PROFILE_SETTINGS)
        return profiles not in (None, str(mapping.profile_settings))

    def changed_names(self, mapping: RowMapping) -> tuple[str, ...]:
        """Return the names of the settings that changed; empty too if that is not remembered."""
        text = self._remembered.read(_HASH_OF_SETTING)
        if not text:
            return ()
        with state_errors(self._remembered.path):
            try:
                former = dict(orjson.loads(text))
            except (ValueError, TypeError):
                raise sqlite3.DatabaseError("malformed settings") from None
        hashes = mapping.hash_of_setting
        return tuple(name for name, value in hashes.items() if former.get(name) != value)

    def note_delivery(self, mapping: RowMapping, *, is_complete_read: bool) -> None:
        """Remember the settings of a delivery that begins.

        A partial read leaves rows for which the next run has to say that settings changed.
        """
        if not is_complete_read and self._remembered.read(_PROFILE_SETTINGS) is not None:
            return
        self._remembered.write(_PROFILE_SETTINGS, str(mapping.profile_settings))
        self._remembered.write(_EVENT_SETTINGS, str(mapping.event_settings))
        self._remembered.write(_HASH_OF_SETTING, orjson.dumps(mapping.hash_of_setting).decode())

    def note_delivered_profile(self, mapping: RowMapping) -> None:
        """Remember that a profile with these settings was delivered."""
        self._remembered.write(_DELIVERED_PROFILE_SETTINGS, str(mapping.profile_settings))

    def forget_delivered_profile(self) -> None:
        """Forget it: the project may be another one."""
        self._remembered.forget(_DELIVERED_PROFILE_SETTINGS)
