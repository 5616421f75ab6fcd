"""The environment, read once into one frozen `Settings`, or the list of all that is wrong.

Owns names, defaults and checks of the settings (the README's table and `.env.example` name the
same ones; a test compares). Knows not where a value is used.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import tzinfo
from pathlib import Path
from typing import Any

from config import parsers as read
from config.fields import (
    DEFAULT_EVENT_FIELDS,
    DEFAULT_USER_FIELDS,
    RESERVED_EVENT_FIELDS,
    RESERVED_USER_FIELDS,
    Field,
)
from errors import ConfigError

REQUIRED = ("DB_HOST", "DB_USER", "DB_PASSWORD", "DB_NAME", "ITERABLE_API_KEY")
MAY_BE_EMPTY = ("DB_PASSWORD",)
SYNC_MODES = ("per-user", "bulk")
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

# Name -> default, in the order of the README's table.
DEFAULTS: Mapping[str, str] = {
    "DB_PORT": "3306",
    "DB_UNIX_SOCKET": "",
    "DB_SSL_CA": "",
    "DB_TIMEZONE": "UTC",
    "ENGAGEMENT_WINDOW_DAYS": "7",
    "QUERY_FILE": "sql/pro_users_recent_engagement.sql",
    "USER_FIELDS": DEFAULT_USER_FIELDS,
    "EVENT_FIELDS": DEFAULT_EVENT_FIELDS,
    "ITERABLE_API_BASE_URL": "https://api.iterable.com",
    "SYNC_MODE": "per-user",
    "USERS_UPDATE_RPS": "500",
    "EVENTS_TRACK_RPS": "2000",
    "BULK_UPDATE_RPS": "5",
    "TRACK_BULK_RPS": "10",
    "BULK_BATCH_SIZE": "1000",
    "MAX_ATTEMPTS": "5",
    "STATE_FILE": "sync_state.sqlite3",
    "RESULTS_DIR": ".",
    "LOG_LEVEL": "INFO",
    "LOG_FILE": "iterable_integration.log",
    "LOG_PAYLOADS": "true",
    "SEND_NULLS": "false",
    "EVENT_DELAY_SECONDS": "0",
    "RESULTS_KEEP": "100",
    "REPORT": "false",
    "HEALTHCHECK_URL": "",
    "METRICS_FILE": "",
}
NAMES = (*REQUIRED, *DEFAULTS)
# A line of 64,000 blanks keeps `python-dotenv` busy for 20 seconds, one of 8,000 for 0.4.
MAX_ENV_FILE_BYTES, MAX_ENV_LINE_CHARACTERS = 64_000, 8_000


@dataclass(frozen=True)
class Settings:
    """Every setting, checked, with paths absolute. Secrets stay out of `repr`."""

    db_host: str
    db_user: str
    db_password: str = field(repr=False)
    db_name: str
    iterable_api_key: str = field(repr=False)
    db_port: int
    db_unix_socket: str
    db_ssl_ca: str
    db_timezone: tzinfo
    engagement_window_days: float
    query_file: Path
    user_fields: tuple[Field, ...]
    event_fields: tuple[Field, ...]
    iterable_api_base_url: str
    sync_mode: str
    users_update_rps: float
    events_track_rps: float
    bulk_update_rps: float
    track_bulk_rps: float
    bulk_batch_size: int
    max_attempts: int
    state_file: Path
    results_dir: Path
    log_level: str
    log_file: Path
    log_payloads: bool
    send_nulls: bool
    event_delay_seconds: float
    results_keep: int
    report: bool
    healthcheck_url: str = field(repr=False)  # such an address is a key to itself
    metrics_file: Path | None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Check every setting and return them; raises ConfigError with all problems at once."""
        problems: list[str] = []
        values: dict[str, Any] = {}
        for name in NAMES:
            try:
                values[name.lower()] = read_setting(environment, name)
            except ConfigError as error:
                problems += error.problems
        if problems:
            raise ConfigError(problems)
        return cls(**values)


def read_setting(environment: Mapping[str, str], name: str) -> Any:
    """Return the value of one setting; raises ConfigError with all that is wrong with it."""
    text = environment.get(name, "")
    text = text if name == "DB_PASSWORD" else text.strip()
    try:
        return _checked(name, text, name in environment)
    except ValueError as problem:
        raise ConfigError([f"{name} {line}" for line in str(problem).splitlines()]) from None


def _checked(name: str, text: str, is_set: bool) -> Any:
    """Return the value of one setting, or raise ValueError with what completes "NAME ..."."""
    if text.startswith("your_") and text.endswith("_here"):
        raise ValueError("still holds the template's placeholder: put your own value there")
    if name in REQUIRED:
        if not is_set or (not text and name not in MAY_BE_EMPTY):
            raise ValueError("is missing: set it in .env (see .env.example)")
    elif not text:
        text = DEFAULTS[name]
    try:
        text.encode()
    except UnicodeEncodeError:  # how Python hands on bytes of the environment
        raise ValueError("holds bytes that are not UTF-8 text") from None
    return _READERS.get(name, read.plain_text)(text)


_READERS: Mapping[str, Callable[[str], Any]] = {
    "ITERABLE_API_KEY": read.secret_key,
    "DB_PORT": read.whole(1, 65_535),
    "DB_SSL_CA": read.ca_file,
    "DB_TIMEZONE": read.time_zone,
    "ENGAGEMENT_WINDOW_DAYS": read.number(0, 36_500),
    "QUERY_FILE": read.existing_file,
    "USER_FIELDS": read.field_list(RESERVED_USER_FIELDS),
    "EVENT_FIELDS": read.field_list(RESERVED_EVENT_FIELDS),
    "ITERABLE_API_BASE_URL": read.api_url,
    "SYNC_MODE": read.one_of(SYNC_MODES),
    "USERS_UPDATE_RPS": read.number(0.01, 100_000),
    "EVENTS_TRACK_RPS": read.number(0.01, 100_000),
    "BULK_UPDATE_RPS": read.number(0.01, 10_000),
    "TRACK_BULK_RPS": read.number(0.01, 10_000),
    "BULK_BATCH_SIZE": read.whole(1, 10_000),
    "MAX_ATTEMPTS": read.whole(1, 100),
    "STATE_FILE": read.file_of_our_own,
    "RESULTS_DIR": read.folder,
    "LOG_LEVEL": read.one_of(LOG_LEVELS),
    "LOG_FILE": read.path_in_a_folder,
    "LOG_PAYLOADS": read.flag,
    "SEND_NULLS": read.flag,
    "EVENT_DELAY_SECONDS": read.number(0, 86_400),
    "RESULTS_KEEP": read.whole(0, 1_000_000),
    "REPORT": read.flag,
    "HEALTHCHECK_URL": read.ping_url,
    "METRICS_FILE": read.optional_path,
}


def read_environment(env_file: str | os.PathLike[str] | None = None) -> dict[str, str]:
    """Return the settings that are set: those of the `.env` file, overruled by real ones.

    `env_file` defaults to `.env` beside this file, which may be absent; one that is named must
    exist. Raises ConfigError where it cannot be read.
    """
    path = read.PROJECT_FOLDER / ".env" if env_file is None else Path(env_file)
    try:
        is_file = path.is_file()
        in_file = _read_file(path) if is_file else {}
    except (OSError, ValueError) as problem:
        raise ConfigError([f"{path} cannot be read: {problem}"]) from None
    if env_file is not None and not is_file:
        raise ConfigError([f"--env-file {path} names no file"])
    return {
        name: value
        for name in NAMES
        if (value := os.environ.get(name, in_file.get(name))) is not None
    }


def _read_file(path: Path) -> dict[str, str | None]:
    """Parse a `.env` file; raises OSError, ConfigError, and ValueError where it is none."""
    from dotenv.parser import parse_stream  # 20 ms that `--help` does not need

    with path.open("rb") as file:
        content = file.read(MAX_ENV_FILE_BYTES + 1)
    # Editors of Windows begin a file with a mark (BOM), which is no part of the first name.
    text = io.StringIO(content.decode("utf-8-sig"), newline=None)
    is_long = any(len(line) > MAX_ENV_LINE_CHARACTERS for line in text)
    if len(content) > MAX_ENV_FILE_BYTES or is_long or b"\0" in content:
        raise ValueError(
            f"this is not a file of settings (at most {MAX_ENV_FILE_BYTES:,} bytes of text, "
            f"{MAX_ENV_LINE_CHARACTERS:,} characters a line)"
        )
    text.seek(0)
    bindings = list(parse_stream(text))
    if bad_lines := [binding.original.line for binding in bindings if binding.error]:
        places = ", ".join(map(str, bad_lines[:5])) + (" ..." if len(bad_lines) > 5 else "")
        raise ValueError(f"not NAME=value, or a quote without its end, from line {places} on")
    return {binding.key: binding.value for binding in bindings if binding.key is not None}
