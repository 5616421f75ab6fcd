"""`--check`: check everything that a run needs, cheap checks first. Nothing is changed or sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path

from commands.check.database import SLOW_QUERY_SECONDS, check_database
from commands.check.field_types import check_field_types
from commands.check.files import check_files, free_bytes_of
from commands.check.iterable import check_iterable
from commands.check.line import CheckLine, failed, passed, warned
from commands.check.past_runs import check_past_runs
from commands.check.project import check_project
from commands.console import print_line
from commands.prepare import check_packages, register_secrets
from config.settings import Settings, env_file_path, warnings_about
from errors import ConfigError, ExitStatus
from sync.source_rows import MAX_READ_SECONDS


def run_check(environment: Mapping[str, str], env_file: str | None) -> ExitStatus:
    """Print one line for each thing that a run needs; return BAD_SETTINGS if any line failed."""
    path = env_file_path(env_file)
    try:
        settings = Settings.from_environment(environment)
    except ConfigError as error:
        lines = settings_problems(error)
    else:
        register_secrets(settings)
        check_packages(settings)
        lines = check_setup(settings, path if path.exists() else None)
    warnings = (warned("settings", text) for text in warnings_about(environment))
    all_ok = True
    for line in chain(warnings, lines):
        print_line(str(line))
        all_ok = all_ok and line.ok
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
        f"read from {place}: {settings.sync_mode} mode, page views of the last "
        f"{settings.engagement_window_days:g} days, event times in {settings.db_timezone}",
    )
    yield from check_files(settings, env_file, free_bytes=free_bytes)
    checked = yield from check_database(
        settings, slow_query_seconds=slow_query_seconds, max_read_seconds=max_read_seconds
    )
    if checked is not None:
        yield from check_past_runs(settings, checked)
    iterable_types = yield from check_iterable(settings)
    if checked is not None and iterable_types is not None:
        yield from check_project(settings, checked.rows, checked.mapping)
        yield from check_field_types(checked.fields, iterable_types)
    else:
        yield warned(
            "field types",
            "not compared: first solve the problems above",
        )


def settings_problems(error: ConfigError) -> Iterator[CheckLine]:
    """Yield one line for each problem of the settings; no other check is possible then."""
    for problem in error.problems:
        yield failed("settings", problem)
