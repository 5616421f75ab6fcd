"""A full disk under the state file: one clear message, and no stored data is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from records.mapping import RowMapping
from records.rows import RequestKind
from state.database import StateError
from state.lock import RunLock
from state.outbox import Outbox
from state.project import Match, Project
from tests.support.program_files import PROJECT_FOLDER
from tests.support.rows import (
    COLUMNS,
    MAPPING,
    deliver_all,
    email_of,
    fill,
    finished,
    outcomes_of,
    rows,
)

DISK_KIBIBYTES = 1_024


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte; skips the test if mounting is not allowed."""
    place = tmp_path / "disk"
    place.mkdir()
    options = f"size={DISK_KIBIBYTES}k,mode=700"
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount on this machine")
    if mounted.returncode != 0:
        pytest.skip("only root can mount a small disk")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def use_up(disk: Path, left_bytes: int = 0) -> Path:
    """Fill the disk with a file, except for a number of bytes; return the file."""
    filler = disk / "filler"
    room = os.statvfs(disk)
    filler.write_bytes(bytes(max(0, room.f_bavail * room.f_bsize - left_bytes)))
    return filler


def test_a_fill_on_a_full_disk_leaves_the_previous_rows(disk: Path) -> None:
    outbox = Outbox(disk / "state.sqlite3")
    fill(outbox, rows(1, 2))
    outbox.record(finished(list(outbox.pending())[:1], RequestKind.PROFILE))
    with pytest.raises(StateError, match=r"The disk of the state file .* is full: free some space"):
        outbox.fill((rows(number) for number in range(10_000)), MAPPING)
    assert list(outcomes_of(outbox)) == [email_of(1), email_of(2)]
    assert fill(outbox, rows(1, 2, 3)).to_send == 3
    deliver_all(outbox)
    outbox.close()
    outbox = Outbox(disk / "state.sqlite3")
    assert fill(outbox, rows(1, 2, 3)).to_send == 0
    outbox.close()


def test_results_can_be_recorded_once_a_full_disk_has_space_again(disk: Path) -> None:
    outbox = Outbox(disk / "state.sqlite3")
    outbox.fill([rows(*range(100))], MAPPING)
    project = Project("https://api.iterable.com", "key")
    outbox.begin_delivery(project)
    pending = list(outbox.pending())
    filler = use_up(disk)
    with pytest.raises(StateError, match="is full"):
        outbox.record(finished(pending, RequestKind.PROFILE))
    filler.unlink()
    outbox.record(finished(pending, RequestKind.PROFILE))
    outbox.record(finished(pending, RequestKind.EVENT))
    assert set(outcomes_of(outbox).values()) == {"successful"}
    assert outbox.project.match(project) is Match.SAME  # was noted only in the failed recording
    outbox.close()


def test_remembered_deliveries_survive_a_full_disk(disk: Path) -> None:
    outbox = Outbox(disk / "state.sqlite3")
    fill(outbox, rows(1, 2))
    deliver_all(outbox)
    filler = use_up(disk)
    with pytest.raises(StateError, match="is full"):
        outbox.fill((rows(number) for number in range(10_000)), MAPPING)
    outbox.close()
    filler.unlink()
    outbox = Outbox(disk / "state.sqlite3")
    assert fill(outbox, rows(1, 2, 3)).to_send == 1
    outbox.close()


def test_a_new_state_file_on_a_full_disk_is_a_state_error(disk: Path) -> None:
    filler = use_up(disk)
    with pytest.raises(StateError, match="is full"):
        Outbox(disk / "state.sqlite3")
    filler.unlink()
    outbox = Outbox(disk / "state.sqlite3")
    assert fill(outbox, rows(1)).to_send == 1
    outbox.close()


def test_a_lock_on_a_full_disk_is_a_state_error(disk: Path) -> None:
    use_up(disk)
    with pytest.raises(StateError, match="is full"), RunLock(disk / "state.sqlite3"):
        pass


def test_a_dry_run_works_on_a_full_disk(disk: Path) -> None:
    outbox = Outbox(disk / "state.sqlite3")
    fill(outbox, rows(1))
    deliver_all(outbox)
    outbox.close()
    use_up(disk, left_bytes=65_536)  # SQLite's `-shm`
    outbox = Outbox(disk / "state.sqlite3", read_only=True)
    assert outbox.fill((rows(n) for n in range(3_000)), RowMapping(COLUMNS)).to_send == 2_999
    outbox.close()


@pytest.mark.parametrize("phase", ["fill", "record"])
def test_a_file_size_limit_is_a_state_error(tmp_path: Path, phase: str) -> None:
    path = tmp_path / "state.sqlite3"
    script = """
import os, resource, sys
from pathlib import Path
from state.outbox import Outbox
from state.project import Match, Project
from records.rows import RequestKind
from state.database import StateError
from tests.support.rows import MAPPING, finished, rows
outbox = Outbox(Path(sys.argv[1]))
outbox.fill([rows(*range(500))], MAPPING)
pending = list(outbox.pending())
limit_bytes = os.stat(sys.argv[1]).st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, resource.RLIM_INFINITY))
try:
    if sys.argv[2] == "fill":
        outbox.fill((rows(number) for number in range(10_000)), MAPPING)
    outbox.record(finished(pending, RequestKind.PROFILE))
except StateError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(path), phase],
        cwd=PROJECT_FOLDER,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.startswith(f"The state file {path} cannot be used: ")
    assert done.stderr == ""
    outbox = Outbox(path)
    assert outbox.delivered.count() == 0
    outbox.close()
