"""A full disk under any file of a run: one clear message, and the state file stays correct.

The disks are small tmpfs mounts. Only root can mount them, so other users skip these tests.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandbox.iterable_api import IterableSandbox
from tests.conftest import SourceDatabase
from tests.support.program import Program, counts_of, wait_until
from tests.support.users import add_users, check_project, sent_calls

Mount = Callable[[str, int], Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """A function that mounts a disk of the given size in KiB below the test's folder."""
    mounted: list[Path] = []

    def mount_one(name: str, kibibytes: int) -> Path:
        if os.geteuid() != 0:
            pytest.skip("only root can mount a small disk")
        place = tmp_path / name
        place.mkdir()
        command: list[str | Path] = [
            "mount",
            "-t",
            "tmpfs",
            "-o",
            f"size={kibibytes}k,mode=700",
            "tmpfs",
            place,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
        mounted.append(place)
        return place

    yield mount_one
    for place in mounted:
        subprocess.run(["umount", "--lazy", place], check=False)


def use_up(disk: Path) -> Path:
    """Fill the disk with a file, and return it; deleting it makes room again."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        size = 65_536
        while size:
            try:
                file.write(b"x" * size)
            except OSError:
                size //= 2
    return filler


def check_message(stderr: str, message: str) -> None:
    """Check the message in the last line; all lines before it are log lines."""
    *log_lines, last = stderr.splitlines()
    assert message in last
    assert all(" - sync." in line for line in log_lines), stderr


def test_a_full_disk_while_the_outbox_is_filled_ends_the_run_before_the_first_call(
    mariadb: SourceDatabase, iterable: IterableSandbox, tmp_path: Path, mount: Mount
) -> None:
    disk = mount("disk", 600)
    add_users(mariadb.run_sql, range(1, 2_001))
    program = Program.between(
        tmp_path / "run", mariadb, iterable, STATE_FILE=str(disk / "state.sqlite3")
    )
    ending = program.run()
    assert ending.status == 1, ending.output
    check_message(ending.stderr, f"The disk of the state file {disk}/state.sqlite3 is full")
    assert sent_calls(iterable) == []
    assert counts_of(program.results) == {}
    assert program.results["status"] == "aborted"
    subprocess.run(["mount", "-o", "remount,size=20m", disk], check=True)
    assert program.run("--limit", "100").status == 0
    assert counts_of(program.results) == {"successful": 100}


def test_a_state_file_on_a_read_only_disk_is_reported_in_one_line(
    embedded: SourceDatabase, iterable: IterableSandbox, tmp_path: Path, mount: Mount
) -> None:
    disk = mount("disk", 2_000)
    add_users(embedded.run_sql, [1, 2])
    program = Program.between(
        tmp_path / "run", embedded, iterable, STATE_FILE=str(disk / "state.sqlite3")
    )
    assert program.run("--limit", "1").status == 0
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    ending = program.run()
    assert ending.status == 1, ending.output
    (line,) = ending.stderr.splitlines()
    assert str(disk / "state.sqlite3") in line
    assert "cannot be written: check its owner and mode" in line
    assert len(sent_calls(iterable)) == 2


@pytest.mark.parametrize(
    "everything_on_it",
    [False, True],
    ids=["state alone", "all files"],
)
def test_a_disk_that_fills_up_during_delivery_ends_the_run(
    embedded: SourceDatabase,
    iterable: IterableSandbox,
    tmp_path: Path,
    mount: Mount,
    everything_on_it: bool,
) -> None:
    disk = mount("disk", 2_000)
    add_users(embedded.run_sql, range(1, 201))
    program = Program.between(
        tmp_path / "run", embedded, iterable, STATE_FILE=str(disk / "state.sqlite3")
    )
    if everything_on_it:
        program.settings |= {"LOG_FILE": str(disk / "run.log"), "RESULTS_DIR": str(disk)}
    running = program.start(settings={"USERS_UPDATE_RPS": "60"})
    wait_until(lambda: len(iterable.calls) >= 4)
    filler = use_up(disk)
    ending = running.ending(20.0)
    assert ending.status == 1, ending.output
    check_message(ending.stderr, f"The disk of the state file {disk}/state.sqlite3 is full")
    assert len(iterable.project.users) < 200
    if not everything_on_it:
        counts = counts_of(program.results)
        assert counts["not_attempted"] > 0
        assert counts.get("successful", 0) <= len(iterable.project.events)
    filler.unlink()
    ending = program.run()
    assert ending.status == 0, ending.output
    check_project(iterable.project, range(1, 201))
    assert program.run().status == 0
    assert counts_of(program.results) == {"unchanged": 200}


def test_a_full_results_folder_loses_the_results_file_and_nothing_else(
    embedded: SourceDatabase, iterable: IterableSandbox, tmp_path: Path, mount: Mount
) -> None:
    disk = mount("disk", 200)
    add_users(embedded.run_sql, range(1, 41))
    program = Program.between(tmp_path / "run", embedded, iterable, RESULTS_DIR=str(disk))
    filler = use_up(disk)
    ending = program.run()
    assert ending.status == 1, ending.output
    check_message(ending.stderr, f"The results cannot be written to {disk}")
    assert "The state file still has what was delivered" in ending.stderr
    assert [path.name for path in disk.iterdir()] == ["filler"]
    filler.unlink()
    assert program.run().status == 0
    assert counts_of(program.results) == {"unchanged": 40}
    check_project(iterable.project, range(1, 41))
    assert len(sent_calls(iterable)) == 80
