"""The run lock: a second run is refused with the name of the first; a killed run holds no lock."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from state.database import StateError
from state.lock import RunLock
from tests.support.program_files import PROJECT_FOLDER

OWNER = """
import sys, time
from pathlib import Path
from state.lock import RunLock
with RunLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.sqlite3"


@contextmanager
def another_run(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Hold the lock in another process."""
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(path)],
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
        assert sorted(os.listdir(tmp_path)) == ["one.sqlite3.lock", "two.sqlite3.lock"]


@pytest.mark.parametrize("mask", [0o000, 0o777])
def test_the_lock_file_has_mode_0600_under_any_umask(path: Path, mask: int) -> None:
    former = os.umask(mask)
    try:
        with RunLock(path) as lock:
            assert stat.S_IMODE(lock.path.stat().st_mode) == 0o600
    finally:
        os.umask(former)


def test_a_symlink_with_the_name_of_the_lock_file_is_not_followed(path: Path) -> None:
    victim = path.with_name("victim")
    victim.write_text("precious", encoding="ascii")
    RunLock(path).path.symlink_to(victim)
    with pytest.raises(StateError, match="cannot be used"), RunLock(path):
        pass
    assert victim.read_text(encoding="ascii") == "precious"


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="nowhere does not exist: create it"):
        RunLock(tmp_path / "nowhere" / "state.sqlite3").__enter__()


def test_a_folder_named_full_does_not_make_every_error_a_full_disk(tmp_path: Path) -> None:
    folder = tmp_path / "full"
    folder.mkdir()
    (folder / "state.sqlite3.lock").symlink_to(folder / "elsewhere")
    with pytest.raises(StateError) as caught, RunLock(folder / "state.sqlite3"):
        pass
    assert "is full" not in str(caught.value)
    assert "cannot be used: Too many levels of symbolic links" in str(caught.value)
