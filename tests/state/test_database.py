"""The state file: creating, opening and upgrading it; files that are refused and not changed."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from state.database import (
    APPLICATION_ID,
    FIRST_VERSION,
    SCHEMA_STEPS,
    StateError,
    close_after_reading,
    open_for_reading,
    open_state,
)
from state.outbox import Outbox
from tests.support.golden import SARAH, SARAHS_USER_KEY
from tests.support.rows import MAPPING, contents, deliver_all, fill, outcomes_of, rows

Open = Callable[[Path], Outbox]


@pytest.fixture(params=["run", "dry run"])
def open_it(request: pytest.FixtureRequest) -> Open:
    """Each of the two ways to open the file."""
    is_dry = request.param == "dry run"
    return lambda path: Outbox(path, read_only=is_dry)


@pytest.fixture
def any_umask() -> Iterator[Callable[[int], None]]:
    """Set the umask during a test."""
    former = os.umask(0o022)
    yield lambda mask: (os.umask(mask), None)[1]
    os.umask(former)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def filled_file(path: Path, row_count: int = 3) -> None:
    """Make a state file that remembers `row_count` users."""
    outbox = Outbox(path)
    outbox.fill([rows(*range(row_count))], MAPPING)
    deliver_all(outbox)
    outbox.close()


@pytest.fixture(scope="module")
def many_pages(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A state file of a few dozen pages."""
    path = tmp_path_factory.mktemp("state") / "state.sqlite3"
    filled_file(path, 600)
    return path.read_bytes()


def check_refused(open_it: Open, path: Path, message: str) -> None:
    """Assert that opening fails with this message and changes nothing of the file."""
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    mode = mode_of(path)
    with pytest.raises(StateError, match=message) as caught:
        open_it(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before
    assert mode_of(path) == mode


# Making it


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o177, 0o777])
def test_the_state_file_has_mode_0600_under_any_umask(
    path: Path, any_umask: Callable[[int], None], mask: int
) -> None:
    any_umask(mask)
    outbox = Outbox(path)
    fill(outbox, rows(1))
    assert {file.name: mode_of(file) for file in path.parent.iterdir()} == {
        "state.sqlite3": 0o600,
        "state.sqlite3-wal": 0o600,
        "state.sqlite3-shm": 0o600,
    }
    outbox.close()
    assert mode_of(path) == 0o600


def test_a_state_file_that_others_can_read_gets_mode_0600_again(path: Path) -> None:
    Outbox(path).close()
    path.chmod(0o644)
    Outbox(path).close()
    assert mode_of(path) == 0o600


def test_an_empty_file_becomes_a_state_file(path: Path) -> None:
    path.touch()
    outbox = Outbox(path)
    assert fill(outbox, rows(1)).to_send == 1
    outbox.close()


def test_a_file_whose_creation_was_killed_could_not_be_read(
    path: Path, tmp_path: Path, open_it: Open
) -> None:
    """The message was: The state file cannot be written."""
    creating = tmp_path / "creating.sqlite3"
    with contextlib.closing(sqlite3.connect(creating, isolation_level=None)) as killed:
        killed.executescript(f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA cache_size = 1;")
        killed.executescript(f"BEGIN; {SCHEMA_STEPS[0]} PRAGMA user_version = {FIRST_VERSION};")
        # So many rows that some are written to the file before the end of the transaction.
        values = [(f"name {number}", "x" * 500) for number in range(100)]
        killed.executemany("INSERT INTO remembered VALUES (?, ?)", values)
        for suffix in ("", "-journal"):
            shutil.copy(f"{creating}{suffix}", f"{path}{suffix}")
    outbox = open_it(path)
    assert outbox.history.runs() == []
    outbox.close()
    assert not Path(f"{path}-journal").exists()


def test_the_header_contains_the_application_id(path: Path) -> None:
    Outbox(path).close()
    header = path.read_bytes()[:100]
    assert header[68:72] == b"M2IT"
    assert int.from_bytes(header[60:64], "big") == FIRST_VERSION + len(SCHEMA_STEPS) - 1


def test_without_the_state_file_everything_is_sent_again(path: Path) -> None:
    filled_file(path)
    path.unlink()
    outbox = Outbox(path)
    assert fill(outbox, rows(1, 2)).to_send == 2
    outbox.close()


# Other versions

# The file of version 1.1.0, which remembers the sample row as delivered. Never changed: an upgrade
# of the program sends nothing again.
VERSION_1_1_0 = """
    CREATE TABLE delivered (
        user_key INTEGER PRIMARY KEY,
        profile_hash INTEGER, profile_at INTEGER,
        event_hash INTEGER, event_settings INTEGER, event_id TEXT, event_at INTEGER
    );
    CREATE TABLE outbox (
        seq INTEGER PRIMARY KEY,
        user_id, email TEXT, user_key INTEGER, event_at INTEGER, tie_breaker INTEGER,
        kind TEXT, reason TEXT,
        profile BLOB, profile_hash INTEGER,
        event BLOB, event_hash INTEGER, event_id TEXT,
        update_verdict TEXT, update_result TEXT,
        event_verdict TEXT, event_result TEXT,
        settled_at REAL
    );
    CREATE TABLE remembered (name TEXT PRIMARY KEY, value TEXT);
    CREATE TABLE runs (
        run_id TEXT PRIMARY KEY, mode TEXT, started_at TEXT, finished_at TEXT,
        status TEXT, reason TEXT, counts TEXT
    );
    INSERT INTO delivered VALUES (1674961954042688616, 2372109399269204740, 1768400000,
        2267576865680863392, -7404859871476163275,
        'page-view-18db2e0f5d7874759551b6034289b2a8', 1768400000);
    INSERT INTO remembered VALUES ('profile_settings', '1301070993360600163');
    PRAGMA application_id = 0x4D324954;
    PRAGMA user_version = 3;
    PRAGMA journal_mode = WAL;
"""
VERSION_1_1_0_KILLED = """
    INSERT INTO outbox (seq, email, profile) VALUES (0, 'canary@example.com', zeroblob(9000));
"""
NEXT_STEPS = (*SCHEMA_STEPS, "ALTER TABLE delivered ADD COLUMN more TEXT DEFAULT 'upgraded';")


@pytest.fixture
def released(path: Path) -> Path:
    connection = sqlite3.connect(path)
    connection.executescript(VERSION_1_1_0)
    connection.close()
    path.chmod(0o600)
    return path


def test_after_an_upgrade_of_the_program_nothing_is_sent_again(
    released: Path, open_it: Open
) -> None:
    outbox = open_it(released)
    filled = fill(outbox, [tuple(SARAH.values())])
    assert filled.to_send == filled.changed_by_settings == filled.kept_events == 0
    assert list(outcomes_of(outbox).values()) == ["unchanged"]
    assert outbox.history.runs() == []
    outbox.close()


def test_a_file_of_an_older_version_is_upgraded_and_keeps_its_deliveries(released: Path) -> None:
    for _ in range(2):
        connection = open_state(released, steps=NEXT_STEPS)
        assert connection.execute("SELECT user_key, more FROM delivered").fetchall() == [
            (SARAHS_USER_KEY, "upgraded")
        ]
        assert connection.execute("PRAGMA user_version").fetchone() == (
            FIRST_VERSION + len(NEXT_STEPS) - 1,
        )
        connection.close()


def test_a_file_of_version_1_2_0_is_upgraded_and_sends_nothing_again(
    released: Path, open_it: Open
) -> None:
    with sqlite3.connect(released) as connection:
        connection.executescript("DROP TABLE outbox; PRAGMA user_version = 4;")
    connection.close()
    outbox = open_it(released)
    assert fill(outbox, [tuple(SARAH.values())], rejected_retry_hours=24).to_send == 0
    assert list(outcomes_of(outbox).values()) == ["unchanged"]
    assert outbox._database.execute("SELECT * FROM failures").fetchall() == []
    outbox.close()


def test_a_file_of_version_1_3_0_is_upgraded_and_sends_nothing_again(
    released: Path, open_it: Open
) -> None:
    open_state(released, steps=SCHEMA_STEPS[:3]).close()
    outbox = open_it(released)
    assert fill(outbox, [tuple(SARAH.values())]).to_send == 0
    assert list(outcomes_of(outbox).values()) == ["unchanged"]
    assert not outbox.members.exists
    outbox.close()


def test_after_an_upgrade_one_bad_profile_stopped_every_run_as_if_its_mapping_were_new(
    released: Path, open_it: Open
) -> None:
    outbox = open_it(released)
    assert outbox.mapping_settings.has_delivered(MAPPING)
    outbox.close()


def test_an_upgrade_removes_the_rows_that_a_killed_run_of_version_1_1_0_left(
    released: Path,
) -> None:
    with sqlite3.connect(released) as connection:
        connection.executescript(VERSION_1_1_0_KILLED)
    connection.close()
    assert b"canary@example.com" in released.read_bytes()
    outbox = Outbox(released)
    assert fill(outbox, [tuple(SARAH.values())]).to_send == 0
    assert b"canary@example.com" not in b"".join(contents(released.parent).values())
    outbox.close()


def test_a_file_that_has_to_be_upgraded_can_be_read_and_is_not_changed(released: Path) -> None:
    before = contents(released.parent)
    connection = open_for_reading(released, steps=NEXT_STEPS)
    assert connection.execute("SELECT more FROM delivered").fetchall() == [("upgraded",)]
    close_after_reading(released, connection)
    assert contents(released.parent) == before


def test_an_upgrade_that_fails_changes_nothing(released: Path) -> None:
    before = released.read_bytes()
    with pytest.raises(StateError):
        open_state(released, steps=(*NEXT_STEPS, "INSERT INTO nowhere VALUES (1);"))
    assert released.read_bytes() == before


@pytest.mark.parametrize("version", [1, 2])
def test_a_file_from_before_the_first_release_is_refused(
    released: Path, open_it: Open, version: int
) -> None:
    with sqlite3.connect(released) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
    connection.close()
    check_refused(open_it, released, "before version 1.1.0, whose event ids are different: move")


def test_a_file_of_a_newer_version_is_refused(path: Path, open_it: Open) -> None:
    filled_file(path)
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {FIRST_VERSION + len(SCHEMA_STEPS)}")
    connection.close()
    check_refused(open_it, path, "made by a newer version of this program: use that version")


# Foreign and damaged files


def test_a_database_of_another_program_is_refused(path: Path, open_it: Open) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE precious (thing)")
    connection.close()
    path.chmod(0o644)
    check_refused(open_it, path, "not a state file of this program: choose another STATE_FILE")


def test_a_database_that_another_program_has_open_keeps_its_log(path: Path, open_it: Open) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA journal_mode = WAL")
    other.execute("CREATE TABLE precious (thing)")
    other.execute("PRAGMA wal_checkpoint")
    other.execute("INSERT INTO precious VALUES (1)")
    check_refused(open_it, path, "not a state file of this program")
    assert path.with_name(path.name + "-wal").stat().st_size > 0
    other.close()


@pytest.mark.parametrize(
    "content", [b"x", b"my notes\n" * 300, b"\x89PNG\r\n\x1a\n", b"SQLite format 4\0" + bytes(200)]
)
def test_any_other_file_is_refused(path: Path, open_it: Open, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o644)
    check_refused(open_it, path, "not a state file of this program")


@pytest.mark.parametrize("kept_share", [0.01, 0.3, 0.5, 0.9])
def test_a_truncated_file_is_refused(
    path: Path, open_it: Open, many_pages: bytes, kept_share: float
) -> None:
    path.write_bytes(many_pages[: max(100, int(len(many_pages) * kept_share))])
    path.chmod(0o600)
    check_refused(open_it, path, "is damaged: move it away, and the next run sends everything")


@pytest.mark.parametrize("filler", [b"\0", b"\xff", b"scribble"])
@pytest.mark.parametrize("page", [0, 1, 3, 9])
def test_a_file_with_a_corrupt_page_is_refused(
    path: Path, open_it: Open, many_pages: bytes, page: int, filler: bytes
) -> None:
    content = bytearray(many_pages)
    start = max(page * 4096, 100)  # the header stays: a file of ours, and damaged
    end = (page + 1) * 4096
    assert end < len(content)
    content[start:end] = (filler * 4096)[: end - start]
    path.write_bytes(content)
    path.chmod(0o600)
    check_refused(open_it, path, "is damaged")


@pytest.mark.parametrize(
    ("written", "spoilt"),
    [
        (b"CREATE TABLE remembered (", b"CREATE TABLE remembered \xff"),
        (b"tablerunsruns", b"table\x9ef\xffruns"),
    ],
)
def test_a_schema_that_is_not_unicode_is_reported_as_damage(
    path: Path, open_it: Open, many_pages: bytes, written: bytes, spoilt: bytes
) -> None:
    assert many_pages.count(written) == 1
    path.write_bytes(many_pages.replace(written, spoilt))
    path.chmod(0o600)
    check_refused(open_it, path, "is damaged")


# Places


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"folder of the state file .* does not exist: create it"):
        Outbox(tmp_path / "nowhere" / "state.sqlite3")


def test_a_folder_with_the_name_of_the_state_file_is_refused(tmp_path: Path, open_it: Open) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(StateError, match=r"cannot be used|is not a regular file"):
        open_it(folder)


@pytest.mark.parametrize("mode", [0o400, 0o440, 0o444])
def test_a_read_only_file_is_refused_even_for_root(path: Path, mode: int) -> None:
    filled_file(path)
    path.chmod(mode)
    check_refused(Outbox, path, "cannot be written: check its owner and mode")


def test_a_file_with_two_names_is_refused(path: Path) -> None:
    filled_file(path)
    path.with_name("other").hardlink_to(path)
    check_refused(Outbox, path, "has a second name")


def test_a_dry_run_through_a_link_leaves_nothing_behind(path: Path, tmp_path: Path) -> None:
    filled_file(path)
    (tmp_path / "releases").mkdir()
    link = tmp_path / "releases" / "state"
    link.symlink_to(path)
    dry = Outbox(link, read_only=True)
    assert fill(dry, rows(1, 7)).to_send == 1
    dry.close()
    assert sorted(file.name for file in tmp_path.rglob("*")) == [
        *("releases", "state", "state.sqlite3")
    ]


def test_a_dry_run_reads_a_read_only_file(path: Path) -> None:
    filled_file(path)
    path.chmod(0o400)
    outbox = Outbox(path, read_only=True)
    assert fill(outbox, rows(0, 1, 2, 3)).to_send == 1
    outbox.close()


@pytest.mark.slow
def test_the_wait_for_a_file_locked_by_another_program_is_limited(path: Path) -> None:
    filled_file(path)
    outbox = Outbox(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StateError, match="in use by another program"):
        fill(outbox, rows(1))
    other.execute("ROLLBACK")
    other.close()
    assert fill(outbox, rows(1, 7)).to_send == 1
    outbox.close()
