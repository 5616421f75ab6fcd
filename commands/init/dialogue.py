"""The questions of `--init`: login, tables and columns with proposals, Iterable.

Of the database only information_schema is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from commands.console import print_error, print_line
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
from commands.init.terminal import Option, Terminal
from config.identity import IdentifyBy
from config.settings import PROFILES, read_setting
from db_connection import DatabaseConnection, SourceError
from errors import ConfigError
from logger_config import register_secret

QUERY_FILE = "sql/first_query.sql"
MAX_LOGINS = 3
EU_ADDRESS = "https://api.eu.iterable.com"
_NO_EVENTS = "none"


def ask_all(terminal: Terminal) -> tuple[Mapping[str, str], str]:
    """Return the settings and the text of the query file.

    Raises ConfigError where it cannot go on, SourceError where the tables cannot be read.
    """
    login = _log_in(terminal)
    selection, database = _ask_for_tables(terminal, login)
    settings = {
        **login.settings,
        "DB_NAME": database,
        "QUERY_FILE": QUERY_FILE,
        "USER_FIELDS": ",".join(each.entry for each in selection.user_columns),
        "EVENT_FIELDS": ",".join(each.entry for each in selection.event_columns),
        "PROFILE_FLAG": "",
        **_ask_about_events(terminal, selection),
        **_ask_about_iterable(terminal),
    }
    return settings, query_text(selection, settings.get("DB_TIMEZONE", "UTC"))


class _Login(NamedTuple):
    settings: Mapping[str, str]
    databases: Sequence[str]


def _log_in(terminal: Terminal) -> _Login:
    """Ask until a login works, at most three times; each time the last answers are proposed."""
    print_line("")
    print_line("MySQL")
    host, port, user = "127.0.0.1", "3306", ""
    for attempt in range(1, MAX_LOGINS + 1):
        host = _ask_for(terminal, "DB_HOST", "Host, or the path of a socket", host)
        settings = {"DB_HOST": host}
        if host.startswith("/"):
            settings = {"DB_HOST": "localhost", "DB_UNIX_SOCKET": host}
        else:
            port = _ask_for(terminal, "DB_PORT", "Port", port)
            settings["DB_PORT"] = port
        user = _ask_for(terminal, "DB_USER", "User", user)
        settings["DB_USER"] = user
        settings["DB_PASSWORD"] = _ask_for_secret(
            terminal, "DB_PASSWORD", "Password", "database password", may_be_empty=True
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
    raise ConfigError([f"No login in {MAX_LOGINS} attempts. Nothing was written."])


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


def _ask_for_tables(terminal: Terminal, login: _Login) -> tuple[Selection, str]:
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
        database = terminal.choose("Database", options, default)
        with _connection(login.settings) as connection:
            tables = read_tables(connection, database)
        if tables:
            break
        print_line(
            f"  The user {user} can see no table of {database}: ask the administrator for GRANT "
            "SELECT, or choose another database."
        )
    users = _ask_for_users(terminal, tables)
    return Selection(users, _ask_for_events(terminal, tables, users)), database


def _ask_for_users(terminal: Terminal, tables: Sequence[Table]) -> Users:
    ranked = user_tables(tables)
    print_line("")
    print_line("Tables, the most likely ones first")
    options = [Option(each.name, _email_note(each)) for each in ranked]
    name = terminal.choose(
        "Table of users", options, ranked[0].name if is_user_table(ranked[0]) else ""
    )
    table = next(each for each in tables if each.name == name)
    print_line("")
    print_line(f"Columns of {table.name}", redacts_secrets=False)
    emails = email_columns(table)
    email = terminal.choose(
        "Column of the e-mail address",
        _options(emails),
        emails[0].name if emails and is_email_column(emails[0]) else "",
        others=names_of(table.columns),
    )
    print_line("")
    user_id = terminal.choose(
        "Column of the user's id",
        _options(id_columns(table, email)),
        proposed_id(table, email),
        others=names_of(table.columns),
    )
    return Users(table, user_id, email)


def _email_note(table: Table) -> str:
    emails = email_columns(table)
    return f"({emails[0].name})" if emails and is_email_column(emails[0]) else ""


def _ask_for_events(terminal: Terminal, tables: Sequence[Table], users: Users) -> Events | None:
    ranked = event_tables(tables, users)
    print_line("")
    print_line("Tables with a time, the most likely ones first")
    default = _NO_EVENTS
    if ranked and is_event_table(ranked[0], users):
        default = ranked[0].name
    name = terminal.choose(
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
    label = terminal.choose(
        f"Column that refers to {users.table.name}",
        [Option(each) for each in labels],
        labels[0] if labels else "",
        others=names_of(table.columns),
    )
    reference = references.get(label) or reference_by(table.column(label), users)
    print_line("")
    times = time_columns(table)
    time = terminal.choose("Column of the event's time", _options(times), times[0].name)
    return Events(table, reference, time)


def _options(columns: Sequence[Column]) -> list[Option]:
    return [Option(column.name, column.full_type) for column in columns]


def _ask_about_events(terminal: Terminal, selection: Selection) -> dict[str, str]:
    """Ask for what the query cannot say: time zone, window and name of the events."""
    settings = {}
    if selection.has_local_times:
        print_line("")
        print_line("DATETIME and DATE columns have no time zone.")
        settings["DB_TIMEZONE"] = _ask_for(
            terminal, "DB_TIMEZONE", "Time zone of the stored times", "UTC"
        )
    if selection.events is None:
        return {**settings, "SEND": PROFILES}
    print_line("")
    settings["ENGAGEMENT_WINDOW_DAYS"] = _ask_for(
        terminal, "ENGAGEMENT_WINDOW_DAYS", "Ignore events older than how many days", "7"
    )
    settings["EVENT_NAME"] = _ask_for(
        terminal,
        "EVENT_NAME",
        "Name of the event in Iterable",
        event_name_for(selection.events.table.name),
    )
    return settings


def _ask_about_iterable(terminal: Terminal) -> dict[str, str]:
    print_line("")
    print_line("Iterable")
    settings = {
        "ITERABLE_API_KEY": _ask_for_secret(
            terminal, "ITERABLE_API_KEY", "Server-side API key", "api key", may_be_empty=False
        ).strip()
    }
    centres = [Option("US", "api.iterable.com"), Option("EU", "api.eu.iterable.com")]
    is_eu = terminal.choose("Data centre of the project", centres, "US") == "EU"
    if is_eu:
        settings["ITERABLE_API_BASE_URL"] = EU_ADDRESS
    # The EU data centre has no e-mail-based projects.
    kinds = [
        Option(IdentifyBy.EMAIL.value, "e-mail-based and hybrid projects"),
        Option(IdentifyBy.USER_ID.value, "userID-based and hybrid projects, all of the EU"),
    ]
    identify_by = terminal.choose(
        "What identifies a user in the project", kinds, kinds[1 if is_eu else 0].name
    )
    if identify_by != IdentifyBy.EMAIL.value:
        settings["IDENTIFY_BY"] = identify_by
    return settings


def _ask_for(terminal: Terminal, name: str, question: str, default: str) -> str:
    """Ask for the value of a setting until its parser accepts it."""
    while True:
        answer = terminal.ask(question, default)
        if _is_valid(name, answer):
            return answer


def _ask_for_secret(
    terminal: Terminal, name: str, question: str, label: str, *, may_be_empty: bool
) -> str:
    """Ask without echo for the value of a setting, and redact it from now on."""
    while True:
        secret = terminal.ask_secret(question, may_be_empty=may_be_empty)
        register_secret(secret.strip(), label)
        register_secret(secret, label)
        if _is_valid(name, secret):
            return secret


def _is_valid(name: str, text: str) -> bool:
    """Return whether the parser of a setting accepts a text; if not, print why."""
    try:
        read_setting({name: text}, name)
    except ConfigError as error:
        for problem in error.problems:
            print_line(f"  {problem}")
        return False
    return True
