"""The run lock: a second run is refused with the name of the first; a killed run holds no lock."""

from __future__ import annotations

import os
import re
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from state.database import StateError
from state.lock import RunLock, owner_of_lock
from state.outbox import Outbox
from tests.support.program_files import PROJECT_FOLDER

OWNER = """
import sys, time
from pathlib import Path
from state.lock import RunLock
from state.outbox import Outbox
path = Path(sys.argv[1])
with RunLock(path):
    if sys.argv[2:]:
        outbox = Outbox(path)
        outbox.delivered.count()
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_run(path: Path, *, opens_state: bool = False) -> Iterator[subprocess.Popen[str]]:
    """Hold the lock in another process, which may also have opened the state file."""
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(path), *(["open"] * opens_state)],
        cwd=PROJECT_FOLDER,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_second_run_is_refused_at_once_with_the_name_of_the_first(path: Path) -> None:
    with another_run(path) as owner:
        with pytest.raises(StateError) as caught, RunLock(path):
            pass
        message = str(caught.value)
    assert message.startswith(
        f"Another run is in progress (process {owner.pid} on {socket.gethostname()}, started "
    )
    assert re.search(
        r"started \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\+00:00\): wait until it ends\.$", message
    )


def test_a_lock_ends_with_its_run(path: Path) -> None:
    for _ in range(2):
        with RunLock(path), pytest.raises(StateError, match=f"process {os.getpid()} on "):
            RunLock(path).__enter__()


def test_a_lock_ends_when_its_run_fails(path: Path) -> None:
    with pytest.raises(KeyError), RunLock(path):
        raise KeyError
    with RunLock(path):
        pass


def test_a_lock_of_a_killed_run_does_not_block(path: Path) -> None:
    with another_run(path) as owner:
        owner.send_signal(signal.SIGKILL)
        owner.wait(10)
        assert str(owner.pid) in RunLock(path).path.read_text(encoding="ascii")
        with RunLock(path) as lock:
            assert f"process {os.getpid()} on " in lock.path.read_text(encoding="ascii")


def test_a_refused_run_does_not_overwrite_the_name_of_the_owner(path: Path) -> None:
    with another_run(path) as owner:
        for _ in range(2):
            with pytest.raises(StateError, match=f"process {owner.pid} on "):
                RunLock(path).__enter__()


def test_two_state_files_have_two_locks(tmp_path: Path) -> None:
    with RunLock(tmp_path / "one.sqlite3"), RunLock(tmp_path / "two.sqlite3"):
        names = ("one.sqlite3", "one.sqlite3.lock", "two.sqlite3", "two.sqlite3.lock")
        assert sorted(os.listdir(tmp_path)) == list(names)


@pytest.mark.parametrize("mask", [0o000, 0o777])
def test_the_lock_file_has_mode_0600_under_any_umask(path: Path, mask: int) -> None:
    former = os.umask(mask)
    try:
        with RunLock(path) as lock:
            assert stat.S_IMODE(lock.path.stat().st_mode) == 0o600
    finally:
        os.umask(former)


def test_a_lock_file_that_is_a_planted_link_is_not_followed_and_named_in_words(path: Path) -> None:
    """The message was `[Errno 40] Too many levels of symbolic links`."""
    victim = path.with_name("victim")
    victim.write_text("precious", encoding="ascii")
    lock = RunLock(path)
    lock.path.symlink_to(victim)
    expected = f"^{re.escape(str(lock.path))} is a symbolic link: remove it; "
    with pytest.raises(StateError, match=expected), lock:
        pass
    with pytest.raises(StateError, match=expected):
        owner_of_lock(path)
    assert victim.read_text(encoding="ascii") == "precious"


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_a_lock_file_that_is_not_a_file_is_named_in_words(
    path: Path, make: Callable[[Path], None]
) -> None:
    lock = RunLock(path)
    make(lock.path)
    expected = f"^{re.escape(str(lock.path))} is not a regular file: remove it; "
    for use in (lock.__enter__, lambda: owner_of_lock(path)):
        with pytest.raises(StateError, match=expected):
            use()


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="nowhere does not exist: create it"):
        RunLock(tmp_path / "nowhere" / "state.sqlite3").__enter__()


def test_a_folder_named_full_does_not_make_every_error_a_full_disk(tmp_path: Path) -> None:
    folder = tmp_path / "full"
    (folder / "state.sqlite3").mkdir(parents=True)
    with pytest.raises(StateError) as caught, RunLock(folder / "state.sqlite3"):
        pass
    assert "is full" not in str(caught.value)
    assert "cannot be used: Is a directory" in str(caught.value)


# Several ways to one state file, and what can happen to the lock file


def through_a_symlink(path: Path) -> Path:
    link = path.with_name("link.sqlite3")
    link.symlink_to(path.name)
    return link


def through_a_symlinked_folder(path: Path) -> Path:
    release = path.with_name("release")
    release.symlink_to(path.parent)
    return release / path.name


def through_a_hard_link(path: Path) -> Path:
    second_name = path.with_name("second.sqlite3")
    second_name.hardlink_to(path)
    return second_name


def remove_the_lock_file(path: Path) -> Path:
    RunLock(path).path.unlink()
    return path


def replace_the_lock_file(path: Path) -> Path:
    other = path.with_name("other")
    other.touch()
    other.rename(RunLock(path).path)
    return path


def remove_the_state_file(path: Path) -> Path:
    path.unlink()
    return path


WAYS_AROUND = (
    *(through_a_symlink, through_a_symlinked_folder, through_a_hard_link),
    *(remove_the_lock_file, replace_the_lock_file, remove_the_state_file),
)


@pytest.mark.parametrize("way_around", WAYS_AROUND)
@pytest.mark.parametrize("is_open", [False, True], ids=["closed", "open"])
def test_two_runs_at_once_on_one_state_file(
    path: Path, way_around: Callable[[Path], Path], is_open: bool
) -> None:
    """With STATE_FILE as a link the lock lay beside the link, and verdicts mixed."""
    with another_run(path, opens_state=is_open) as owner:
        same_file = way_around(path)
        for _ in range(2):
            with pytest.raises(StateError, match="Another run is in progress"):
                RunLock(same_file).__enter__()
        assert owner_of_lock(same_file) is not None
        owner.send_signal(signal.SIGKILL)
        owner.wait(10)
        assert owner_of_lock(same_file) is None
        with RunLock(same_file):
            pass


def test_through_a_symlink_the_first_run_is_named(path: Path) -> None:
    with another_run(through_a_symlink(path)) as owner:
        with pytest.raises(StateError, match=f"process {owner.pid} on "):
            RunLock(path).__enter__()
        assert f"process {owner.pid} on " in (owner_of_lock(path) or "")
    assert RunLock(through_a_symlinked_folder(path)).path == path.with_name(f"{path.name}.lock")


def test_a_state_file_that_a_link_leads_to_is_created_where_it_leads(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    link = tmp_path / "state.sqlite3"
    link.symlink_to(shared / "state.sqlite3")
    with RunLock(link):
        Outbox(link).close()
    assert sorted(os.listdir(shared)) == ["state.sqlite3", "state.sqlite3.lock"]
    assert link.is_symlink()


def test_looking_for_the_owner_creates_nothing_and_locks_nothing(path: Path) -> None:
    assert owner_of_lock(path) is None
    assert os.listdir(path.parent) == []
    path.touch()
    assert owner_of_lock(path) is None
    assert os.listdir(path.parent) == [path.name]
    with RunLock(path):
        assert f"process {os.getpid()} on " in (owner_of_lock(path) or "")


def test_the_lock_does_not_disturb_sqlites_own_locks(path: Path) -> None:
    """Another process must still find the state file busy while a transaction is open."""
    with RunLock(path):
        outbox = Outbox(path)
        outbox.close()
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            database.execute("BEGIN IMMEDIATE")
            assert owner_of_lock(path.with_name("nothing")) is None
            assert _writes_from_another_process(path) == "database is locked"
            database.execute("COMMIT")
            assert _writes_from_another_process(path) == "written"


def _writes_from_another_process(path: Path) -> str:
    code = (
        "import sqlite3, sys\n"
        "database = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)\n"
        "try:\n"
        "    database.execute('BEGIN IMMEDIATE')\n"
        "    print('written')\n"
        "except sqlite3.OperationalError as error:\n"
        "    print(error)\n"
    )
    command = [sys.executable, "-c", code, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
