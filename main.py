"""Keep Iterable in step with MySQL: `python main.py`, by hand or by cron.

Owns the flags, the signals, and the one place where an ending becomes an exit status and a
plain line. Imports the rest only when it is needed: `--help` answers at once.
"""

from __future__ import annotations

import signal

if __name__ == "__main__":  # Ctrl-C during the imports that follow is no traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import contextlib
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from commands.console import open_closed_streams, print_line, print_payload, print_text, say
from errors import ConfigError, ExitStatus, SyncError
from logger_config import FILE_ONLY, redact, register_secret

if TYPE_CHECKING:
    from config.settings import Settings
    from sync.run import RunReport
    from sync.signals import StopSignal

__version__ = "1.0.0"

logger = logging.getLogger("main")


def load_environment_variables(env_file: str | None = None) -> dict[str, str]:
    """Return the settings that are set: those of `.env`, overruled by real environment variables.

    Raises `settings.ConfigError` with everything that is wrong with them.
    """
    from config.settings import Settings, read_environment

    environment = read_environment(env_file)
    Settings.from_environment(environment)
    return environment


def run_integration() -> None:
    """Run one sync with the settings of the environment; what is wrong with it is raised."""
    status = _sync(_arguments([]), load_environment_variables())
    logger.debug("run_integration ended with what would be exit status %s", status)


def main() -> None:
    """Do what the command line asks and exit with the status that the README lists."""
    open_closed_streams()
    sys.exit(_run(sys.argv[1:]))


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(
        prog="main.py",
        description="Read the pro users with their latest engagement from MySQL, update each "
        "profile in Iterable and track the page view. Safe to repeat at any time.",
        epilog="Exit status: 0 all delivered or unchanged; 1 stopped early; 2 bad flags or "
        "settings; 3 finished, but some rows failed or were invalid; 70 a bug; "
        "130 / 143 interrupted.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="build and check every payload, send nothing"
    )
    parser.add_argument(
        "--limit", type=_positive, metavar="N", help="the first N rows of the query only"
    )
    parser.add_argument(
        "--mode", choices=("per-user", "bulk"), help="one call a row, or batches (SYNC_MODE)"
    )
    parser.add_argument(
        "--full-refresh", action="store_true", help="send even what has not changed"
    )
    parser.add_argument(
        "--env-file", metavar="PATH", help="read the settings from PATH instead of .env"
    )
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument("--quiet", action="store_true", help="print only errors")
    loudness.add_argument("--verbose", action="store_true", help="print everything")
    parser.add_argument(
        "--json", action="store_true", help="print the results file's head on stdout"
    )
    parser.add_argument("--version", action="version", version=f"mysql-to-iterable {__version__}")
    action = parser.add_mutually_exclusive_group()
    action.add_argument(
        "--check", action="store_true", help="try settings, database, query, key and paths"
    )
    action.add_argument(
        "--demo", action="store_true", help="run on sample data against an embedded sandbox"
    )
    action.add_argument(
        "--help-settings", action="store_true", help="show every setting with its default"
    )
    action.add_argument("--history", action="store_true", help="show the past runs")
    action.add_argument(
        "--verify", type=_positive, metavar="N", help="read N users back and compare"
    )
    action.add_argument("--export", metavar="FILE.csv", help="write the query's rows, send nothing")
    return parser.parse_args(argv)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        say(f"{message} (main.py --help lists the flags)")
        self.exit(ExitStatus.BAD_SETTINGS)


def _positive(text: str) -> int:
    if not text.isdecimal() or not 1 <= len(text) <= 18 or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, 1 or more, not {text!r}")
    return int(text)


def _run(argv: Sequence[str]) -> int:
    """Return the exit status of a command line: the one door for endings."""
    try:
        arguments = _arguments(argv)
    except SystemExit as said:  # argparse has printed its line
        return int(said.code or 0)
    try:
        return _act(arguments)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as error:  # noqa: BLE001 - nothing may leave as a traceback
        return _ending(error)


def _act(arguments: argparse.Namespace) -> int:
    if arguments.demo:
        from commands.actions import demo

        return demo(partial(_sync, arguments))
    if arguments.help_settings:
        from commands.help_settings import help_lines

        for line in help_lines():
            print_line(line)
        return ExitStatus.OK
    from config.settings import read_environment

    environment = read_environment(arguments.env_file)
    if arguments.history:
        from commands.history import history

        return history(environment)
    if arguments.check:
        from commands.actions import check

        return check(environment, arguments.env_file)
    if arguments.verify is not None or arguments.export is not None:
        return _look(arguments, environment)
    return _sync(arguments, environment)


def _look(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Do what reads but sends nothing: `--verify`, `--export`."""
    from commands.actions import export, verify_delivered
    from sync.signals import Interrupted, StopSignal

    settings = _settings(arguments, environment)
    stop = StopSignal()
    with _signals(stop):
        try:
            if arguments.export is not None:
                return export(settings, Path(arguments.export))
            status = verify_delivered(settings, arguments.verify, stop.event)
        except Interrupted:
            status = ExitStatus.OK
    return 128 + stop.number if stop.number else status


def _sync(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Run one sync, watched over, and print its summary; return the exit status."""
    settings = _settings(arguments, environment)
    from reporting.healthcheck import Healthcheck
    from reporting.metrics import write_metrics
    from sync.process_limits import allow_open_files, tune_garbage_collection
    from sync.run import Options, SyncRun
    from sync.signals import Interrupted, StopSignal

    out = sys.stderr if arguments.json else sys.stdout
    options = Options(
        dry_run=arguments.dry_run,
        limit=arguments.limit,
        full_refresh=arguments.full_refresh,
        shows_progress=not arguments.quiet,
    )
    health = Healthcheck("" if arguments.dry_run else settings.healthcheck_url)
    stop = StopSignal()
    allow_open_files()
    tune_garbage_collection()
    with _signals(stop):
        health.started()
        try:
            run = SyncRun(settings, options, stop, show_payload=partial(print_payload, out))
            report = run.execute()
        except Interrupted:
            health.failed("interrupted before anything was sent", is_hurried=True)
            return 128 + (stop.number or signal.SIGINT)
        except Exception as error:
            health.failed(redact(str(error)))
            raise
        if settings.metrics_file is not None:
            write_metrics(settings.metrics_file, report.summary)
    if not arguments.quiet:
        for line in report.lines():
            print_line(line, out)
    if arguments.json:
        print_text(report.summary.to_text())
    status = _status(report, stop, quiet=arguments.quiet)
    described = "\n".join(map(redact, report.lines()))
    if report.summary.status.startswith("completed"):  # it came to its end, bad rows or not
        health.succeeded(described)
    else:
        health.failed(described, is_hurried=stop.number is not None)
    return status


def _status(report: RunReport, stop: StopSignal, *, quiet: bool) -> int:
    """Return a run's exit status, and say on stderr why it is not 0 where that needs saying."""
    if report.error is not None:
        return _ending(report.error)
    if stop.number is not None:
        say(f"Stopped by {stop.name}: run again to carry on.")
        return 128 + stop.number
    if report.summary.status == "completed":
        return ExitStatus.OK
    if quiet:
        say(f"Some rows failed or were invalid: see {report.results_path}")
    return ExitStatus.SOME_FAILED


def _settings(arguments: argparse.Namespace, environment: Mapping[str, str]) -> Settings:
    """Check the settings, and have the log set up as they say."""
    from config.settings import Settings

    settings = Settings.from_environment(environment)
    if arguments.mode:
        settings = replace(settings, sync_mode=arguments.mode)
    _set_up_log(settings, arguments)
    return settings


def _set_up_log(settings: Settings, arguments: argparse.Namespace) -> None:
    from logger_config import log_uncaught_errors, setup_logger

    for secret, label in settings.secrets():
        register_secret(secret, label)
    level = "ERROR" if arguments.quiet else "DEBUG" if arguments.verbose else settings.log_level
    try:
        setup_logger("", settings.log_file, level, redact_emails=not settings.log_payloads)
        log_uncaught_errors()
    except OSError as error:
        raise ConfigError(
            [f"LOG_FILE {settings.log_file} cannot be written: {error.strerror}"]
        ) from error


@contextlib.contextmanager
def _signals(stop: StopSignal) -> Iterator[None]:
    former = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _ending(error: Exception) -> int:
    """Say in a line or two what ended the program, in the log too; return its exit status."""
    log_files = [
        handler.baseFilename
        for handler in logging.getLogger().handlers
        if isinstance(handler, logging.FileHandler)
    ]
    if isinstance(error, SyncError):
        for line in error.lines:
            if log_files:
                logger.error("%s", line, extra=FILE_ONLY)
            say(line)
        return error.exit_status
    if log_files:
        logger.critical("A bug ended the run", exc_info=error, extra=FILE_ONLY)
    where = f"the traceback is in {log_files[0]}" if log_files else "there is no log yet"
    say(f"This is a bug ({type(error).__name__}): {where}. What was delivered is remembered.")
    return ExitStatus.BUG


if __name__ == "__main__":
    main()
