"""Preparation shared by the commands: settings, log, limits of the process."""

from __future__ import annotations

import contextlib
import gc
import logging
import resource
import sys
from collections.abc import Mapping
from dataclasses import replace

from config.settings import Settings, read_setting, warnings_about
from errors import ConfigError, SyncError, require_packages
from logger_config import log_uncaught_errors, redact, register_secret, setup_logger
from reporting.healthcheck import Healthcheck
from reporting.news import collect_warnings

logger = logging.getLogger(__name__)

_OPEN_FILES = 4_096
_COLLECTION_THRESHOLDS = (50_000, 20, 100)


def prepare(
    environment: Mapping[str, str], *, mode: str | None = None, console_level: str | None = None
) -> Settings:
    """Parse the settings, and set up logging and redaction as they say.

    `mode` and `console_level` take precedence over SYNC_MODE and LOG_LEVEL. Raises
    ConfigError, and InstallationError for a package that the run would need later.
    """
    settings = Settings.from_environment(environment)
    check_packages(settings)
    if mode is not None:
        settings = replace(settings, sync_mode=mode)
    register_secrets(settings)
    try:
        setup_logger(
            "",
            settings.log_file,
            console_level or settings.log_level,
            file_level=settings.log_file_level,
            redact_emails=not settings.log_payloads,
        )
    except OSError as error:
        raise ConfigError(
            [f"LOG_FILE {settings.log_file} cannot be written: {error.strerror}"]
        ) from error
    collect_warnings(redact_emails=not settings.log_payloads)
    log_uncaught_errors()
    for warning in warnings_about(environment):
        logger.warning("%s", warning)
    return settings


def ping_failure(environment: Mapping[str, str], error: SyncError) -> None:
    """Report to the health check, if its own settings are usable, that a run could not start."""
    try:
        url = read_setting(environment, "HEALTHCHECK_URL")
        sync = read_setting(environment, "SYNC_NAME")
    except ConfigError:
        return
    Healthcheck(url, sync=sync).failed(redact(str(error)))


def check_packages(settings: Settings) -> None:
    """Raise InstallationError if a package is missing that is first imported during a run."""
    modules = ["email_validator"]
    if settings.report:
        modules.append("jinja2")
    if sys.stdout.isatty() or sys.stderr.isatty():
        modules.append("rich")
    require_packages(modules)


def register_secrets(settings: Settings) -> None:
    """Redact the secrets of the settings in everything that is printed or logged."""
    for secret, label in settings.secrets():
        register_secret(secret, label)


def allow_open_files() -> None:
    """Raise the usual limit of 1,024 open files: each request in flight needs a connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < _OPEN_FILES:
        with contextlib.suppress(ValueError, OSError):
            limit = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def tune_garbage_collection() -> None:
    """Exclude the loaded modules from garbage collection, and collect less often.

    Rows hold no reference cycles: over a million rows the collector took more than a second and
    freed nothing. Freezes once per process, as a second freeze would keep a previous run's garbage.
    """
    if not gc.get_freeze_count():
        gc.freeze()
    gc.set_threshold(*_COLLECTION_THRESHOLDS)
