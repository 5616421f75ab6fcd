"""How a report words what it shows: texts from outside, times, shares, settings.

Owns the one gate (`shown`) that every text from outside passes on its way into the page: no
markup, no secret, nothing that XML cannot hold, and not too long. Pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields
from datetime import datetime
from html import escape
from typing import Any

from config.fields import Field
from config.settings import Settings
from reporting.measurements import clock_time

_MOST_CHARACTERS = 2_000  # of one text from outside
_LEAST_SECRET_CHARACTERS = 4

# What XML cannot hold, what turns the direction of the text or cannot be seen, and half characters.
_UNFIT = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff"
    "\ufeff\ufff9-\ufffb\ufffe\uffff\U000e0000-\U000e007f]"
)

Shown = Callable[[object], str]


def shown_without_secrets_of(settings: Settings) -> Shown:
    """Return what makes a text from outside fit to be shown."""
    values = [getattr(settings, field.name) for field in fields(settings) if not field.repr]
    secrets = sorted(
        (value for value in values if len(str(value)) >= _LEAST_SECRET_CHARACTERS), key=len
    )

    def shown(text: object) -> str:
        words = str(text)
        for secret in reversed(secrets):
            words = words.replace(secret, "[secret]")
        if len(words) > _MOST_CHARACTERS:
            words = words[:_MOST_CHARACTERS] + "..."
        return escape(_UNFIT.sub(lambda unfit: f"\\u{ord(unfit.group()):04x}", words))

    return shown


def as_set(value: Any) -> str:
    """Write a setting's value as it would stand in the environment."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        return ",".join(_field_as_set(each) for each in value)
    return "" if value is None else str(value)


def _field_as_set(field: Field) -> str:
    text = field.target if field.target == field.column else f"{field.target}={field.column}"
    return f"{text}:{field.cast}" if field.cast else text


def moment(iso: str) -> str:
    return f"{datetime.fromisoformat(iso):%Y-%m-%d %H:%M:%S} UTC"


def percent_of(share: float) -> str:
    """Word a share; one that is not quite nothing or all does not read as that."""
    percent = 100 * share
    if 0 < percent < 0.1:
        return "&lt; 0.1\u00a0%"
    if 99.9 < percent < 100:
        return "&gt; 99.9\u00a0%"
    return (
        f"{percent:.1f}\u00a0%"
        if 0 < percent < 10 or 99 < percent < 100
        else f"{percent:.0f}\u00a0%"
    )


def length(seconds: float) -> str:
    """Word a length of time: 310 ms, 4.1 s, 2:05 min."""
    if seconds < 0.9995:
        return (
            f"{seconds * 1000:.3g}\u00a0ms" if seconds < 0.0995 else f"{seconds * 1000:.0f}\u00a0ms"
        )
    if seconds < 99.5:
        return f"{seconds:.3g}\u00a0s"
    return f"{clock_time(seconds)}\u00a0{'min' if seconds < 3600 else 'h'}"


def about(seconds: float) -> str:
    """Word a length of time that is known to two digits."""
    return length(float(f"{seconds:.2g}"))
