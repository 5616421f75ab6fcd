"""Property: any flags and any query file work or are refused with a message."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import main
from db_connection import DatabaseConnection, SourceError
from errors import ExitStatus
from tests.conftest import SourceDatabase
from tests.support.hostile import SNIPPETS, TEXTS
from tests.support.program import Program

# What a shell can pass: no NUL; bytes that are not UTF-8 arrive as lone surrogates.
ARGUMENT = TEXTS.map(lambda text: os.fsdecode(text.encode("utf-8", "replace")).replace("\0", ""))
FLAGS = ["--limit", "--mode", "--env-file", "--verify", "--export", "--dry-run", "--full-refresh"]
FLAGS += [
    "--quiet",
    "--verbose",
    "--json",
    "--check",
    "--help-settings",
    "--history",
    "--version",
    "--lim",
    "-h",
    "--",
]
WORDS = st.one_of(
    st.sampled_from(FLAGS),
    ARGUMENT,
    st.builds("{}={}".format, st.sampled_from(FLAGS), ARGUMENT),
    st.sampled_from(
        ["0", "1", "-1", "\uff11", "\u0661", "9" * 19, "1e3", "bulk", "", "\udcff", "@x"]
    ),
)


def status_of(argv: list[str]) -> object:
    former, sys.argv = sys.argv, argv
    try:
        main.main()
    except SystemExit as ending:
        return ending.code
    finally:
        sys.argv = former
    raise AssertionError("main() returned")


@given(st.lists(WORDS, max_size=5))
@example(["--export", ""])
@example(["--limit", "\udcff"])
def test_any_flags_without_settings_end_with_a_message_and_a_status(words: list[str]) -> None:
    streams = [io.TextIOWrapper(io.BytesIO(), "utf-8", errors="strict") for _ in range(2)]
    with tempfile.TemporaryDirectory() as folder:
        env_file = Path(folder, "empty.env")
        # A state file of its own, for --history; the other required settings are missing.
        env_file.write_text(f"STATE_FILE={folder}/state.sqlite3\n", encoding="utf-8")
        with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
            status = status_of(["main.py", "--env-file", str(env_file), *words])
        assert {path.name for path in Path(folder).iterdir()} == {"empty.env"}
    stdout, stderr = (stream.buffer.getvalue().decode() for stream in streams)
    assert "Traceback" not in stdout + stderr
    assert "bug" not in stderr
    if status == ExitStatus.BAD_SETTINGS:
        assert stderr or "--check" in words
    else:
        assert status == ExitStatus.OK
        assert {"--help-settings", "--history", "--version", "-h"} & set(words)


# As a process

EMPTY = {"DB_HOST": "127.0.0.1", "DB_PORT": "1", "DB_USER": "u", "DB_PASSWORD": "", "DB_NAME": "n"}
EMPTY |= {"ITERABLE_API_KEY": "0123456789", "ITERABLE_API_BASE_URL": "http://127.0.0.1:1"}


def check_refused(
    program: Program, status: int, message: str, *flags: str, **settings: str
) -> None:
    """Check the exit status, and that stderr is one line with this message."""
    ending = program.run(*flags, settings=settings)
    assert (ending.status, message in ending.stderr) == (status, True), ending
    assert len(ending.stderr.splitlines()) == 1
    assert not program.results_files


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """The program with no database and no API to connect to."""
    return Program(tmp_path, EMPTY)


@pytest.mark.slow
def test_an_export_to_an_empty_name_started_a_real_run(program: Program) -> None:
    """`--export "$UNSET_VARIABLE"` started a run that sent everything."""
    check_refused(
        program, 1, ". is not a regular file: choose another file", "--quiet", "--export", ""
    )


@pytest.mark.slow
def test_an_empty_env_file_name_read_the_env_file_of_the_project(program: Program) -> None:
    check_refused(
        program, 2, f"--env-file {program.folder} is not an existing file", "--env-file", ""
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["x" * 300, "~nobody-of-that-name/x", "/nowhere/x", "/dev/null"])
def test_history_with_an_impossible_state_file_name_crashed(program: Program, name: str) -> None:
    check_refused(program, 2, "STATE_FILE ", "--history", STATE_FILE=name)


@pytest.mark.slow
@pytest.mark.parametrize("flag", ["--dry-run", "--check"])
def test_a_log_file_that_is_a_pipe_without_a_reader_hung(program: Program, flag: str) -> None:
    pipe = program.folder / "pipe"
    os.mkfifo(pipe)
    ending = program.run(flag, settings={"LOG_FILE": str(pipe)})
    assert ending.status == ExitStatus.BAD_SETTINGS
    assert f"{pipe} cannot be written" in ending.output


@pytest.mark.slow
def test_a_lock_that_is_a_pipe_hung_the_check(program: Program) -> None:
    os.mkfifo(program.state_file.with_name(program.state_file.name + ".lock"))
    ending = program.run("--check")
    assert ending.status == ExitStatus.BAD_SETTINGS


@pytest.mark.slow
@pytest.mark.parametrize("name", ["DB_USER", "DB_NAME", "RESULTS_DIR"])
def test_settings_that_are_not_utf_8_crashed(program: Program, name: str) -> None:
    folder = program.folder / "\udcff"
    folder.mkdir()
    message = f"{name} holds bytes that are not UTF-8 text"
    check_refused(program, 2, message, "--dry-run", **{name: str(folder)})
    assert program.run("--check", settings={name: str(folder)}).status == ExitStatus.BAD_SETTINGS


@pytest.mark.slow
@pytest.mark.parametrize(
    "content",
    [
        *(b"DB_HOST=\0", b"\xff\xfeD\0B\0", "DB_HOST=x".encode("utf-16"), b"\xff" * 100),
        *(b"DB_HOST='x\n", b'DB_HOST="', b"DB_HOST=x" + b" " * 50_000 + b"x", b"#" * 100_000),
        *(b"rm -rf x\n" * 3_000,),
    ],
)
@pytest.mark.parametrize("flag", ["--check", "--dry-run"])
def test_an_env_file_of_another_format_is_refused_in_one_line(
    program: Program, content: bytes, flag: str
) -> None:
    program.env_file.write_bytes(content)
    check_refused(program, 2, f"{program.env_file} cannot be read: ", flag)


# The query file


@given(st.binary(max_size=60) | TEXTS.map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_of_a_query_file_are_read_or_refused(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "query.sql")
        path.write_bytes(content)
        database = DatabaseConnection("127.0.0.1", "u", "", "d", query_file=path)
        try:
            text = database.query_text()
        except SourceError as error:
            text = str(error)
            assert len(text.splitlines()) == 1
        assert isinstance(text, str)


SQL = st.lists(
    st.sampled_from(
        [
            *(
                "SELECT",
                "1",
                "id",
                "*",
                "FROM",
                "customers",
                "%(window_start)s",
                "%(x)s",
                "%s",
                "%%",
            ),
            *("%", "'", "WHERE", "(", ")", ";", "SET @x =", "x'ff'", "_binary", "NULL", "/*", "--"),
            *("AS", ",", "DELETE", "INSERT", "INTO", "UNION", "DO", "SHOW TABLES", "'0000-00-00'"),
            *("CAST(", "AS TIME)", "JSON_ARRAY(1)", "\0", "\\", "`", "1e999", "DELIMITER", "CALL"),
        ]
    )
    | st.sampled_from(SNIPPETS),
    max_size=10,
).map(" ".join)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(query=SQL)
@example(query="SELECT 1 AS `\udcff`")
@example(query="SELECT x'ff', CAST('838:59:59' AS TIME), '0000-00-00'")
def test_any_query_returns_rows_or_an_error_of_one_line(
    mariadb: SourceDatabase, query: str
) -> None:
    with mariadb.connection() as connection:
        try:
            rows = connection.execute_query(query)
        except SourceError as error:
            assert len(str(error).splitlines()) == 1  # noqa: PT017
        else:
            assert isinstance(rows, list)
