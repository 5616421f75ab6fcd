"""The settings: each one is declared once, as a field of `Settings`.

`.env.example`, `docs/settings.md` and `--help-settings` are made from the declarations. To add a
setting, add a field in its group and run `python -m tools.document_tables`.
"""

from __future__ import annotations

import codecs
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import tzinfo
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from config.fields import (
    DEFAULT_EVENT_FIELDS,
    DEFAULT_EVENT_NAME,
    DEFAULT_PROFILE_FLAG,
    DEFAULT_USER_FIELDS,
    RESERVED_EVENT_FIELDS,
    RESERVED_USER_FIELDS,
    USER_ID_FIELD,
    AnyField,
)
from config.identity import IdentifyBy
from config.misspellings import resembled_setting, unknown_names
from config.parsers import (
    PROJECT_FOLDER,
    api_key,
    api_url,
    ca_file,
    chosen,
    column_name,
    event_name,
    existing_file,
    field_list,
    flag,
    folder,
    guard_factor,
    log_file_or_none,
    number,
    one_of,
    optional_regular_file,
    ping_url,
    plain_text,
    profile_flag,
    regular_file,
    short_text,
    socket_file,
    time_zone,
    webhook_token,
    whole,
)
from config.secret_files import SUFFIX, read_secret
from errors import ConfigError
from logger_config import LEVELS

SYNC_MODES = ("per-user", "bulk")
EMAIL_CHANGES = ("new", "move")
ON_LEAVE = ("keep", "clear")
PROFILES, EVENTS = "profiles", "events"  # the values of SEND
CREATE_NEW_FIELDS = ("project", "true", "false")
# `python-dotenv` takes 20 seconds for a line of 64,000 blanks, 0.4 seconds for one of 8,000.
MAX_ENV_FILE_BYTES, MAX_ENV_LINE_CHARACTERS = 64_000, 8_000
_WRITTEN_FILES = ("STATE_FILE", "LOG_FILE", "METRICS_FILE", "CONFIRMATIONS_FILE")


class Setting(NamedTuple):
    """The declaration of a setting."""

    name: str
    group: str
    default: str | None  # as written in `.env`; None: the setting is required
    parse: Callable[[str], Any]  # raises ValueError whose text completes "NAME ..."
    help: str
    redacted_as: str  # the label that replaces a secret; empty if the value is not secret
    is_verbatim: bool  # spaces at both ends belong to the value
    may_be_empty: bool  # an empty text is a value; otherwise it counts as not set

    @property
    def required(self) -> bool:
        return self.default is None

    def is_empty(self, text: str | None) -> bool:
        return not text or not (self.is_verbatim or text.strip())

    def is_set_in(self, environment: Mapping[str, str]) -> bool:
        """Return whether the environment has a value, which may be empty where that is allowed."""
        text = environment.get(self.name)
        return text is not None and (self.may_be_empty or not self.is_empty(text))

    def read(self, environment: Mapping[str, str]) -> Any:
        """Return the parsed value; raises ConfigError with all problems of this setting."""
        if isinstance(environment, Environment) and self.name in environment.problems:
            raise ConfigError([environment.problems[self.name]])
        text = environment.get(self.name, "")
        text = text if self.is_verbatim else text.strip()
        try:
            return self._parse_text(text, is_set=self.name in environment)
        except ValueError as problem:
            lines = str(problem).splitlines()
            raise ConfigError([f"{self.name} {line}" for line in lines]) from None

    def _parse_text(self, text: str, *, is_set: bool) -> Any:
        if text.startswith("your_") and text.endswith("_here"):
            raise ValueError("still holds the template's placeholder: put your own value there")
        if self.default is None:
            if not is_set or not (text or self.may_be_empty):
                raise ValueError("is missing: set it in .env (see .env.example)")
        elif not is_set or not (text or self.may_be_empty):
            text = self.default
        try:
            text.encode()
        except UnicodeEncodeError:  # Python reads other bytes as lone surrogates
            raise ValueError("holds bytes that are not UTF-8 text") from None
        return self.parse(text)


def setting(
    group: str,
    default: str | None,
    parse: Callable[[str], Any],
    help: str,
    *,
    redacted_as: str = "",
    is_verbatim: bool = False,
    may_be_empty: bool = False,
) -> Any:
    """Declare a field of `Settings`. A secret stays out of `repr`."""
    declaration = {
        "group": group,
        "default": default,
        "parse": parse,
        "help": help,
        "redacted_as": redacted_as,
        "is_verbatim": is_verbatim,
        "may_be_empty": may_be_empty or default == "",
    }
    return field(repr=not redacted_as, metadata=declaration)


required = partial(setting, "Required", None)
database = partial(setting, "Database")
selection = partial(setting, "What is sent")
iterable = partial(setting, "Iterable")
memory = partial(setting, "Memory and guards")
output = partial(setting, "What a run leaves behind")
monitoring = partial(setting, "Monitoring")


@dataclass(frozen=True)
class Settings:
    """The value of every setting, validated; paths are absolute."""

    db_host: str = required(plain_text, "The MySQL or MariaDB server, by name or address.")
    db_user: str = required(
        plain_text, "A database user; SELECT on the tables of the query is enough."
    )
    db_password: str = required(
        plain_text,
        "The password of that user; may be empty.",
        redacted_as="database password",
        is_verbatim=True,
        may_be_empty=True,
    )
    db_name: str = required(plain_text, "The database that has the tables of the query.")
    iterable_api_key: str = required(
        api_key, "A server-side API key of the Iterable project.", redacted_as="api key"
    )

    db_port: int = database("3306", whole(1, 65_535), "TCP port of the server.")
    db_unix_socket: str = database(
        "", socket_file, "A socket file to use instead of host and port."
    )
    db_ssl_ca: str = database(
        "",
        ca_file,
        "A CA file (PEM) to verify the server's certificate with; without it the certificate is "
        "not verified.",
    )
    db_timezone: tzinfo = database(
        "UTC", time_zone, "Time zone of the stored event times, an IANA name such as Europe/Berlin."
    )

    engagement_window_days: float = selection(
        "7",
        number(0, 36_500),
        "Events older than this many days are ignored, where the query uses %(window_start)s.",
    )
    query_file: Path = selection(
        "sql/pro_users_recent_engagement.sql",
        existing_file,
        "The file with the query; whom and what it selects is changed there.",
    )
    send: tuple[str, ...] = selection(
        "profiles,events",
        chosen((PROFILES, EVENTS)),
        "What is sent: profiles,events or one of them. The columns of the other one are not "
        "needed then.",
    )
    event_name: str = selection(
        DEFAULT_EVENT_NAME,
        event_name,
        "The name of the event in Iterable; a column event_name of the query wins row by row.",
    )
    profile_flag: str = selection(
        DEFAULT_PROFILE_FLAG,
        profile_flag,
        "A profile field that is set to true for everybody whom the query returns. Empty: none.",
        may_be_empty=True,
    )
    user_fields: tuple[AnyField, ...] = selection(
        DEFAULT_USER_FIELDS,
        field_list(RESERVED_USER_FIELDS),
        "Profile fields: field=column, or one name for both; column:bool, column:json or "
        "column:utc converts the value; field:=JSON is the same value in every row. Empty: no "
        "fields.",
        may_be_empty=True,
    )
    event_fields: tuple[AnyField, ...] = selection(
        DEFAULT_EVENT_FIELDS,
        field_list(RESERVED_EVENT_FIELDS),
        "Event fields, in the same form. Empty: no fields but the time.",
        may_be_empty=True,
    )
    send_nulls: bool = selection(
        "false",
        flag,
        "true sends a NULL profile field as null, which clears it in Iterable; false leaves "
        "it out.",
    )
    identify_by: IdentifyBy = selection(
        "email",
        lambda text: IdentifyBy(one_of(tuple(each.value for each in IdentifyBy))(text)),
        "What names a user in Iterable: email, or userid for userID-based and hybrid projects, "
        "where the e-mail is a profile field and may be missing.",
    )
    user_id_column: str = selection(
        "id",
        column_name,
        "The column with the user id, which names a row in log and results, and with "
        "IDENTIFY_BY=userid is the userId in Iterable.",
    )
    email_changes: str = selection(
        "new",
        one_of(EMAIL_CHANGES),
        "When a user's e-mail changes: new updates or creates the user with the new address; move "
        "gives the new address to the user in Iterable (only e-mail-based projects).",
    )
    on_leave: str = selection(
        "keep",
        one_of(ON_LEAVE),
        "When the query no longer returns a user: keep leaves the profile as it is; clear sets the "
        "PROFILE_FLAG to false.",
    )

    iterable_api_base_url: str = iterable(
        "https://api.iterable.com",
        api_url,
        "Address of the data centre; EU projects need https://api.eu.iterable.com",
    )
    sync_mode: str = iterable(
        "per-user",
        one_of(SYNC_MODES),
        "per-user makes one call for each profile or event, bulk one for up to BULK_BATCH_SIZE.",
    )
    users_update_rps: float = iterable(
        "500",
        number(0.01, 100_000),
        "Requests per second to users/update, retries included; the default is Iterable's limit.",
    )
    events_track_rps: float = iterable(
        "2000", number(0.01, 100_000), "Requests per second to events/track."
    )
    bulk_update_rps: float = iterable(
        "5", number(0.01, 10_000), "Requests per second to users/bulkUpdate."
    )
    track_bulk_rps: float = iterable(
        "10", number(0.01, 10_000), "Requests per second to events/trackBulk."
    )
    bulk_batch_size: int = iterable(
        "1000",
        whole(1, 10_000),
        "Most rows in one bulk call, which also stays under 4,000,000 bytes.",
    )
    create_new_fields: str = iterable(
        "project",
        one_of(CREATE_NEW_FIELDS),
        "What Iterable does with fields that it does not know: true creates them, false drops them "
        "(the run then ends with status 3), project leaves it to the project's setting.",
    )
    merge_nested_objects: bool = iterable(
        "false",
        flag,
        "true merges the members of an object into those that the profile has; false replaces the "
        "object.",
    )
    max_attempts: int = iterable("5", whole(1, 100), "Attempts before a request counts as failed.")
    event_delay_seconds: float = iterable(
        "0",
        number(0, 86_400),
        "Seconds between a profile update and its event, for journeys that read the profile.",
    )
    outage_patience_seconds: float = iterable(
        "300",
        number(1, 86_400),
        "Seconds that a run waits while Iterable does not answer, before it ends early.",
    )

    state_file: Path = memory(
        "sync_state.sqlite3",
        regular_file,
        "Remembers what was delivered; use one file for each Iterable project and query.",
    )
    rejected_retry_hours: int = memory(
        "24",
        whole(0, 87_600),
        "Hours before content that Iterable has rejected is sent again; 0 sends it in every run.",
    )
    rows_guard_factor: float = memory(
        "3",
        guard_factor,
        "A run sends nothing if its query returns this many times fewer or more rows than the runs "
        "of the last 14 days; 0 turns this off.",
    )
    max_rejected_percent: float = memory(
        "50",
        number(0, 100),
        "When Iterable rejects more than this share of the profiles, or of the events, with one "
        "code, a run sends no more of them; 100 turns this off.",
    )

    verify_sample: int = memory(
        "0",
        whole(0, 10_000),
        "How many users that the run before has delivered a run reads back from Iterable at its "
        "end, to compare them.",
    )

    sync_name: str = output(
        "",
        short_text,
        "A name for this sync, where several run on one machine: in log, summary, results, health "
        "check pings and, as the label sync, in the metrics.",
    )
    results_dir: Path = output(".", folder, "The folder for results files.")
    results_keep: int = output(
        "1000", whole(0, 1_000_000), "How many results files are kept at most; 0 sets no limit."
    )
    results_keep_mb: int = output(
        "1000",
        whole(0, 1_000_000),
        "How many megabytes of results files and reports are kept at most; 0 sets no limit. "
        "The newest file is always kept.",
    )
    report: bool = output("false", flag, "true writes an HTML report beside each results file.")
    log_level: str = output(
        "INFO",
        one_of(LEVELS),
        "Level of the console: DEBUG, INFO, WARNING, ERROR or CRITICAL.",
    )
    log_file: Path | None = output(
        "iterable_integration.log",
        log_file_or_none,
        "The log file; it rotates at 10 MB and keeps five older files. - stands for no file: "
        "standard error gets everything.",
    )
    log_file_level: str = output(
        "DEBUG",
        one_of(LEVELS),
        "Level of the log file; DEBUG has a line for each request, INFO keeps the file small.",
    )
    log_payloads: bool = output(
        "true",
        flag,
        "false leaves request and response bodies and e-mail addresses out of the log.",
    )

    healthcheck_url: str = monitoring(
        "",
        ping_url,
        "Address to ping when a run starts and ends, as healthchecks.io expects it.",
        redacted_as="health check",
    )
    metrics_file: Path | None = monitoring(
        "",
        optional_regular_file,
        "A file for Prometheus metrics, read by node_exporter's textfile collector.",
    )

    webhook_token: str = monitoring(
        "",
        webhook_token,
        "The token that Iterable's webhooks have to send to --listen: 16 characters or more.",
        redacted_as="webhook token",
    )
    confirmations_file: Path = monitoring(
        "confirmations.sqlite3",
        regular_file,
        "Where --listen notes what webhooks have confirmed.",
    )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Parse every setting; raises ConfigError with all problems at once."""
        problems: list[str] = []
        values: dict[str, Any] = {}
        for declared in SETTINGS:
            try:
                values[declared.name.lower()] = declared.read(environment)
            except ConfigError as error:
                problems += error.problems
        problems += _contradictions(values)
        problems += _shared_files(values)
        if problems:
            raise ConfigError(problems)
        return cls(**values)

    @property
    def keeps_members(self) -> bool:
        """Whether the state file has to remember e-mails or user ids."""
        return self.email_changes == "move" or self.on_leave == "clear"

    @property
    def sends_profiles(self) -> bool:
        return PROFILES in self.send

    @property
    def sends_events(self) -> bool:
        return EVENTS in self.send

    @property
    def creates_new_fields(self) -> bool | None:
        """What requests say of fields that the project does not have; None: nothing."""
        return {"true": True, "false": False}.get(self.create_new_fields)

    @property
    def sent_user_fields(self) -> tuple[AnyField, ...]:
        return self.user_fields if self.sends_profiles else ()

    @property
    def sent_event_fields(self) -> tuple[AnyField, ...]:
        return self.event_fields if self.sends_events else ()

    def secrets(self) -> Iterator[tuple[str, str]]:
        """Yield each secret with the label that replaces it."""
        for declared in SETTINGS:
            if declared.redacted_as:
                yield getattr(self, declared.name.lower()), declared.redacted_as


def _contradictions(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield the problems of settings that do not go together, as far as they could be read."""
    targets = [each.target for each in values.get("user_fields", ())]
    if (name := values.get("profile_flag")) in targets:
        yield f"USER_FIELDS cannot contain the field {name!r}, which is the PROFILE_FLAG"
    clears_flags = values.get("on_leave") == "clear"
    moves_users = values.get("email_changes") == "move"
    sends_profiles = PROFILES in values.get("send", (PROFILES,))
    if clears_flags and name == "":
        yield "ON_LEAVE=clear needs a PROFILE_FLAG: it is what is set to false"
    if clears_flags and not sends_profiles:
        yield "ON_LEAVE=clear needs SEND=profiles or profiles,events: events have no flag"
    if moves_users and not sends_profiles:
        yield (
            "EMAIL_CHANGES=move needs SEND=profiles or profiles,events: it moves users whose "
            "profiles were sent"
        )
    if values.get("identify_by") is not IdentifyBy.USER_ID:
        return
    if moves_users:
        yield (
            "EMAIL_CHANGES=move needs IDENTIFY_BY=email: with userid a changed e-mail is an "
            "ordinary change of the profile"
        )
    if USER_ID_FIELD in targets:
        yield (
            f"USER_FIELDS cannot contain the field {USER_ID_FIELD!r} with IDENTIFY_BY=userid, "
            "where it names the user"
        )


def _shared_files(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield a problem for each setting that names the file of another one: both would write it."""
    names: dict[str, str] = {}  # by file, after symbolic links
    for name in _WRITTEN_FILES:
        if (path := values.get(name.lower())) is None:
            continue
        other = names.setdefault(os.path.realpath(path), name)
        if other != name:
            yield f"{name} is the file of {other}, too: choose another file for one of them"


SETTINGS = tuple(Setting(field_.name.upper(), **field_.metadata) for field_ in fields(Settings))
NAMES = tuple(declared.name for declared in SETTINGS)
REQUIRED = tuple(declared.name for declared in SETTINGS if declared.required)
SECRET_FILE_NAMES = tuple(f"{each.name}{SUFFIX}" for each in SETTINGS if each.redacted_as)
DEFAULTS = {
    declared.name: declared.default for declared in SETTINGS if declared.default is not None
}


def read_setting(environment: Mapping[str, str], name: str) -> Any:
    """Return the parsed value of one setting; raises ConfigError with all its problems."""
    return SETTINGS[NAMES.index(name)].read(environment)


class Environment(dict[str, str]):
    """The settings that are set, as texts, and what to warn of."""

    warnings: Sequence[str] = ()
    problems: Mapping[str, str] = {}  # by setting: a misspelt name in `.env`, a bad file
    secret_files: Sequence[Path] = ()  # whose content is the value of a setting
    unknown_names: Sequence[str] = ()  # names in `.env` that are no settings and resemble none


def warnings_about(environment: Mapping[str, str]) -> Sequence[str]:
    """Return what `read_environment` found to warn of."""
    return environment.warnings if isinstance(environment, Environment) else ()


def secret_files_in(environment: Mapping[str, str]) -> Sequence[Path]:
    """Return the files from which `read_environment` has read secrets."""
    return environment.secret_files if isinstance(environment, Environment) else ()


def unknown_names_in(environment: Mapping[str, str]) -> Sequence[str]:
    """Return the names in `.env` that `read_environment` found to be no settings."""
    return environment.unknown_names if isinstance(environment, Environment) else ()


def read_environment(env_file: str | os.PathLike[str] | None = None) -> Environment:
    """Return the settings of the `.env` file and of the environment, which wins.

    Without `env_file`, `.env` in the project folder is read if it exists. An empty environment
    variable does not hide a value in the file: the value holds, with a warning. Raises ConfigError
    if the file is missing or cannot be read.
    """
    path = env_file_path(env_file)
    in_file: dict[str, str | None] = {}
    try:
        in_file = _read_file(path)
    except (FileNotFoundError, IsADirectoryError):
        if env_file is not None:
            raise ConfigError([f"--env-file {path} is not an existing file"]) from None
        if path.is_dir():
            raise ConfigError([f"{path} is a folder, not a file: remove it"]) from None
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise ConfigError([f"{path} cannot be read: {reason}"]) from None
    environment, ignored = Environment(), []
    for declared in SETTINGS:
        name = declared.name
        text, text_in_file = os.environ.get(name), in_file.get(name)
        if text is not None and declared.is_empty(text) and not declared.is_empty(text_in_file):
            ignored.append(name)
            text = text_in_file
        text = text_in_file if text is None else text
        if text is not None:
            environment[name] = text
    _read_secret_files(environment, in_file)
    _compare_names(environment, in_file, path)
    environment.warnings = [
        f"The environment variable {name} is empty, so the value in {path} is used: unset the "
        "variable, or remove the line from the file."
        for name in ignored
    ]
    return environment


def _read_secret_files(environment: Environment, in_file: Mapping[str, str | None]) -> None:
    """Take secrets from the files that `NAME_FILE` names; relative paths start at the project."""
    problems: dict[str, str] = {}
    paths = []
    for secret in SETTINGS:
        name = f"{secret.name}{SUFFIX}"
        text = os.environ.get(name) or in_file.get(name) or ""
        if not secret.redacted_as or not text.strip():
            continue
        path = PROJECT_FOLDER / text.strip()
        if not secret.is_empty(environment.get(secret.name)):
            problems[secret.name] = f"{secret.name} and {name} are both set: leave one of them out"
            continue
        try:
            environment[secret.name] = read_secret(path)
        except ValueError as problem:
            problems[secret.name] = f"{name} {problem}"
        else:
            paths.append(path)
    environment.problems, environment.secret_files = problems, paths


def _compare_names(environment: Environment, in_file: Mapping[str, str | None], path: Path) -> None:
    """Tell names in the file that are misspelt settings from other names that are no settings."""
    not_set = [each.name for each in SETTINGS if not each.is_set_in(environment)]
    misspelt = dict(environment.problems)
    others = []
    for name in unknown_names(in_file, (*NAMES, *SECRET_FILE_NAMES)):
        meant = resembled_setting(name, not_set)
        if meant is None:
            others.append(name)
        else:
            misspelt[meant] = f"{meant} is not set, but {path} has {name}: did you mean {meant}?"
    environment.problems, environment.unknown_names = misspelt, others


def env_file_path(env_file: str | os.PathLike[str] | None) -> Path:
    """Return the whole path of the settings file; `--env-file` starts at the current folder."""
    return PROJECT_FOLDER / ".env" if env_file is None else Path(os.path.abspath(env_file))


def _read_file(path: Path) -> dict[str, str | None]:
    """Parse a `.env` file, which may be a pipe; raises OSError, or ValueError if it is not one."""
    with path.open("rb") as file:
        content = file.read(MAX_ENV_FILE_BYTES + 1)
    from dotenv.parser import parse_stream  # takes 20 ms, which `--help` does not need

    text = io.StringIO(_decode(content), newline=None)
    is_long = any(len(line) > MAX_ENV_LINE_CHARACTERS for line in text)
    if len(content) > MAX_ENV_FILE_BYTES or is_long or b"\0" in content:
        raise ValueError(
            f"it is not a settings file (at most {MAX_ENV_FILE_BYTES:,} bytes of text, "
            f"{MAX_ENV_LINE_CHARACTERS:,} characters a line)"
        )
    text.seek(0)
    bindings = list(parse_stream(text))
    if bad_lines := [binding.original.line for binding in bindings if binding.error]:
        places = ", ".join(map(str, bad_lines[:5])) + (" ..." if len(bad_lines) > 5 else "")
        raise ValueError(f"line {places} is not NAME=value, or has a quote that is not closed")
    return {binding.key: binding.value for binding in bindings if binding.key is not None}


def _decode(content: bytes) -> str:
    """Decode the text of a settings file; raises ValueError that names another encoding."""
    # In UTF-16 every second byte of an ASCII character is zero. Windows' editors and PowerShell
    # put a byte order mark first, but not every program does.
    has_mark = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if has_mark or content[1:40:2].count(0) >= 10 or content[:40:2].count(0) >= 10:
        raise ValueError("it is not UTF-8 text but probably UTF-16: save it as UTF-8")
    # A byte order mark is not part of the first name. A cut in the last character is no error.
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    try:
        return decoder.decode(content, final=len(content) <= MAX_ENV_FILE_BYTES)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(
            f"line {line} is not UTF-8 text but probably Latin-1 or Windows-1252: save the file "
            "as UTF-8"
        ) from None
