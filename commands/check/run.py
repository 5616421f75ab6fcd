"""`--check`: check everything that a run needs, cheap checks first. Nothing is changed or sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

from commands.check.database import SLOW_QUERY_SECONDS, check_database
from commands.check.field_types import check_field_types
from commands.check.files import check_files, free_bytes_of, secret_file_lines
from commands.check.iterable import check_iterable
from commands.check.line import CheckLine, failed, passed, warned
from commands.check.past_runs import check_past_runs
from commands.check.project import check_project
from commands.check.project_type import check_project_type
from commands.colour import CHECK_COLOURS
from commands.console import print_as_json, print_line
from commands.prepare import check_packages, register_secrets
from config.fields import DEFAULT_EVENT_NAME
from config.settings import (
    Settings,
    env_file_path,
    secret_files_in,
    unknown_names_in,
    warnings_about,
)
from errors import ConfigError, ExitStatus
from sync.announcement import BARE_USERS, creates_bare_users
from sync.source_rows import MAX_READ_SECONDS

_LISTED_NAMES = 10


def run_check(
    environment: Mapping[str, str],
    env_file: str | None,
    *,
    quiet: bool = False,
    as_json: bool = False,
) -> ExitStatus:
    """Print one line for each thing that a run needs; return BAD_SETTINGS if any line failed.

    `quiet` leaves out the lines that are ok. `as_json` prints all lines at the end, as JSON.
    """
    path = env_file_path(env_file)
    try:
        settings = Settings.from_environment(environment)
    except ConfigError as error:
        lines = settings_problems(error)
    else:
        register_secrets(settings)
        check_packages(settings)
        lines = chain(
            secret_file_lines(secret_files_in(environment)),
            check_setup(settings, path if path.exists() else None),
        )
    warnings = [warned("settings", text) for text in warnings_about(environment)]
    if names := unknown_names_in(environment):
        warnings.append(_unknown_names_line(names, path))
    all_ok, done = True, []
    for line in chain(warnings, lines):
        all_ok = all_ok and line.ok
        if as_json:
            done.append(line.to_json())
        elif not quiet or line.is_warning or not line.ok:
            print_line(str(line), colours=CHECK_COLOURS)
    if as_json:
        print_as_json({"ok": all_ok, "checks": done})
    return ExitStatus.OK if all_ok else ExitStatus.BAD_SETTINGS


def check_setup(
    settings: Settings,
    env_file: Path | None,
    *,
    free_bytes: Callable[[Path], int] = free_bytes_of,
    slow_query_seconds: float = SLOW_QUERY_SECONDS,
    max_read_seconds: float = MAX_READ_SECONDS,
) -> Iterator[CheckLine]:
    """Yield the line of each check as soon as it is done; a run works if all are `ok`.

    `env_file` is None where the settings came from the environment alone.
    """
    place = "the environment" if env_file is None else f"{env_file} and the environment"
    yield passed(
        "settings",
        f"read from {place}: {settings.sync_mode} mode, {_job_text(settings)}, event times in "
        f"{settings.db_timezone}",
    )
    if creates_bare_users(settings):
        yield warned("settings", BARE_USERS)
    yield from check_files(settings, env_file, free_bytes=free_bytes)
    checked = yield from check_database(
        settings, slow_query_seconds=slow_query_seconds, max_read_seconds=max_read_seconds
    )
    if checked is not None:
        yield from check_past_runs(settings, checked)
    iterable_types = yield from check_iterable(settings)
    if iterable_types is not None:
        yield from check_project_type(settings)
    if checked is not None and iterable_types is not None:
        yield from check_project(settings, checked.rows, checked.mapping)
        if settings.sends_profiles:
            yield from check_field_types(checked.fields, iterable_types, settings)
    elif settings.sends_profiles:
        yield warned(
            "field types",
            "not compared: first solve the problems above",
        )


def _job_text(settings: Settings) -> str:
    """Return what is sent, and of which time."""
    if not settings.sends_events:
        return "profiles without events"
    name = settings.event_name
    events = "page views" if name == DEFAULT_EVENT_NAME else f"events {name}"
    alone = "" if settings.sends_profiles else " without profiles"
    return f"{events}{alone} of the last {settings.engagement_window_days:g} days"


def _unknown_names_line(names: Sequence[str], path: Path) -> CheckLine:
    listed = ", ".join(names[:_LISTED_NAMES]) + (", ..." if len(names) > _LISTED_NAMES else "")
    return warned(
        "settings",
        f"{path} has names that are no settings and are ignored: {listed}. --help-settings lists "
        "all settings.",
    )


def settings_problems(error: ConfigError) -> Iterator[CheckLine]:
    """Yield one line for each problem of the settings; no other check is possible then."""
    for problem in error.problems:
        yield failed("settings", problem)
