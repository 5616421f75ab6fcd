"""Command line of the MySQL to Iterable sync: parse the flags, run one command, exit.

Each command is imported only when it runs, so that `--help` takes less than 0.1 s.
"""

from __future__ import annotations

import signal

# No traceback for Ctrl-C during the imports below; where it is ignored, it stays ignored.
if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from commands.console import open_closed_streams, print_error
from commands.flags import problem_with_flags
from config.version import VERSION
from errors import ExitStatus, SyncError, explain_import_error, was_printed
from logger_config import FILE_ONLY, log_path

if TYPE_CHECKING:
    from config.settings import Settings

logger = logging.getLogger("main")


def load_environment_variables(env_file: str | None = None) -> dict[str, str]:
    """Return the settings of the `.env` file and of the environment, which wins.

    Raises ConfigError with every problem found in them.
    """
    from config.settings import Settings, read_environment

    environment = read_environment(env_file)
    Settings.from_environment(environment)
    return dict(environment)


def run_integration() -> None:
    """Run one sync with the settings of `.env` and the environment; raises what ended it early."""
    from config.settings import read_environment

    status = _sync(_parse_flags([]), read_environment())
    logger.debug("run_integration ended; as a command its exit status would be %s", status)


def main() -> None:
    """Run the command that the flags ask for, and exit with its status."""
    open_closed_streams()
    sys.exit(exit_status_of(partial(_run_command, sys.argv[1:])))


def exit_status_of(command: Callable[[], int]) -> int:
    """Run a command and return its exit status; every exception ends here, with its message."""
    try:
        try:
            return command()
        except ImportError as error:
            raise explain_import_error(error) from error
    except KeyboardInterrupt as interrupt:  # Interrupted has a number, and maybe a message
        if str(interrupt) and not was_printed(interrupt):
            print_error(str(interrupt))
        return 128 + getattr(interrupt, "number", signal.SIGINT)
    except SyncError as error:
        for line in error.lines:
            if log_path():  # without a file the same line would stand twice on the console
                logger.error("%s", line, extra=FILE_ONLY)
            if not was_printed(error):
                print_error(line)
        return error.exit_status
    except Exception as error:  # noqa: BLE001 - its text and traceback may hold personal data
        return _report_bug(error)


def _report_bug(error: Exception) -> ExitStatus:
    where = "there is no log yet"
    if log_file := log_path():
        where = f"the traceback is in {log_file}"
    elif logging.getLogger().handlers:
        where = "the traceback is above"
    if log_file or (logging.getLogger().handlers and not was_printed(error)):
        logger.critical("A bug ended the run", exc_info=error, extra=FILE_ONLY)
    if not was_printed(error):
        print_error(
            f"This is a bug ({type(error).__name__}): {where}. What was delivered is remembered."
        )
    return ExitStatus.BUG


def _run_command(argv: Sequence[str]) -> int:
    flags = _parse_flags(argv)
    if flags.demo:
        from commands.demo import run_demo

        return run_demo(partial(_sync, flags), flags.project_type)
    if flags.help_settings:
        from commands.help_settings import print_settings

        return print_settings()
    if flags.init:
        from commands.init.run import run_init

        return run_init(flags.env_file)
    from config.settings import read_environment

    environment = read_environment(flags.env_file)
    if flags.history:
        from commands.history import print_history

        for warning in environment.warnings:
            print_error(warning)
        return print_history(environment, as_json=flags.json)
    if flags.check:
        from commands.check.run import run_check

        return run_check(environment, flags.env_file, quiet=flags.quiet, as_json=flags.json)
    if flags.export is not None:
        from commands.export import run_export

        settings = _prepare(flags, environment)
        return run_export(
            settings,
            Path(flags.export),
            limit=flags.limit,
            only=flags.only or (),
            quiet=flags.quiet,
        )
    if flags.failures is not None:
        from commands.failures import run_failures

        settings = _prepare(flags, environment)
        return run_failures(settings, flags.failures)
    if flags.listen is not None:
        from commands.listen.run import run_listen

        return run_listen(_prepare(flags, environment), flags.listen)
    if flags.verify is not None:
        from commands.verify.run import run_verify

        settings = _prepare(flags, environment)
        return run_verify(settings, flags.verify, quiet=flags.quiet, as_json=flags.json)
    return _sync(flags, environment)


def _sync(flags: argparse.Namespace, environment: Mapping[str, str]) -> int:
    try:
        settings = _prepare(flags, environment, quiet_level="CRITICAL")  # see commands/news.py
    except SyncError as error:
        if not flags.dry_run:
            from commands.prepare import ping_failure

            ping_failure(environment, error)
        raise
    from commands.sync import run_sync
    from sync.run import Options

    options = Options(
        dry_run=flags.dry_run,
        limit=flags.limit,
        only=tuple(flags.only or ()),
        full_refresh=flags.full_refresh,
        ignore_guards=flags.ignore_guards,
        shows_progress=not flags.quiet,
    )
    return run_sync(settings, options, quiet=flags.quiet, as_json=flags.json)


def _prepare(
    flags: argparse.Namespace, environment: Mapping[str, str], *, quiet_level: str = "ERROR"
) -> Settings:
    from commands.prepare import prepare

    level = quiet_level if flags.quiet else "DEBUG" if flags.verbose else None
    return prepare(environment, mode=flags.mode, console_level=level)


def _parse_flags(argv: Sequence[str]) -> argparse.Namespace:
    parser = _parser()
    given, unknown = parser.parse_known_args(argv)
    problem = problem_with_flags(given, unknown, parser.flag_names())
    if problem:
        parser.error(problem)
    return given


def _parser() -> _Parser:
    parser = _Parser(
        prog="main.py",
        description="Read the pro users with their latest page view from MySQL, update each "
        "profile in Iterable and track the page view as an event. Safe to run again at any time.",
        epilog="Exit status: 0 success; 1 ended early; 2 wrong flags "
        "or settings; 3 finished, but something failed, was left out or differs in Iterable; 70 a "
        "bug; 129, 130 or 143 stopped by a signal.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="build and check every payload, but send nothing"
    )
    parser.add_argument(
        "--limit", type=_positive, metavar="N", help="use only the first N rows of the query"
    )
    parser.add_argument(
        "--only",
        action="append",
        metavar="X",
        help="send only the row of this user, by id or e-mail, whatever was delivered before; can "
        "be given several times",
    )
    parser.add_argument(
        "--mode", choices=("per-user", "bulk"), help="use this mode instead of SYNC_MODE"
    )
    parser.add_argument(
        "--full-refresh", action="store_true", help="also send what has not changed or was rejected"
    )
    parser.add_argument(
        "--ignore-guards",
        action="store_true",
        help="send although a guard would stop the run: an unusual number of rows, a field of "
        "another type, or a new API key",
    )
    parser.add_argument(
        "--env-file", metavar="PATH", help="read the settings from PATH instead of .env"
    )
    verbosity = parser.add_mutually_exclusive_group()
    verbosity.add_argument("--quiet", action="store_true", help="print only what is new")
    verbosity.add_argument("--verbose", action="store_true", help="also print debug messages")
    parser.add_argument(
        "--json",
        action="store_true",
        help="print the result as JSON on standard output",
    )
    parser.add_argument(
        "--project-type",
        choices=("email", "userid", "hybrid"),
        help="with --demo: how the Iterable project identifies users (default: email)",
    )
    parser.add_argument("--version", action="version", version=f"mysql-to-iterable {VERSION}")
    actions = parser.add_argument_group("instead of a sync")
    action = actions.add_mutually_exclusive_group()
    action.add_argument(
        "--check", action="store_true", help="check settings, files, database, query and API key"
    )
    action.add_argument(
        "--demo",
        action="store_true",
        help="run twice on sample data, with an embedded database and API",
    )
    action.add_argument(
        "--help-settings", action="store_true", help="list every setting with its default"
    )
    action.add_argument(
        "--init", action="store_true", help="ask for the settings, and write .env and a query file"
    )
    action.add_argument("--history", action="store_true", help="list past runs, the newest first")
    action.add_argument(
        "--verify",
        type=_positive,
        metavar="N",
        help="read up to N delivered users back from Iterable and compare them",
    )
    action.add_argument(
        "--listen", metavar="[HOST:]PORT", help="receive Iterable's webhooks, which confirm events"
    )
    action.add_argument(
        "--failures",
        nargs="?",
        const="-",
        metavar="FILE.csv",
        help="write the failing rows of the newest complete run as CSV (default: to the terminal)",
    )
    action.add_argument("--export", metavar="FILE.csv", help="write the query's rows to a CSV file")
    return parser


class _Parser(argparse.ArgumentParser):
    def flag_names(self) -> list[str]:
        """Return the names of all flags, without the short form `-h`."""
        return [name for action in self._actions for name in action.option_strings if name != "-h"]

    def error(self, message: str) -> NoReturn:
        print_error(f"{message} (see main.py --help)")
        self.exit(ExitStatus.BAD_SETTINGS)


def _positive(text: str) -> int:
    if not text.isdecimal() or not 1 <= len(text) <= 18 or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, 1 or more, not {text!r}")
    return int(text)


if __name__ == "__main__":
    main()
