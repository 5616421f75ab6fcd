"""`--init`: ask for the settings, write `.env` and a query file, then run `--check`.

1. Refuse what would fail after the questions: no terminal, or a file that exists.
2. Ask for the login to MySQL, and log in at once.
3. Ask for the database, its tables and their columns, with proposals.
4. Ask for Iterable's key and data centre.
5. Write both files, and run `--check` with them.

Only information_schema is read. Until the last question nothing is written.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from commands.check.run import run_check
from commands.console import print_error, print_line
from commands.init.env_file import env_text
from commands.init.new_files import refuse_existing, write_new_files
from commands.init.proposals import (
    email_columns,
    event_name_for,
    event_tables,
    id_columns,
    is_email_column,
    is_event_table,
    is_user_table,
    proposed_id,
    reference_by,
    references_to,
    time_columns,
    user_tables,
)
from commands.init.query_file import query_text
from commands.init.schema import (
    Column,
    Events,
    Table,
    Users,
    names_of,
    read_databases,
    read_tables,
)
from commands.init.selection import Selection
from commands.init.terminal import Option, ask, ask_secret, ask_until_valid, choose
from config.identity import IdentifyBy
from config.parsers import PROJECT_FOLDER
from config.settings import (
    NAMES,
    PROFILES,
    SECRET_FILE_NAMES,
    env_file_path,
    read_environment,
    read_setting,
)
from db_connection import DatabaseConnection, SourceError
from errors import ConfigError, ExitStatus
from logger_config import register_secret
from sync.signals import Interrupted, stop_signals

QUERY_FILE = "sql/first_query.sql"
MAX_LOGINS = 3
EU_ADDRESS = "https://api.eu.iterable.com"
_NO_EVENTS = "none"
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
    refuse_existing([path, query_path])
    with stop_signals() as stop:
        try:
            _print_welcome(f"{path} and {query_path}")
            settings, query = _ask_all()
            stop.ends_at_once = False  # both files are written, or none
        except Interrupted as interrupt:
            print_line("")
            raise Interrupted(interrupt.number, "Nothing was written.") from None
        except SourceError as error:
            raise SourceError(f"{error} Nothing was written.") from error
        write_new_files({query_path: query, path: env_text(settings)})
    print_line("")
    print_line(f"Written: {path} and {query_path}. Only you can read them.")
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


def _ask_all() -> tuple[Mapping[str, str], str]:
    """Return the settings and the text of the query file."""
    login = _log_in()
    selection, database = _ask_for_tables(login)
    settings = {
        **login.settings,
        "DB_NAME": database,
        "QUERY_FILE": QUERY_FILE,
        "USER_FIELDS": ",".join(each.entry for each in selection.user_columns),
        "EVENT_FIELDS": ",".join(each.entry for each in selection.event_columns),
        "PROFILE_FLAG": "",
        **_ask_about_events(selection),
        **_ask_about_iterable(),
    }
    return settings, query_text(selection, settings.get("DB_TIMEZONE", "UTC"))


class _Login(NamedTuple):
    settings: Mapping[str, str]
    databases: Sequence[str]


def _log_in() -> _Login:
    """Ask until a login works, at most three times; each time the last answers are proposed."""
    print_line("")
    print_line("MySQL")
    host, port, user = "127.0.0.1", "3306", ""
    for attempt in range(1, MAX_LOGINS + 1):
        host = _ask_for("DB_HOST", "Host, or the path of a socket", host)
        settings = {"DB_HOST": host}
        if host.startswith("/"):
            settings = {"DB_HOST": "localhost", "DB_UNIX_SOCKET": host}
        else:
            port = _ask_for("DB_PORT", "Port", port)
            settings["DB_PORT"] = port
        user = _ask_for("DB_USER", "User", user)
        settings["DB_USER"] = user
        settings["DB_PASSWORD"] = _ask_for_secret(
            "DB_PASSWORD", "Password", "database password", may_be_empty=True
        )
        try:
            with _connection(settings) as connection:
                databases = read_databases(connection)
        except SourceError as error:
            print_error(f"  {error}")
            if attempt < MAX_LOGINS:
                print_line("  Try again:")
        else:
            return _Login(settings, databases)
    raise ConfigError([f"The login failed {MAX_LOGINS} times. Nothing was written."])


def _connection(settings: Mapping[str, str]) -> DatabaseConnection:
    """Return the connection to a database that every user can read; it is not open yet."""
    return DatabaseConnection(
        settings["DB_HOST"],
        settings["DB_USER"],
        settings["DB_PASSWORD"],
        "information_schema",
        port=int(settings.get("DB_PORT", "3306")),
        unix_socket=settings.get("DB_UNIX_SOCKET"),
    )


def _ask_for_tables(login: _Login) -> tuple[Selection, str]:
    """Ask for the database, then for its tables and columns."""
    user = login.settings["DB_USER"]
    if not login.databases:
        raise ConfigError(
            [
                f"The user {user} can see no database: ask the administrator for GRANT SELECT. "
                "Nothing was written."
            ]
        )
    while True:
        print_line("")
        print_line("Databases")
        options = [Option(name) for name in login.databases]
        default = login.databases[0] if len(login.databases) == 1 else ""
        database = choose("Database", options, default)
        with _connection(login.settings) as connection:
            tables = read_tables(connection, database)
        if tables:
            break
        print_line(
            f"  The user {user} can see no table of {database}: ask the administrator for GRANT "
            "SELECT, or choose another database."
        )
    users = _ask_for_users(tables)
    return Selection(users, _ask_for_events(tables, users)), database


def _ask_for_users(tables: Sequence[Table]) -> Users:
    ranked = user_tables(tables)
    print_line("")
    print_line("Tables, the most likely ones first")
    options = [Option(each.name, _email_note(each)) for each in ranked]
    name = choose("Table of users", options, ranked[0].name if is_user_table(ranked[0]) else "")
    table = next(each for each in tables if each.name == name)
    print_line("")
    print_line(f"Columns of {table.name}", redacts_secrets=False)
    emails = email_columns(table)
    email = choose(
        "Column of the e-mail address",
        _options(emails),
        emails[0].name if emails and is_email_column(emails[0]) else "",
        others=names_of(table.columns),
    )
    print_line("")
    user_id = choose(
        "Column of the user's id",
        _options(id_columns(table, email)),
        proposed_id(table, email),
        others=names_of(table.columns),
    )
    return Users(table, user_id, email)


def _email_note(table: Table) -> str:
    emails = email_columns(table)
    return f"({emails[0].name})" if emails and is_email_column(emails[0]) else ""


def _ask_for_events(tables: Sequence[Table], users: Users) -> Events | None:
    ranked = event_tables(tables, users)
    print_line("")
    print_line("Tables with a time, the most likely ones first")
    default = _NO_EVENTS
    if ranked and is_event_table(ranked[0], users):
        default = ranked[0].name
    name = choose(
        f"Table of events, or {_NO_EVENTS} to send profiles only",
        [Option(each.name) for each in ranked],
        default,
        others=[_NO_EVENTS],
    )
    if name == _NO_EVENTS:
        return None
    table = next(each for each in tables if each.name == name)
    print_line("")
    print_line(f"Columns of {table.name}", redacts_secrets=False)
    references = {each.label: each for each in references_to(users, table)}
    labels = [*references]
    label = choose(
        f"Column that refers to {users.table.name}",
        [Option(each) for each in labels],
        labels[0] if labels else "",
        others=names_of(table.columns),
    )
    reference = references.get(label) or reference_by(table.column(label), users)
    print_line("")
    times = time_columns(table)
    time = choose("Column of the event's time", _options(times), times[0].name)
    return Events(table, reference, time)


def _options(columns: Sequence[Column]) -> list[Option]:
    return [Option(column.name, column.full_type) for column in columns]


def _ask_about_events(selection: Selection) -> dict[str, str]:
    """Ask for what the query cannot say: time zone, window and name of the events."""
    settings = {}
    if selection.has_local_times:
        print_line("")
        print_line("DATETIME columns say no time zone.")
        settings["DB_TIMEZONE"] = _ask_for("DB_TIMEZONE", "Time zone of the stored times", "UTC")
    if selection.events is None:
        return {**settings, "SEND": PROFILES}
    print_line("")
    settings["ENGAGEMENT_WINDOW_DAYS"] = _ask_for(
        "ENGAGEMENT_WINDOW_DAYS", "Ignore events older than how many days", "7"
    )
    settings["EVENT_NAME"] = _ask_for(
        "EVENT_NAME",
        "Name of the event in Iterable",
        event_name_for(selection.events.table.name),
    )
    return settings


def _ask_about_iterable() -> dict[str, str]:
    print_line("")
    print_line("Iterable")
    settings = {
        "ITERABLE_API_KEY": _ask_for_secret(
            "ITERABLE_API_KEY", "Server-side API key", "api key", may_be_empty=False
        ).strip()
    }
    centres = [Option("US", "api.iterable.com"), Option("EU", "api.eu.iterable.com")]
    is_eu = choose("Data centre of the project", centres, "US") == "EU"
    if is_eu:
        settings["ITERABLE_API_BASE_URL"] = EU_ADDRESS
    # The EU data centre has no e-mail-based projects.
    kinds = [
        Option(IdentifyBy.EMAIL.value, "e-mail-based and hybrid projects"),
        Option(IdentifyBy.USER_ID.value, "userID-based and hybrid projects, all of the EU"),
    ]
    identify_by = choose(
        "What identifies a user in the project", kinds, kinds[1 if is_eu else 0].name
    )
    if identify_by != IdentifyBy.EMAIL.value:
        settings["IDENTIFY_BY"] = identify_by
    return settings


def _ask_for(name: str, question: str, default: str) -> str:
    """Ask for the value of a setting until its parser accepts it."""
    return ask_until_valid(
        lambda: ask(question, default), lambda text: read_setting({name: text}, name)
    )


def _ask_for_secret(name: str, question: str, label: str, *, may_be_empty: bool) -> str:
    """Ask without echo for the value of a setting, and redact it from now on."""
    secret = ask_until_valid(
        lambda: ask_secret(question, may_be_empty=may_be_empty),
        lambda text: read_setting({name: text}, name),
    )
    register_secret(secret.strip(), label)
    register_secret(secret, label)
    return secret
