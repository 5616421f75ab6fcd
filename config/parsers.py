"""What the text of one setting means: numbers, flags, paths, zones, web addresses.

Each function takes the text and returns the value, or raises ValueError with words that
complete "NAME ...". Knows not which setting it reads.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from datetime import timezone, tzinfo
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import SplitResult, urlsplit
from zoneinfo import ZoneInfo

from config.fields import Field, parse_fields

PROJECT_FOLDER = Path(__file__).resolve().parent.parent
# What `requests` makes a host of without complaint: a name in ASCII (other alphabets as xn--).
_HOST_NAME = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\.?")


def plain_text(text: str) -> str:
    return text


def secret_key(text: str) -> str:
    if not (text.isascii() and text.isprintable()) or " " in text:
        raise ValueError("holds characters that no API key has: copy it again")
    return text


def whole(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise ValueError(f"must be a whole number, not {text!r}") from None
        if not least <= value <= most:
            raise ValueError(f"must be from {least:,} to {most:,}, not {text}")
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
            raise ValueError(f"must be from {least:g} to {most:g}, not {text}")
        return value

    return read


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
        raise ValueError(
            f"names no time zone: {text!r}; use an IANA name like Europe/Berlin"
        ) from None


def any_path(text: str) -> Path:
    """Read a path; a relative one starts at the project folder, as cron starts anywhere."""
    if "\0" in text:
        raise ValueError("is a path that cannot be used: it holds a NUL character")
    try:
        path = PROJECT_FOLDER / Path(text).expanduser()
        path.is_dir()  # asks the system
    except (OSError, RuntimeError) as error:  # too long, not searchable, ~ of no such user
        raise ValueError(f"is a path that cannot be used: {error}") from None
    return path


def path_in_a_folder(text: str) -> Path:
    path = any_path(text)
    if not path.parent.is_dir():
        raise ValueError(f"lies in a folder that does not exist: create {path.parent}")
    if path.is_dir():
        raise ValueError(f"names a folder, not a file: {path}")
    return path


def file_of_our_own(text: str) -> Path:
    """Read the path of what is closed to others, or replaced: not to be done to /dev/null."""
    path = path_in_a_folder(text)
    if path.exists() and not path.is_file():
        raise ValueError(f"names something that is not a file: {path}")
    return path


def folder(text: str) -> Path:
    path = any_path(text)
    if not path.is_dir():
        raise ValueError(f"names a folder that does not exist: create {path}")
    if not os.access(path, os.W_OK | os.X_OK):
        raise ValueError(f"names a folder that cannot be written to: {path}")
    return path


def existing_file(text: str) -> Path:
    path = any_path(text)
    if not path.is_file():
        raise ValueError(f"names no file: {path}")
    return path


def ca_file(text: str) -> str:
    return str(existing_file(text)) if text else ""


def optional_path(text: str) -> Path | None:
    return file_of_our_own(text) if text else None


def field_list(reserved: frozenset[str]) -> Callable[[str], tuple[Field, ...]]:
    return lambda text: parse_fields(text, reserved)


def api_url(text: str) -> str:
    """The key never travels over plain http to another machine."""
    parts = _web_url(text)
    if parts.scheme != "https" and not _is_loopback(parts.hostname or ""):
        raise ValueError("must start with https:// (plain http is for this machine only)")
    if parts.query or parts.fragment or parts.username or parts.password:
        raise ValueError("must be a plain address such as https://api.eu.iterable.com")
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
