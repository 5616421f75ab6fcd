"""Property: a damaged or edited state file works or is refused, unchanged, with a message."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from collections.abc import Sequence
from datetime import datetime, timezone
from functools import cache
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from commands.history import history_lines
from records.outcomes import Outcome
from state.database import StateError
from state.lock import RunLock
from state.outbox import Outbox
from tests.properties.test_command_line import EMPTY
from tests.support.hostile import FEW, MUTATIONS, Mutation
from tests.support.program import Program
from tests.support.rows import MAPPING, Row, deliver_all, email_of, row, rows

NAME = "state.sqlite3"
REMEMBERED = range(12)
AT = datetime(2026, 1, 20, tzinfo=timezone.utc)
# Six rows as delivered, six with a new name, four new ones.
AGAIN: Sequence[Row] = [
    *rows(*range(6)),
    *(row(number, first_name="New") for number in range(6, 12)),
    *rows(*range(12, 16)),
]


@cache
def valid_files(moment: str) -> dict[str, bytes]:
    """Return the files of a valid state: between two runs, or after a power cut."""
    with tempfile.TemporaryDirectory() as folder:
        outbox = Outbox(Path(folder, NAME))
        outbox.history.begin("r1", "bulk", AT)
        outbox.fill([rows(*REMEMBERED)], MAPPING)
        deliver_all(outbox)
        outbox.history.end("r1", AT, "completed", None, {"total_users": 12, "successful": 12})
        if moment == "between":
            outbox.close()
        files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
        outbox.close()
    return files


def use(path: Path, *, read_only: bool) -> bool:
    """Do all that a run does; return False if refused. Only StateError may be raised."""
    before = path.read_bytes()
    try:
        outbox = Outbox(path, read_only=read_only)
    except StateError as error:
        message = str(error)
    else:
        message = ""
    if message:
        assert len(message.splitlines()) == 1
        assert path.read_bytes() == before
        return False
    with contextlib.closing(outbox):
        assert history_lines(outbox.history.runs())
        filled = outbox.fill([AGAIN], MAPPING)
        pending = {pending.email: pending for pending in outbox.pending()}
        assert (filled.total, filled.to_send) == (len(AGAIN), len(pending))
        for number in range(6, 16):
            assert pending[email_of(number)].profile
        if not read_only:
            deliver_all(outbox)
        outcomes = [each.state.outcome for each in outbox.settled()]
        assert len(outcomes) == len(AGAIN)
        sent = Outcome.NOT_ATTEMPTED if read_only else Outcome.SUCCESSFUL
        assert set(outcomes) <= {Outcome.UNCHANGED, sent}
        if not read_only:
            outbox.history.begin("r2", "bulk", AT)
            outbox.history.end("r2", AT, "completed", None, {})
    if read_only:
        assert path.read_bytes() == before
    return True


# The write-ahead log is not applied to a damaged file.
CUT_SHORT = [("", Mutation(0.34, 10**9, b"")), ("-wal", Mutation(0.24, 10**9, b""))]


@FEW
@given(
    st.sampled_from(["between", "power cut"]),
    st.lists(st.tuples(st.sampled_from(["", "", "-wal", "-shm"]), MUTATIONS), max_size=3),
    st.booleans(),
)
@example("between", [], False)
@example("power cut", [], False)
@example("power cut", CUT_SHORT, False)
def test_any_bytes_of_a_state_file_work_or_are_refused_unchanged(
    moment: str, mutations: list[tuple[str, Mutation]], read_only: bool
) -> None:
    files = dict(valid_files(moment))
    for suffix, mutation in mutations:
        if NAME + suffix in files:
            files[NAME + suffix] = mutation.of(files[NAME + suffix])
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            Path(folder, name).write_bytes(content)
        path = Path(folder, NAME)
        path.chmod(0o600)
        was_used = False
        with contextlib.suppress(StateError):
            was_used = use(path, read_only=read_only)
    assert was_used or mutations, "a valid file was refused"


COLUMNS = {
    "delivered": [
        "user_key",
        "event_settings",
        "profile_hash",
        "profile_at",
        "event_hash",
        "event_id",
        "event_at",
    ],
    "runs": ["run_id", "mode", "started_at", "finished_at", "status", "reason", "counts"],
    "remembered": ["name", "value"],
}
TEXT_OF_NO_ALPHABET = "CAST(x'ff' AS TEXT)"
VALUES = [*("NULL", "''", "'x'", "x'ff'", "9e999", "-1", "1.5", TEXT_OF_NO_ALPHABET, "zeroblob(9)")]
VALUES += ["'[]'", "'{}'", "'[['", '\'{"duration_seconds": "x"}\'', "'{\"successful\": []}'"]
VALUES += ["9223372036854775807", "'2026-01-01'", "char(0)"]
EDITS = st.one_of(
    st.sampled_from(sorted(COLUMNS)).flatmap(
        lambda table: st.builds(
            f"UPDATE OR REPLACE {table} SET {{}} = {{}}".format,
            st.sampled_from(COLUMNS[table]),
            st.sampled_from(VALUES),
        )
    ),
    st.sampled_from(
        [
            *(f"DROP TABLE {table}" for table in (*COLUMNS, "failures", "outbox")),
            *(f"ALTER TABLE {table} RENAME TO other" for table in (*COLUMNS, "failures", "outbox")),
            *("ALTER TABLE outbox DROP COLUMN reason", "ALTER TABLE delivered ADD COLUMN x"),
            "ALTER TABLE outbox RENAME COLUMN profile TO body",
            "CREATE TRIGGER t AFTER INSERT ON delivered BEGIN DELETE FROM delivered; END",
            "CREATE TRIGGER t AFTER INSERT ON outbox BEGIN"
            " UPDATE outbox SET kind = 'unchanged' WHERE seq = new.seq; END",
            "CREATE TRIGGER t BEFORE INSERT ON delivered BEGIN SELECT RAISE(IGNORE); END",
            *("CREATE VIEW v AS SELECT * FROM outbox", "CREATE TABLE mine (x)"),
            *("CREATE UNIQUE INDEX i ON outbox (kind)", "CREATE UNIQUE INDEX i ON outbox (page)"),
            *("DROP TABLE outbox; CREATE VIEW outbox AS SELECT 1", "DELETE FROM delivered"),
            *("PRAGMA user_version = 0", "PRAGMA user_version = -1", "PRAGMA user_version = 99"),
            *("PRAGMA user_version = 1", "PRAGMA application_id = 0", "PRAGMA application_id = 7"),
            *("PRAGMA journal_mode = DELETE", "PRAGMA page_size = 512; VACUUM", "ANALYZE"),
            *("INSERT INTO outbox (seq, kind) VALUES (1, 'x')", "DELETE FROM runs"),
        ]
    ),
)


@FEW
@given(st.lists(EDITS, min_size=1, max_size=3), st.booleans())
@example(["UPDATE OR REPLACE delivered SET profile_hash = 9e999"], False)
@example(["UPDATE OR REPLACE runs SET counts = NULL"], True)
@example(["UPDATE OR REPLACE runs SET started_at = NULL"], False)
@example(["DROP TABLE remembered"], True)
@example(["CREATE TRIGGER t AFTER INSERT ON delivered BEGIN DELETE FROM delivered; END"], False)
def test_any_edit_of_a_state_file_works_or_is_refused_unchanged(
    edits: list[str], read_only: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, NAME)
        path.write_bytes(valid_files("between")[NAME])
        path.chmod(0o600)
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
            for edit in edits:
                with contextlib.suppress(sqlite3.Error):
                    database.executescript(edit)
        with contextlib.suppress(StateError):
            use(path, read_only=read_only)


@given(st.binary(max_size=600), st.booleans())
def test_a_lock_file_may_hold_any_bytes(content: bytes, is_held: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        lock = RunLock(Path(folder, NAME))
        with RunLock(Path(folder, NAME)) if is_held else contextlib.nullcontext():
            lock.path.write_bytes(content)
            if is_held:
                with pytest.raises(StateError, match="Another run is in progress"), lock:
                    pass
                return
        with lock:
            pass


# The whole program


def damage(path: Path, how: str) -> None:
    Outbox(path).close()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.executescript(how)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "flag"),
    [
        ("DROP TABLE remembered", "--dry-run"),
        ("DROP TABLE remembered", "--quiet"),
        ("ALTER TABLE delivered DROP COLUMN event_at", "--history"),
        ("CREATE TRIGGER t AFTER INSERT ON delivered BEGIN DELETE FROM delivered; END", "--quiet"),
        ("PRAGMA user_version = -1", "--history"),
        ("PRAGMA user_version = 0", "--dry-run"),
    ],
)
def test_an_edited_state_file_is_reported_in_one_line_with_exit_status_1(
    tmp_path: Path, how: str, flag: str
) -> None:
    check_damaged(Program(tmp_path, EMPTY), how, flag)


@pytest.mark.slow
@pytest.mark.parametrize(
    "values", ["1, 2, NULL, 3, NULL, x'ff', 'no JSON'", "'1', '2', '', '', '', '', '[]'"]
)
def test_a_history_row_with_odd_values_crashed(tmp_path: Path, values: str) -> None:
    check_damaged(Program(tmp_path, EMPTY), f"INSERT INTO runs VALUES ({values})", "--history")


def check_damaged(program: Program, how: str, flag: str) -> None:
    damage(program.state_file, how)
    before = program.state_file.read_bytes()
    ending = program.run(flag)
    assert (ending.status, len(ending.stderr.splitlines())) == (1, 1), ending
    assert f"The state file {program.state_file} is damaged" in ending.stderr
    assert program.state_file.read_bytes() == before
