"""Keep Iterable in step with MySQL: `python main.py`, by hand or by cron.

Owns the flags, the signals, and the one place where an ending becomes an exit status and a
plain line. Imports the rest only when it is needed: `--help` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TextIO

if TYPE_CHECKING:
    from settings import Settings
    from sync_run import RunReport, StopSignal

__version__ = "1.0.0"

logger = logging.getLogger("main")

OK, STOPPED_EARLY, BAD_SETTINGS, SOME_FAILED, BUG = 0, 1, 2, 3, 70


def load_environment_variables(env_file: str | None = None) -> dict[str, str]:
    """Return the settings that are set: those of `.env`, overruled by real environment variables.

    Raises `settings.ConfigError` with everything that is wrong with them.
    """
    from settings import Settings, read_environment

    environment = read_environment(env_file)
    Settings.from_environment(environment)
    return environment


def run_integration() -> None:
    """Run one sync with the settings of the environment; what is wrong with it is raised."""
    _sync(_arguments([]), load_environment_variables())


def main() -> None:
    """Do what the command line asks and exit with the status that the README lists."""
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
        "--demo", action="store_true", help="run on sample data against an embedded sandbox"
    )
    action.add_argument("--history", action="store_true", help="show the past runs")
    return parser.parse_args(argv)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(BAD_SETTINGS, f"{message} (main.py --help lists the flags)\n")


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
        return _demo(arguments)
    from settings import read_environment

    environment = read_environment(arguments.env_file)
    if arguments.history:
        return _history(environment)
    return _sync(arguments, environment)


def _sync(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Run one sync and print its summary; return the exit status."""
    from settings import Settings

    settings = Settings.from_environment(environment)
    if arguments.mode:
        settings = replace(settings, sync_mode=arguments.mode)
    _set_up_log(settings, arguments)
    import orjson

    from sync_run import Interrupted, Options, StopSignal, SyncRun

    stop = StopSignal()
    with _signals(stop):
        options = Options(arguments.dry_run, arguments.limit, arguments.full_refresh)
        show_payload = partial(_show_payload, sys.stderr if arguments.json else sys.stdout)
        try:
            report = SyncRun(settings, options, stop, show_payload=show_payload).execute()
        except Interrupted:
            return 128 + (stop.number or signal.SIGINT)
    if not arguments.quiet:
        _print_summary(report, sys.stderr if arguments.json else sys.stdout)
    if arguments.json:
        _print(orjson.dumps(report.summary.to_json(), option=orjson.OPT_INDENT_2).decode())
    if report.error is not None:
        return _ending(report.error)
    if stop.number is not None:
        _say(f"Stopped by {stop.name}: run again to carry on.")
        return 128 + stop.number
    if report.summary.status == "completed":
        return OK
    if arguments.quiet:
        _say(f"Some rows failed or were invalid: see {report.results_path}")
    return SOME_FAILED


def _set_up_log(settings: Settings, arguments: argparse.Namespace) -> None:
    from logger_config import hide_secret, setup_logger
    from settings import ConfigError

    hide_secret(settings.iterable_api_key, "api key")
    hide_secret(settings.db_password, "database password")
    level = "ERROR" if arguments.quiet else "DEBUG" if arguments.verbose else settings.log_level
    try:
        setup_logger("", settings.log_file, level)
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


def _print_summary(report: RunReport, out: TextIO) -> None:
    from results import summary_lines

    files = [path for path in (report.results_path,) if path is not None]
    for line in summary_lines(report.summary, report.failures, files, _what_next(report)):
        _print(line, out)


def _what_next(report: RunReport) -> str:
    summary = report.summary
    if summary.dry_run:
        return "Nothing was sent. Without --dry-run the run is real."
    if summary.partial_failures or summary.total_failures or summary.not_attempted:
        return "What is missing is tried again by the next run."
    return ""


def _show_payload(out: TextIO, endpoint: str, body: bytes) -> None:
    from logger_config import printable

    _print(f"{endpoint} {printable(body.decode())}", out)


def _history(environment: Mapping[str, str]) -> int:
    """Print the past runs of the state file, the newest first."""
    from outbox import Outbox
    from run_history import history_lines
    from setting_values import any_path
    from settings import DEFAULTS

    name = environment.get("STATE_FILE") or DEFAULTS["STATE_FILE"]
    outbox = Outbox(any_path(name), read_only=True)
    with contextlib.closing(outbox):
        runs = outbox.history.runs()
    for line in history_lines(runs):
        _print(line)
    return OK


def _demo(arguments: argparse.Namespace) -> int:
    """Run the real pipeline twice against the sandbox: the second run sends only what failed."""
    try:
        from sandbox.demo import neighbours
    except ImportError as error:
        from settings import ConfigError

        raise ConfigError(
            [f"--demo needs {error.name}: pip install -r requirements-dev.txt"]
        ) from error

    folder = Path(tempfile.mkdtemp(prefix="mysql-to-iterable-demo-"))
    with neighbours() as leading_there:
        environment = {
            **leading_there,
            "STATE_FILE": str(folder / "sync_state.sqlite3"),
            "RESULTS_DIR": str(folder),
            "LOG_FILE": str(folder / "iterable_integration.log"),
        }
        _print(
            "A MySQL server with sample data and an Iterable that answers like the real one now\n"
            "run on this machine, for the length of this demo; the program is the real one.\n\n"
            "FIRST RUN: everything is new, some rows are bad, one call fails once\n"
        )
        _sync(arguments, environment)
        _print("\nSECOND RUN: nothing is sent twice; what failed is tried again\n")
        _sync(arguments, environment)
    _print(f"\nLog and results of this demo: {folder}")
    return OK


def _ending(error: Exception) -> int:
    """Say in a line or two what ended the program, in the log too; return its exit status."""
    from logger_config import FILE_ONLY
    from settings import ConfigError

    log_files = [
        handler.baseFilename
        for handler in logging.getLogger().handlers
        if isinstance(handler, logging.FileHandler)
    ]
    if isinstance(error, ConfigError) or _is_expected(error):
        for line in str(error).splitlines():
            if log_files:
                logger.error("%s", line, extra=FILE_ONLY)
            _say(line)
        return BAD_SETTINGS if isinstance(error, ConfigError) else STOPPED_EARLY
    if log_files:
        logger.critical("A bug ended the run", exc_info=error, extra=FILE_ONLY)
    where = f"the traceback is in {log_files[0]}" if log_files else "there is no log yet"
    _say(f"This is a bug ({type(error).__name__}): {where}. What was delivered is remembered.")
    return BUG


def _is_expected(error: Exception) -> bool:
    from db_connection import SourceError
    from delivery import RunAborted
    from results import ResultsError
    from state_file import StateError

    return isinstance(error, (SourceError, RunAborted, StateError, ResultsError))


def _print(line: str, out: TextIO | None = None) -> None:
    """Print a line; a reader that has left (`| head`) ends the printing, not the program."""
    out = out or sys.stdout
    try:
        out.write(f"{line}\n")
        out.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())


def _say(line: str) -> None:
    from logger_config import without_secrets

    sys.stderr.write(f"{without_secrets(line)}\n")


if __name__ == "__main__":
    main()
