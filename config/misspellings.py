"""Names in `.env` that are no settings, and the settings that they resemble."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

_NAME = re.compile(r"[\w.-]{1,64}")


def resembled_setting(name: str, settings: Iterable[str]) -> str | None:
    """Return the setting that `name` is meant to be, None where it resembles none."""
    return next((each for each in settings if _resembles(name, each)), None)


def _resembles(name: str, setting: str) -> bool:
    """Compare without underscores and case, then with one character wrong.

    One character may be too many, missing or another one, or two neighbours may be swapped.
    """
    return _normalized(name) == _normalized(setting) or _differs_by_one(name, setting)


def _normalized(name: str) -> str:
    return name.replace("_", "").upper()


def _differs_by_one(one: str, other: str) -> bool:
    shorter, longer = sorted((one, other), key=len)
    pairs = enumerate(zip(shorter, longer, strict=False))
    at = next((place for place, pair in pairs if pair[0] != pair[1]), len(shorter))
    if len(shorter) < len(longer):
        return shorter[at:] == longer[at + 1 :]
    rest, other_rest = shorter[at:], longer[at:]
    is_swapped = rest[1::-1] == other_rest[:2] and rest[2:] == other_rest[2:]
    return is_swapped or rest[1:] == other_rest[1:]


def unknown_names(in_file: Mapping[str, str | None], settings: Collection[str]) -> list[str]:
    """Return the names with a value that are no settings, in the order of the file.

    A line without `=`, such as the rest of a password of two lines, is no name.
    """
    return [
        name
        for name, value in in_file.items()
        if value is not None and name not in settings and _NAME.fullmatch(name)
    ]
