"""Parsers for the text of a setting: numbers, flags, paths, time zones, web addresses.

Each returns the value, or raises ValueError whose text completes "NAME ...".
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import re
import sys
from collections.abc import Callable
from datetime import timezone, tzinfo
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import SplitResult, urlsplit
from zoneinfo import ZoneInfo, available_timezones

from config.fields import (
    MAX_EVENT_NAME_CHARACTERS,
    RESERVED_USER_FIELDS,
    USER_ID_FIELD,
    AnyField,
    has_control_characters,
    parse_fields,
)

PROJECT_FOLDER = Path(__file__).resolve().parent.parent
# The host names that `requests` accepts: ASCII only (other alphabets are written as xn--...).
_HOST_NAME = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\.?")


def plain_text(text: str) -> str:
    return text


def short_text(text: str) -> str:
    """Return a name of at most 64 characters, which may be empty."""
    if len(text) > 64 or not text.isprintable():
        raise ValueError("must be at most 64 printable characters")
    return text


def api_key(text: str) -> str:
    if not (text.isascii() and text.isprintable()) or " " in text:
        raise ValueError("contains characters that an API key cannot contain: copy it again")
    return text


def whole(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise ValueError(f"must be a whole number, not {text!r}") from None
        if not least <= value <= most:
            raise ValueError(f"must be between {least:,} and {most:,}, not {text}")
        return value

    return read


def number(least: float, most: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if math.isnan(value):
            raise ValueError(f"must be a number, not {text!r}")
        if not least <= value <= most:
            raise ValueError(f"must be between {least:,.10g} and {most:,.10g}, not {text}")
        return value

    return read


def guard_factor(text: str) -> float:
    value = number(0, 1_000_000)(text)
    if 0 < value < 1:
        raise ValueError(f"must be 0 or between 1 and 1,000,000, not {text}")
    return value


def webhook_token(text: str) -> str:
    if text and (len(text) < 16 or not text.isascii() or not text.isprintable() or " " in text):
        raise ValueError(
            "must have at least 16 characters, all ASCII and no blanks: openssl rand -hex 24 makes "
            "a good one"
        )
    return text


def column_name(text: str) -> str:
    """Return the name of a column."""
    if any(character.isspace() for character in text):
        raise ValueError(f"must be the name of one column, not {text!r}")
    return text


def one_of(choices: tuple[str, ...]) -> Callable[[str], str]:
    def read(text: str) -> str:
        for choice in choices:
            if text.lower() == choice.lower():
                return choice
        raise ValueError(f"must be one of {', '.join(choices)}, not {text!r}")

    return read


def flag(text: str) -> bool:
    if text.lower() in ("true", "yes", "on", "1"):
        return True
    if text.lower() in ("false", "no", "off", "0"):
        return False
    raise ValueError(f"must be true or false, not {text!r}")


def time_zone(text: str) -> tzinfo:
    if text.upper() == "UTC":
        return timezone.utc
    try:
        return ZoneInfo(text)
    except (KeyError, ValueError, OSError):
        if not available_timezones():
            raise ValueError(
                f"cannot be looked up: {sys.executable} finds no time zones; run {sys.executable} "
                "-m pip install -r requirements.txt"
            ) from None
        raise ValueError(
            f"is not a time zone: {text!r}; use an IANA name such as Europe/Berlin"
        ) from None


def absolute_path(text: str) -> Path:
    """Resolve a path against the project folder, since cron starts jobs in another folder."""
    if "\0" in text:
        raise ValueError("is not a usable path: it contains a NUL character")
    try:
        path = PROJECT_FOLDER / Path(text).expanduser()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.stat()  # raises OSError if the system does not accept the path
    except (OSError, RuntimeError) as error:  # too long, no permission, ~ of an unknown user
        if getattr(error, "errno", None) == errno.ELOOP:
            raise ValueError(f"is a symbolic link that leads back to itself: {path}") from None
        raise ValueError(f"is not a usable path: {error}") from None
    return path


def file_in_a_folder(text: str) -> Path:
    path = absolute_path(text)
    if not path.parent.is_dir():
        raise ValueError(f"is in a folder that does not exist: create {path.parent}")
    if path.is_dir():
        raise ValueError(f"is a folder, not a file: {path}")
    return path


def log_file_or_none(text: str) -> Path | None:
    """Return the path of the log file, None for `-`: no file."""
    return None if text == "-" else file_in_a_folder(text)


def regular_file(text: str) -> Path:
    """Return the path of a file that a run replaces or whose mode it changes; refuses devices."""
    path = file_in_a_folder(text)
    if path.exists() and not path.is_file():
        raise ValueError(f"is not a regular file: {path}")
    return path


def folder(text: str) -> Path:
    path = absolute_path(text)
    if not path.is_dir():
        raise ValueError(f"is a folder that does not exist: create {path}")
    if not os.access(path, os.W_OK | os.X_OK):
        raise ValueError(f"is a folder without write permission: {path}")
    return path


def existing_file(text: str) -> Path:
    path = absolute_path(text)
    if not path.is_file():
        raise ValueError(f"is not an existing file: {path}")
    return path


def socket_file(text: str) -> str:
    return str(absolute_path(text)) if text else ""


def ca_file(text: str) -> str:
    return str(existing_file(text)) if text else ""


def optional_regular_file(text: str) -> Path | None:
    return regular_file(text) if text else None


def field_list(reserved: frozenset[str]) -> Callable[[str], tuple[AnyField, ...]]:
    return lambda text: parse_fields(text, reserved)


def event_name(text: str) -> str:
    """Return the name of an event in Iterable."""
    if len(text) > MAX_EVENT_NAME_CHARACTERS or has_control_characters(text):
        raise ValueError(
            f"must be at most {MAX_EVENT_NAME_CHARACTERS} characters, none of them a control "
            "character"
        )
    return text


def profile_flag(text: str) -> str:
    """Return the name of a profile field, or an empty text."""
    if "." in text or not text.isprintable():
        raise ValueError(f"must be the name of a profile field, without a dot, not {text!r}")
    if text in RESERVED_USER_FIELDS or text == USER_ID_FIELD:
        raise ValueError(f"cannot be {text!r}: Iterable or this program sets that field")
    return text


def chosen(choices: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    """Parse a list of one or more of the choices; the result has their order."""

    def read(text: str) -> tuple[str, ...]:
        names = [part.strip().lower() for part in text.split(",") if part.strip()]
        if not names or set(names) - set(choices):
            raise ValueError(f"must be {','.join(choices)} or one of them, not {text!r}")
        return tuple(choice for choice in choices if choice in names)

    return read


def api_url(text: str) -> str:
    """Return the base URL; http:// is allowed only to a loopback address."""
    parts = _web_url(text)
    if parts.scheme != "https" and not _is_loopback(parts.hostname or ""):
        raise ValueError("must start with https:// (http:// is allowed only for this machine)")
    if parts.query or parts.fragment or parts.username or parts.password:
        raise ValueError(
            "must have no user name, query or fragment: https://api.eu.iterable.com, for example"
        )
    return text.rstrip("/").removesuffix("/api")


def ping_url(text: str) -> str:
    if text:
        _web_url(text)
    return text.rstrip("/")


def _web_url(text: str) -> SplitResult:
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and parts.port != 0
        usable = usable and _is_host(parts.hostname or "")
        usable = usable and text.isprintable() and " " not in text
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("is not a web address such as https://api.iterable.com")
    return parts


def _is_host(host: str) -> bool:
    try:
        return bool(_HOST_NAME.fullmatch(host) or ip_address(host))
    except ValueError:
        return False


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
