"""Atomic writing: file modes under any umask, and links or files that are in the way."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from commands.export import export_rows
from reporting.atomic_file import replace_file
from reporting.html_report import write_report
from reporting.measurements import Measurements
from reporting.metrics import write_metrics
from state.database import StateError, open_for_reading, open_state
from tests.reporting.test_html_report import SETTINGS
from tests.support.results import write_results
from tests.support.run_summaries import SUMMARY, summary_of

Write = Callable[[Path], Path]  # writes into a folder and returns the path


def results(folder: Path) -> Path:
    return write_results(folder, summary_of())


def report(folder: Path) -> Path:
    path = folder / "integration_results_20260113_143045.html"
    assert write_report(path, SUMMARY, [], Measurements(475.0), SETTINGS)
    return path


def export(folder: Path) -> Path:
    export_rows([[("email",), ("ann@example.com",)]], folder / "rows.csv")
    return folder / "rows.csv"


def metrics(folder: Path) -> Path:
    write_metrics(folder / "sync.prom", SUMMARY)
    return folder / "sync.prom"


# node_exporter, which reads the metrics, runs as another user.
WRITERS = [(results, 0o600), (report, 0o600), (export, 0o600), (metrics, 0o644)]
WITH_KNOWN_TEMPORARY_NAME = WRITERS[1:]  # that of the results is random


def part_of(path: Path) -> Path:
    """Return the temporary file that this process uses for `path`."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


@contextmanager
def umask(mask: int) -> Iterator[None]:
    previous = os.umask(mask)
    try:
        yield
    finally:
        os.umask(previous)


@pytest.mark.parametrize("mask", [0o000, 0o027, 0o077, 0o777])
@pytest.mark.parametrize(("write", "mode"), WRITERS)
def test_a_file_has_its_mode_under_any_umask(
    tmp_path: Path, write: Write, mode: int, mask: int
) -> None:
    """Under 777 the report and the export could not even be read by their owner."""
    with umask(mask):
        path = write(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("make", [os.symlink, os.link])
@pytest.mark.parametrize(("write", "mode"), WITH_KNOWN_TEMPORARY_NAME)
def test_a_link_with_the_temporary_name_is_not_written_through(
    tmp_path: Path, write: Write, mode: int, make: Callable[[Path, Path], None]
) -> None:
    """Through a hard link, report and metrics emptied another user's file."""
    path, victim = write(tmp_path), tmp_path / "precious"
    path.unlink()
    victim.write_text("precious")
    victim.chmod(0o640)
    make(victim, part_of(path))
    path = write(tmp_path)
    assert victim.read_text() == "precious"
    assert stat.S_IMODE(victim.stat().st_mode) == 0o640
    assert stat.S_IMODE(path.lstat().st_mode) == mode
    assert sorted(tmp_path.iterdir()) == sorted([path, victim])


@pytest.mark.parametrize(("write", "mode"), WITH_KNOWN_TEMPORARY_NAME)
def test_a_process_that_opened_the_temporary_name_before_reads_nothing(
    tmp_path: Path, write: Write, mode: int
) -> None:
    """In a folder that everyone may write to, another user could create the file beforehand."""
    path = write(tmp_path)
    path.unlink()
    with part_of(path).open("w+") as waiting:
        path = write(tmp_path)
        assert waiting.read() == ""
    assert path.stat().st_size > 0
    assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.parametrize(("write", "mode"), [(report, 0o600), (metrics, 0o644)])
@pytest.mark.parametrize("leads", ["somewhere", "nowhere"])
def test_a_link_with_the_final_name_is_replaced_and_not_written_through(
    tmp_path: Path, write: Write, mode: int, leads: str
) -> None:
    victim = tmp_path / "precious"
    if leads == "somewhere":
        victim.write_text("precious")
    path = write(tmp_path)
    path.unlink()
    path.symlink_to(victim)
    write(tmp_path)
    assert victim.exists() == (leads == "somewhere")
    assert not path.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_failing_block_leaves_no_file(tmp_path: Path) -> None:
    def fail() -> None:
        with replace_file(tmp_path / "results") as file:
            file.write(b"beginning")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Path]:
    """Yield a link to a device; check afterwards that neither has changed."""
    terminal, device = os.openpty()
    path = tmp_path / "device"
    path.symlink_to(os.ttyname(device))
    os.fchmod(device, 0o646)
    yield path
    assert path.is_symlink()
    assert stat.S_IMODE(os.fstat(device).st_mode) == 0o646
    os.close(device)
    os.close(terminal)


def test_metrics_do_not_replace_a_device(device: Path, caplog: pytest.LogCaptureFixture) -> None:
    """`METRICS_FILE=/dev/null`, run as root, replaced /dev/null with a file."""
    write_metrics(device, SUMMARY)
    assert caplog.messages == [f"METRICS_FILE {device} cannot be written: not a regular file"]


@pytest.mark.parametrize("open_it", [open_state, open_for_reading])
def test_a_device_is_refused_as_state_file(device: Path, open_it: Callable[[Path], object]) -> None:
    """`STATE_FILE=/dev/null`, run as root, made /dev/null unusable for others."""
    with pytest.raises(StateError, match=r"device is not a regular file"):
        open_it(device)
