"""Property: any settings and any `.env` file work or are refused with a message."""

from __future__ import annotations

import codecs
import tempfile
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path

import pytest
import requests
from hypothesis import example, given
from hypothesis import strategies as st

from config.settings import DEFAULTS, NAMES, Settings, read_environment
from db_connection import window_start
from errors import ConfigError
from iterable_api.http import IterableHTTP
from sync.source_rows import to_database
from tests.support.hostile import FIELD_LISTS, MUTATIONS, SNIPPETS, TEXTS, Mutation

PROJECT_FOLDER = Path(__file__).resolve().parent.parent.parent
REQUIRED_ONES = {
    "DB_HOST": "db.example.com",
    "DB_USER": "reader",
    "DB_PASSWORD": "",
    "DB_NAME": "shop",
    "ITERABLE_API_KEY": "0123456789abcdef",
}
SECRETS = ("DB_PASSWORD", "ITERABLE_API_KEY", "HEALTHCHECK_URL")
MARKER = "xyzzy4711"

HOSTS = st.one_of(
    st.sampled_from(["*.example.com", ".a.com", "a..b", "localhost", "127.0.0.1", "[::1]", "[::"]),
    st.sampled_from(["user@", "a:1", "a:65536", "a:-1", "a:", "xn--", "☃.com", "a%00b", "a|b"]),
    st.from_regex(r"[a-z*._%@:\[\]-]{0,20}", fullmatch=True),
    TEXTS,
)
URLS = st.builds(
    "{}{}{}".format,
    st.sampled_from(["https://", "http://", "HTTPS://", "https:", "//", "ftp://", "https:///"]),
    HOSTS,
    st.sampled_from(["", "/", "/api/", "/%", "/a?b", "#c", "/\\", "//", "/;x", "/\t"]) | TEXTS,
)
VALUES = st.one_of(
    TEXTS,
    URLS,
    FIELD_LISTS,
    st.sampled_from([*DEFAULTS.values(), "1", "0", "1e309", "-0", "\uff11", "1_0", "nan", "0x1"]),
    st.sampled_from(["Europe/Berlin", "Europe", "../UTC", "zone.tab", "tzdata.zi", "\0", "UTC\n"]),
    st.sampled_from(["/dev/zero", "/dev", "/", "~", "~root/x", ".", "..", "x" * 300, "/x" * 3_000]),
)
ENVIRONMENTS = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=8)


def check_problems(error: ConfigError, names: Mapping[str, str]) -> None:
    assert error.problems
    for problem in error.problems:
        assert problem.split()[0] in names
        assert len(problem.splitlines()) == 1


def check_usable(settings: Settings) -> None:
    """Check that accepted settings can be used."""
    to_database(settings)
    IterableHTTP(settings.iterable_api_key, settings.iterable_api_base_url).close()
    for url in (settings.iterable_api_base_url, settings.healthcheck_url):
        if url:
            requests.Request("POST", f"{url}/x", headers={"A": settings.iterable_api_key}).prepare()
    window_start(
        datetime(2026, 1, 1, tzinfo=timezone.utc),
        settings.engagement_window_days,
        str(settings.db_timezone),
    )
    assert f"{settings}".encode()


@given(ENVIRONMENTS)
@example({"ITERABLE_API_BASE_URL": "https://*.example.com"})
@example({"HEALTHCHECK_URL": "https://☃.com/"})
@example({"DB_USER": "\udcff"})
def test_any_settings_work_or_are_refused_by_name(environment: dict[str, str]) -> None:
    try:
        settings = Settings.from_environment({**REQUIRED_ONES, **environment})
    except ConfigError as error:
        check_problems(error, environment)
    else:
        check_usable(settings)


@given(st.sampled_from(SECRETS), TEXTS | URLS, TEXTS, ENVIRONMENTS)
def test_no_message_about_settings_shows_a_secret(
    name: str, before: str, after: str, environment: dict[str, str]
) -> None:
    secret = f"{before}{MARKER}{after}"
    try:
        text = repr(Settings.from_environment({**REQUIRED_ONES, **environment, name: secret}))
    except ConfigError as error:
        text = str(error)
    assert MARKER not in text


# The file

LINES = st.one_of(
    st.builds(
        "{}{}{}{}".format,
        st.sampled_from(["", "export ", " ", "#", "'", "\ufeff"]),
        st.sampled_from([*NAMES, "", "X", "'DB_HOST'"]),
        st.sampled_from(["=", " = ", "", "==", ":", "='", '="']),
        TEXTS | st.sampled_from(["${DB_HOST}", "$(id)", "`id`", "a #b", "'a' b", '"\\x"', "\\"]),
    ),
    st.sampled_from(SNIPPETS),
)
CODECS = st.sampled_from(["utf-8", "utf-16", "utf-16-le", "utf-32", "latin-1", "cp037"])


@st.composite
def env_files(draw: st.DrawFn) -> bytes:
    """Draw the bytes of a file: like a `.env` file, a damaged one, or anything."""
    if draw(st.integers(0, 4)) == 0:
        return draw(st.binary(max_size=2_000))
    ends = draw(st.sampled_from(["\n", "\r\n", "\r", "\n\n", "\0"]))
    text = ends.join(draw(st.lists(LINES, max_size=12)))
    content = (
        text.encode(draw(CODECS), "replace" if draw(st.booleans()) else "surrogatepass")
        if all(ord(letter) < 256 for letter in text)
        else text.encode("utf-8", "surrogatepass")
    )
    mutations: list[Mutation] = draw(st.lists(MUTATIONS, max_size=2))
    for mutation in mutations:
        content = mutation.of(content)
    return draw(st.sampled_from([b"", codecs.BOM_UTF8, codecs.BOM_UTF16_LE])) + content


def read_or_check_problem(path: Path) -> dict[str, str]:
    try:
        environment = read_environment(path)
    except ConfigError as error:
        (problem,) = error.problems
        assert problem.startswith(f"{path} cannot be read: ")
        assert len(problem.splitlines()) == 1
        return {}
    assert set(environment) <= set(NAMES)
    return environment


@given(env_files())
def test_any_env_file_is_read_or_refused_in_one_line(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, ".env")
        path.write_bytes(content)
        environment = read_or_check_problem(path)
    try:
        Settings.from_environment(environment)
    except ConfigError as error:
        check_problems(error, dict.fromkeys(NAMES, ""))


@given(
    st.sampled_from(["A= {} x", "A='{}", 'A="{}', "A={}\nB='", "{}=1", "A=1{}#", "export{}A=1"]),
    st.sampled_from(
        [" ", "\t", "\\", "'", '"', "\\'", "#", "\r", " #", "A='\n", "\\\n", "=", "\0"]
    ),
    st.sampled_from([10, 1_000, 100_000]),
)
def test_a_long_line_of_an_env_file_is_read_quickly(line: str, part: str, times: int) -> None:
    """Fails only by the time limit of the fuzzer or of the test suite."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, ".env")
        path.write_text(line.format(part * times), encoding="utf-8", newline="")
        read_or_check_problem(path)


@pytest.mark.parametrize("kind", ["folder", "zeros", "link to zeros", "link to itself"])
def test_folders_and_endless_devices_are_not_read_as_env_files(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ".env"
    if kind == "folder":
        path.mkdir()
    elif kind == "zeros":
        path = Path("/dev/zero")
    elif kind == "link to zeros":
        path.symlink_to("/dev/zero")
    else:
        path.symlink_to(path)
    with pytest.raises(ConfigError, match=r"not an existing file|cannot be read"):
        read_environment(path)
