"""`--init`: ask for the settings, write `.env` and a query file, then run `--check`.

1. Refuse what would fail after the questions: no terminal, or a file that exists.
2. Ask; until the last question nothing is written.
3. Write both files, and run `--check` with them.
"""

from __future__ import annotations

import os
import shlex
import sys

from commands.check.run import run_check
from commands.console import print_line
from commands.init.dialogue import QUERY_FILE, ask_all
from commands.init.env_file import env_text
from commands.init.new_files import refuse_existing, write_new_files
from commands.init.terminal import Terminal
from config.parsers import PROJECT_FOLDER
from config.settings import NAMES, SECRET_FILE_NAMES, env_file_path, read_environment
from db_connection import SourceError
from errors import ConfigError, ExitStatus
from sync.signals import Interrupted, stop_signals

_NO_TERMINAL = [
    "--init asks questions, so it needs a terminal. It would ask for: host, port, user, password "
    "and database of MySQL; the tables of users and events, and their columns for id, e-mail and "
    "time; API key and data centre of Iterable (US or EU).",
    "Nothing was written. Without a terminal, copy .env.example to .env and edit it.",
]


def run_init(env_file: str | None) -> ExitStatus:
    """Ask, write and check; return the status of the check.

    Raises ConfigError where it cannot ask or write, SourceError where the tables cannot be read,
    and Interrupted.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError(_NO_TERMINAL)
    path, query_path = env_file_path(env_file), PROJECT_FOLDER / QUERY_FILE
    if path == query_path:
        raise ConfigError([f"--env-file cannot be {query_path}: the query is written there."])
    refuse_existing([path, query_path])
    with stop_signals() as stop:
        try:
            _print_welcome(f"{path} and {query_path}")
            settings, query = ask_all(Terminal())
            stop.ends_at_once = False  # both files are written, or none
        except Interrupted as interrupt:
            print_line("")
            raise Interrupted(interrupt.number, "Nothing was written.") from None
        except SourceError as error:
            raise SourceError(f"{error} Nothing was written.") from error
        write_new_files({query_path: query, path: env_text(settings)})
    print_line("")
    print_line(f"Written: {path} and {query_path}. Only you can read them.", redacts_secrets=False)
    if stop.number is not None:
        raise Interrupted(stop.number)
    print_line("")
    status = run_check(read_environment(env_file), env_file)
    _print_next_step(env_file, status)
    return status


def _print_welcome(files: str) -> None:
    print_line(f"This writes {files}.")
    print_line("Press Enter to take the value in brackets. Nothing is written before the last")
    print_line("question; Ctrl-C stops.")
    in_environment = [name for name in (*NAMES, *SECRET_FILE_NAMES) if os.environ.get(name)]
    if in_environment:
        print_line(
            f"These environment variables are set, and win over the file: "
            f"{', '.join(in_environment)}."
        )


def _print_next_step(env_file: str | None, status: ExitStatus) -> None:
    option = "" if env_file is None else f" --env-file {shlex.quote(env_file)}"
    print_line("")
    if status is ExitStatus.OK:
        print_line("Next, look at what would be sent; this sends nothing:")
        print_line(f"    python main.py{option} --dry-run --limit 5")
    else:
        print_line("Correct what the lines with FAILED say, then check again:")
        print_line(f"    python main.py{option} --check")
