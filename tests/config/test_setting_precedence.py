"""Paths and web addresses in settings; the `.env` file and the environment."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from config.settings import NAMES, Settings, read_environment, warnings_about
from errors import ConfigError
from tests.config.test_settings import REQUIRED_ONES, ROOT, problem_with, settings_with

# Paths

FILES = ("STATE_FILE", "LOG_FILE", "METRICS_FILE")


@pytest.mark.parametrize("name", FILES)
def test_a_relative_path_starts_at_the_project_folder_wherever_the_program_is_started(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert getattr(settings_with(**{name: "sql/file"}), name.lower()) == ROOT / "sql" / "file"
    assert settings_with(RESULTS_DIR="sql").results_dir == ROOT / "sql"
    assert settings_with(QUERY_FILE="sql/schema.sql").query_file == ROOT / "sql" / "schema.sql"
    assert settings_with(DB_SSL_CA="main.py").db_ssl_ca == str(ROOT / "main.py")
    assert settings_with(DB_UNIX_SOCKET="s.sock").db_unix_socket == str(ROOT / "s.sock")


@pytest.mark.parametrize("name", FILES)
def test_an_absolute_path_and_a_home_folder_are_accepted(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert getattr(settings_with(**{name: f"{tmp_path}/a"}), name.lower()) == tmp_path / "a"
    assert getattr(settings_with(**{name: "~/a"}), name.lower()) == tmp_path / "a"
    assert settings_with(DB_UNIX_SOCKET="~/a").db_unix_socket == str(tmp_path / "a")


@pytest.mark.parametrize("name", FILES)
def test_the_folder_of_a_file_must_exist(name: str, tmp_path: Path) -> None:
    assert problem_with(**{name: f"{tmp_path}/none/a"}) == (
        f"{name} is in a folder that does not exist: create {tmp_path}/none"
    )
    assert problem_with(**{name: str(tmp_path)}) == (f"{name} is a folder, not a file: {tmp_path}")


def test_the_results_folder_must_exist(tmp_path: Path) -> None:
    assert problem_with(RESULTS_DIR=f"{tmp_path}/none") == (
        f"RESULTS_DIR is a folder that does not exist: create {tmp_path}/none"
    )


@pytest.mark.parametrize("name", ["QUERY_FILE", "DB_SSL_CA"])
def test_a_file_that_is_read_must_exist(name: str, tmp_path: Path) -> None:
    assert (
        problem_with(**{name: f"{tmp_path}/a"}) == f"{name} is not an existing file: {tmp_path}/a"
    )
    assert problem_with(**{name: str(tmp_path)}) == f"{name} is not an existing file: {tmp_path}"


@pytest.mark.parametrize("name", [*FILES, "RESULTS_DIR", "QUERY_FILE", "DB_SSL_CA"])
@pytest.mark.parametrize("text", ["~nobody-of-that-name/x", "x" * 300, "a\0b"])
def test_a_path_that_the_system_does_not_accept_is_reported(name: str, text: str) -> None:
    assert problem_with(**{name: text}).startswith(f"{name} is not a usable path: ")


@pytest.mark.parametrize("name", [*FILES, "RESULTS_DIR", "QUERY_FILE", "DB_UNIX_SOCKET"])
def test_a_link_that_leads_to_itself_is_named_in_words(name: str, tmp_path: Path) -> None:
    path = tmp_path / "link"
    path.symlink_to(path)
    expected = f"{name} is a symbolic link that leads back to itself: {path}"
    assert problem_with(**{name: str(path)}) == expected


@pytest.mark.parametrize("name", ["STATE_FILE", "METRICS_FILE"])
def test_a_device_is_refused_as_state_or_metrics_file(name: str, tmp_path: Path) -> None:
    """As root, a run changed the mode of /dev/null, or replaced it with a file."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/null")):
        assert problem_with(**{name: str(path)}) == (f"{name} is not a regular file: {path}")
    assert settings_with(LOG_FILE="/dev/null").log_file == Path("/dev/null")


# Web addresses


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://api.eu.iterable.com", "https://api.eu.iterable.com"),
        ("https://api.iterable.com/", "https://api.iterable.com"),
        ("https://api.iterable.com/api/", "https://api.iterable.com"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://127.8.9.10", "http://127.8.9.10"),
        ("http://localhost:1", "http://localhost:1"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_the_api_url_is_https_or_on_this_machine(text: str, url: str) -> None:
    assert settings_with(ITERABLE_API_BASE_URL=text).iterable_api_base_url == url


@pytest.mark.parametrize(
    "text",
    [
        "http://api.iterable.com",
        "http://10.0.0.1",
        "http://0.0.0.0",
        "http://localhost.example.com",
        "http://127.0.0.1.example.com",
        "http://[::2]",
        "http://127.0.0.1@api.example.com",
        "HTTP://api.iterable.com",
    ],
)
def test_plain_http_to_another_machine_is_refused(text: str) -> None:
    assert problem_with(ITERABLE_API_BASE_URL=text) == (
        "ITERABLE_API_BASE_URL must start with https:// (http:// is allowed only for this machine)"
    )


@pytest.mark.parametrize(
    "text",
    [
        *("api.iterable.com", "ftp://api.iterable.com", "https://", "https:///api", "//x", "file:///"),
        *("https://api.iterable.com:99999", "https://[::1", "https://api.iterable.com:x"),
        *("https://*.example.com", "https://.a.com", "https://a..b", "https://a%62.com"),
        *("https://\u2603.com", "https://a|b.com", f"https://{'a' * 64}.com", "https://[::1%]x"),
        *("https://api iterable.com", "https://api.iter\table.com", "https://api.\x1biterable.com"),
    ],
)  # fmt: skip
def test_what_is_not_a_web_address_is_refused(text: str) -> None:
    expected = "is not a web address such as https://api.iterable.com"
    assert problem_with(ITERABLE_API_BASE_URL=text) == f"ITERABLE_API_BASE_URL {expected}"
    assert problem_with(HEALTHCHECK_URL=text) == f"HEALTHCHECK_URL {expected}"


@pytest.mark.parametrize(
    "text", ["https://user:pw@api.iterable.com", "https://api.iterable.com?a=b", "https://a.b#c"]
)
def test_the_api_url_has_no_user_query_or_fragment(text: str) -> None:
    assert problem_with(ITERABLE_API_BASE_URL=text) == (
        "ITERABLE_API_BASE_URL must have no user name, query or fragment: "
        "https://api.eu.iterable.com, for example"
    )


# The .env file and the real environment

EnvFile = Callable[[str | bytes], Path]


@pytest.fixture
def env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EnvFile:
    """Return a function that writes a `.env` file; the environment has no settings."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)

    def write(content: str | bytes) -> Path:
        path = tmp_path / "test.env"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_quotes_comments_and_export_in_an_env_file_are_understood(env_file: EnvFile) -> None:
    path = env_file(
        "# a comment\n"
        "DB_HOST=db.example.com  # the server\n"
        "export DB_USER='reader'\n"
        'DB_PASSWORD=" two  words "\n'
        "DB_NAME=\n"
        "ITERABLE_API_KEY\n"
        "SOMETHING_ELSE=1\n"
    )
    assert read_environment(path) == {
        "DB_HOST": "db.example.com",
        "DB_USER": "reader",
        "DB_PASSWORD": " two  words ",
        "DB_NAME": "",
    }


@pytest.mark.parametrize("password", ["pa$$word", "${HOME}", "$(id)", "a#b", "100%", "`id`"])
def test_a_password_is_never_interpolated(env_file: EnvFile, password: str) -> None:
    assert read_environment(env_file(f"DB_PASSWORD={password}\n")) == {"DB_PASSWORD": password}


def test_the_environment_wins_over_the_file(
    env_file: EnvFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = env_file("DB_HOST=from-the-file\nDB_USER=from-the-file\nDB_PASSWORD=from-the-file\n")
    monkeypatch.setenv("DB_HOST", "from-the-environment")
    monkeypatch.setenv("DB_PASSWORD", " ")
    environment = read_environment(path)
    assert environment == {
        "DB_HOST": "from-the-environment",
        "DB_USER": "from-the-file",
        "DB_PASSWORD": " ",
    }
    assert environment.warnings == []


@pytest.mark.parametrize(
    ("name", "empty"), [*((name, "") for name in NAMES), ("DB_NAME", " "), ("EVENT_FIELDS", " ")]
)
def test_an_empty_environment_variable_hid_the_value_in_the_file(
    env_file: EnvFile, monkeypatch: pytest.MonkeyPatch, name: str, empty: str
) -> None:
    """The US address was used though `.env` had the EU address."""
    path = env_file(f"{name}=from-the-file\n")
    monkeypatch.setenv(name, empty)
    environment = read_environment(path)
    assert environment == {name: "from-the-file"}
    (warning,) = warnings_about(environment)
    assert warning == (
        f"The environment variable {name} is empty, so the value in {path} is used: unset the "
        "variable, or remove the line from the file."
    )


@pytest.mark.parametrize("in_file", ["", "DB_PASSWORD=\nEVENT_FIELDS=\nDB_NAME=\nDB_PORT=\n"])
def test_an_empty_environment_variable_alone_is_the_empty_value_where_there_may_be_one(
    env_file: EnvFile, monkeypatch: pytest.MonkeyPatch, in_file: str
) -> None:
    for name in ("DB_PASSWORD", "EVENT_FIELDS", "DB_NAME", "DB_PORT"):
        monkeypatch.setenv(name, "")
    environment = read_environment(env_file(in_file))
    assert environment.warnings == []
    with pytest.raises(ConfigError) as raised:
        Settings.from_environment({**REQUIRED_ONES, **environment})
    assert raised.value.problems == ["DB_NAME is missing: set it in .env (see .env.example)"]
    settings = Settings.from_environment({**REQUIRED_ONES, **environment, "DB_NAME": "shop"})
    assert (settings.db_password, settings.event_fields, settings.db_port) == ("", (), 3306)


def test_reading_an_env_file_does_not_change_the_environment(env_file: EnvFile) -> None:
    before = dict(os.environ)
    read_environment(env_file("DB_HOST=x\n"))
    assert dict(os.environ) == before


def test_a_byte_order_mark_does_not_hide_the_first_setting(env_file: EnvFile) -> None:
    """DB_HOST was reported as missing although it was in the first line."""
    assert read_environment(env_file(b"\xef\xbb\xbfDB_HOST=x\n")) == {"DB_HOST": "x"}


def test_windows_line_ends_are_understood(env_file: EnvFile) -> None:
    assert read_environment(env_file("DB_HOST=x\r\nDB_USER=y\r\n")) == {
        "DB_HOST": "x",
        "DB_USER": "y",
    }


@pytest.mark.parametrize("named", ["nowhere.env", "."])
def test_an_env_file_on_the_command_line_must_exist(tmp_path: Path, named: str) -> None:
    path = tmp_path / named
    with pytest.raises(ConfigError) as raised:
        read_environment(path)
    assert raised.value.problems == [f"--env-file {path} is not an existing file"]


def test_a_relative_env_file_starts_at_the_current_folder_and_is_named_whole(
    env_file: EnvFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = env_file("DB_HOST=x\n")
    monkeypatch.chdir(path.parent)
    assert read_environment(path.name) == {"DB_HOST": "x"}
    with pytest.raises(ConfigError) as raised:
        read_environment("other.env")
    assert raised.value.problems == [f"--env-file {path.parent}/other.env is not an existing file"]


@pytest.mark.parametrize("name", ["/dev/fd/{}", "pipe"])
def test_an_env_file_that_is_a_pipe_named_no_file(
    env_file: EnvFile, tmp_path: Path, name: str
) -> None:
    """`--env-file <(cat .env)` and a FIFO were refused."""
    env_file("")
    if name == "pipe":
        path = tmp_path / name
        os.mkfifo(path)
        thread = threading.Thread(target=path.write_bytes, args=(b"DB_HOST=x\n",))
        thread.start()
    else:
        reader, writer = os.pipe()
        path = Path(name.format(reader))
        os.write(writer, b"DB_HOST=x\n")
        os.close(writer)
    try:
        assert read_environment(path) == {"DB_HOST": "x"}
    finally:
        if name == "pipe":
            thread.join(10)
        else:
            os.close(reader)


def test_an_endless_pipe_is_not_read_to_its_end(env_file: EnvFile) -> None:
    env_file("")
    with subprocess.Popen(["yes", "A=1"], stdout=subprocess.PIPE) as endless:
        assert endless.stdout is not None
        with pytest.raises(ConfigError, match="it is not a settings file"):
            read_environment(f"/dev/fd/{endless.stdout.fileno()}")
        endless.kill()


def test_an_env_file_in_latin_1_is_named_as_such_without_quoting_it(env_file: EnvFile) -> None:
    path = env_file("DB_HOST=x\nDB_PASSWORD=pässwörd\n".encode("latin-1"))
    with pytest.raises(ConfigError) as raised:
        read_environment(path)
    assert raised.value.problems == [
        f"{path} cannot be read: line 2 is not UTF-8 text but probably Latin-1 or Windows-1252: "
        "save the file as UTF-8"
    ]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_an_env_file_in_utf_16_is_named_as_such(env_file: EnvFile, encoding: str) -> None:
    """The message was the codec's: `invalid start byte`, or a limit of bytes."""
    path = env_file("DB_HOST=localhost\nDB_PASSWORD=pässwörd\n".encode(encoding))
    with pytest.raises(ConfigError) as raised:
        read_environment(path)
    assert raised.value.problems == [
        f"{path} cannot be read: it is not UTF-8 text but probably UTF-16: save it as UTF-8"
    ]


def test_the_lines_of_an_env_file_that_are_not_settings_are_named(env_file: EnvFile) -> None:
    path = env_file("DB_HOST=localhost\nno setting\n")
    with pytest.raises(ConfigError, match="line 2 is not NAME=value"):
        read_environment(path)


def test_an_env_file_path_that_the_system_does_not_accept_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read: .*too long"):
        read_environment(tmp_path / ("x" * 300))
