"""Results files on disk: names, modes, failed writes, and the removal of old ones."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import orjson
import pytest

from records.outcomes import Outcome
from reporting.atomic_file import NewFile
from reporting.results_file import ResultsError, ResultsFile, remove_old_results
from tests.support.results import rows_of, write_results
from tests.support.run_summaries import STARTED_AT, summary_of

ROOT = Path(__file__).resolve().parent.parent.parent


def test_the_file_name_is_the_local_start_time(tmp_path: Path) -> None:
    path = write_results(tmp_path, summary_of())
    assert path.name == STARTED_AT.astimezone().strftime("integration_results_%Y%m%d_%H%M%S.json")


def test_a_second_run_in_the_same_second_overwrites_nothing(tmp_path: Path) -> None:
    paths = [write_results(tmp_path, summary_of(run_id=name)) for name in ("a", "b", "c")]
    stem = paths[0].stem
    assert [path.name for path in paths] == [f"{stem}.json", f"{stem}_2.json", f"{stem}_3.json"]
    assert [orjson.loads(path.read_bytes())["run_id"] for path in paths] == ["a", "b", "c"]
    assert sorted(tmp_path.iterdir()) == sorted(paths)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_only_the_owner_can_read_the_file_under_any_umask(tmp_path: Path, umask: int) -> None:
    previous = os.umask(umask)
    try:
        path = write_results(tmp_path, summary_of())
    finally:
        os.umask(previous)
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("leads", ["somewhere", "nowhere"])
def test_a_link_with_the_final_name_is_not_followed(tmp_path: Path, leads: str) -> None:
    victim = tmp_path / "precious"
    if leads == "somewhere":
        victim.write_text("precious")
    link = write_results(tmp_path, summary_of())
    link.unlink()
    link.symlink_to(victim)
    path = write_results(tmp_path, summary_of())
    assert path.name.endswith("_2.json")
    assert victim.exists() == (leads == "somewhere")
    assert link.is_symlink()


def test_a_file_that_is_not_finished_leaves_nothing_behind(tmp_path: Path) -> None:
    results = ResultsFile(tmp_path, STARTED_AT)
    results.append(rows_of(Outcome.SUCCESSFUL))
    assert len(list(tmp_path.iterdir())) == 1
    results.discard()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("make", "why"), [(None, "No such file or directory"), ("file", "Not a directory")]
)
def test_a_folder_that_cannot_be_written_to_is_one_line(
    tmp_path: Path, make: str | None, why: str
) -> None:
    folder = tmp_path / "results"
    if make:
        folder.write_text("")
    with pytest.raises(ResultsError) as raised:
        write_results(folder, summary_of())
    assert str(raised.value) == (
        f"The results cannot be written to {folder} ({why}): free disk space or choose "
        "another RESULTS_DIR. The state file still has what was delivered."
    )


def test_a_full_disk_is_one_line_and_leaves_no_file(tmp_path: Path) -> None:
    program = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from records.outcomes import Outcome\n"
        "from reporting.results_file import ResultsError\n"
        "from tests.support.results import rows_of, write_results\n"
        "from tests.support.run_summaries import summary_of\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "rows = [Outcome.UNCHANGED] * 1_000\n"
        "try: write_results(Path(sys.argv[1]), summary_of(*rows), rows_of(*rows))\n"
        "except ResultsError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.startswith(f"The results cannot be written to {tmp_path} (File too large)")
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


# Old files


def old_results(folder: Path, names: Iterable[str], size: int = 0) -> list[Path]:
    """Create these files of `size` bytes; the first is the oldest."""
    paths = [folder / name for name in names]
    for age, path in enumerate(paths):
        path.write_bytes(bytes(size))
        os.utime(path, (1_000 + age, 1_000 + age))
    return paths


NAMES = [f"integration_results_2026010{day}_000000.json" for day in range(1, 7)]


@pytest.mark.parametrize(("keep", "left"), [(0, 6), (1, 1), (4, 4), (6, 6), (100, 6)])
def test_the_newest_files_are_kept(tmp_path: Path, keep: int, left: int) -> None:
    paths = old_results(tmp_path, NAMES)
    assert remove_old_results(tmp_path, keep, paths[-1]) == 6 - left
    assert sorted(tmp_path.iterdir()) == paths[6 - left :]


@pytest.mark.parametrize(
    ("keep", "keep_bytes", "left"),
    [
        *((0, 0, 6), (0, 300, 3), (0, 299, 2), (0, 1, 1), (0, 600, 6)),
        *((2, 300, 2), (4, 300, 3), (1, 300, 1)),  # whichever is reached first
    ],
)
def test_the_newest_files_are_kept_up_to_a_size(
    tmp_path: Path, keep: int, keep_bytes: int, left: int
) -> None:
    paths = old_results(tmp_path, NAMES, size=100)
    assert remove_old_results(tmp_path, keep, paths[-1], keep_bytes=keep_bytes) == 6 - left
    assert sorted(tmp_path.iterdir()) == paths[6 - left :]


def test_a_report_counts_towards_the_size_of_its_results(tmp_path: Path) -> None:
    paths = old_results(tmp_path, NAMES, size=50)
    old_results(tmp_path, [name.replace(".json", ".html") for name in NAMES], size=50)
    assert remove_old_results(tmp_path, 0, paths[-1], keep_bytes=299) == 4
    assert {path.stem for path in tmp_path.iterdir()} == {path.stem for path in paths[4:]}
    assert len(list(tmp_path.iterdir())) == 4


def test_no_small_file_outlasts_a_newer_one_that_was_too_large(tmp_path: Path) -> None:
    paths = old_results(tmp_path, NAMES, size=1)
    paths[3].write_bytes(bytes(1_000))
    os.utime(paths[3], (1_003, 1_003))
    assert remove_old_results(tmp_path, 0, paths[-1], keep_bytes=500) == 4
    assert sorted(tmp_path.iterdir()) == paths[4:]


def test_a_report_is_removed_with_its_results(tmp_path: Path) -> None:
    paths = old_results(tmp_path, NAMES)
    reports = old_results(tmp_path, [name.replace(".json", ".html") for name in NAMES])
    remove_old_results(tmp_path, 2, paths[-1])
    assert sorted(path for path in tmp_path.iterdir() if path.suffix == ".html") == reports[4:]


def test_other_files_are_not_removed(tmp_path: Path) -> None:
    others = [
        *("integration_results.json", "integration_results_20260101_000000.json.bak"),
        *("integration_results_2026_1.json", "my_integration_results_20260101_000000.json"),
        *("integration_results_20260101_000000.1.part", "iterable_integration.log"),
    ]
    paths = old_results(tmp_path, [*others, *NAMES, "integration_results_20260101_000000_2.json"])
    assert remove_old_results(tmp_path, 1, paths[-1]) == 6
    assert {path.name for path in tmp_path.iterdir()} == {
        *others,
        "integration_results_20260101_000000_2.json",
    }


def test_a_link_among_old_results_is_removed_and_its_target_is_not(tmp_path: Path) -> None:
    folder, victim = tmp_path / "results", tmp_path / "precious"
    folder.mkdir()
    victim.write_text("precious")
    (folder / NAMES[0]).symlink_to(victim)
    os.utime(folder / NAMES[0], (1, 1), follow_symlinks=False)
    paths = old_results(folder, NAMES[1:3])
    assert remove_old_results(folder, 2, paths[-1]) == 1
    assert victim.read_text() == "precious"


def test_one_name_that_cannot_be_removed_does_not_stop_the_others(tmp_path: Path) -> None:
    """The first such name ended the removal, in every run."""
    (tmp_path / NAMES[2]).mkdir()
    os.utime(tmp_path / NAMES[2], (1_002, 1_002))
    paths = old_results(tmp_path, [name for name in NAMES if name != NAMES[2]])
    assert remove_old_results(tmp_path, 1, paths[-1]) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == [NAMES[2], NAMES[5]]


@pytest.mark.parametrize("keep", [0, 1])
def test_temporary_files_of_killed_runs_are_removed(tmp_path: Path, keep: int) -> None:
    (written,) = old_results(tmp_path, NAMES[:1])
    abandoned, in_use = (tmp_path / f".{NAMES[0][:-5]}.{number}.part" for number in (1, 2))
    report = tmp_path / f".{NAMES[0][:-5]}.html.1.part"
    new = tmp_path / f".{NAMES[0][:-5]}.html.2.part"
    for path, modified_at in (
        *((abandoned, 1), (report, 1), (in_use, 1)),
        *((new, 6_950), (written, 7_000)),
    ):
        path.write_text("")
        os.utime(path, (modified_at, modified_at))
    with in_use.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        remove_old_results(tmp_path, keep, written)
    assert set(tmp_path.iterdir()) == {in_use, new, written}
    remove_old_results(tmp_path, keep, written)
    assert set(tmp_path.iterdir()) == {new, written}


def test_the_file_of_a_run_that_is_still_going_on_is_kept(tmp_path: Path) -> None:
    results = ResultsFile(tmp_path, STARTED_AT)
    results.append(rows_of(Outcome.SUCCESSFUL))
    (part,) = tmp_path.iterdir()
    os.utime(part, (1, 1))
    (written,) = old_results(tmp_path, NAMES[:1])
    remove_old_results(tmp_path, 1, written)
    assert results.finish(summary_of(Outcome.SUCCESSFUL)).exists()


@pytest.mark.parametrize("row_count", [10, 30_000])
def test_two_runs_with_one_process_id_in_two_containers_write_their_own_files(
    tmp_path: Path, row_count: int
) -> None:
    """The second run removed the first one's temporary file, which then got its name."""
    runs = [ResultsFile(tmp_path, STARTED_AT) for _ in range(2)]
    kinds = (Outcome.UNCHANGED, Outcome.SUCCESSFUL)
    for run, outcome in zip(runs, kinds, strict=True):
        run.append(rows_of(*[outcome] * row_count))
    for run, outcome in zip(runs, kinds, strict=True):
        content = orjson.loads(run.finish(summary_of(*[outcome] * row_count)).read_bytes())
        assert {record["outcome"] for record in content["records"]} == {outcome}
    assert len(list(tmp_path.iterdir())) == 2


def test_a_pipe_with_the_name_of_a_temporary_file_is_not_waited_for(tmp_path: Path) -> None:
    """In a folder that others may write to, it held up the end of every run."""
    (written,) = old_results(tmp_path, NAMES[:1])
    pipe = tmp_path / f".{NAMES[0]}.1.part"
    os.mkfifo(pipe)
    os.utime(pipe, (1, 1))
    os.utime(written, (7_000, 7_000))
    remove_old_results(tmp_path, 1, written)
    assert list(tmp_path.iterdir()) == [written]


@pytest.mark.parametrize("is_large", [False, True])
@pytest.mark.parametrize("reason", [None, "why " * 1_000])
def test_the_head_is_written_last_into_a_file_of_any_size(
    tmp_path: Path, is_large: bool, reason: str | None
) -> None:
    outcomes = [Outcome.UNCHANGED] * (30_000 if is_large else 10)
    path = write_results(tmp_path, summary_of(*outcomes, reason=reason), rows_of(*outcomes))
    assert (path.stat().st_size > NewFile.MAX_COPIED_BYTES) == is_large
    content = orjson.loads(path.read_bytes())
    assert content["reason"] == reason
    assert [record["user_id"] for record in content["records"]] == list(range(len(outcomes)))
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_ignored(tmp_path: Path) -> None:
    assert remove_old_results(tmp_path / "none", 1, tmp_path / "none" / NAMES[0]) == 0


@pytest.mark.parametrize("keep", [1, 3])
def test_the_file_just_written_is_kept_though_others_seem_newer(tmp_path: Path, keep: int) -> None:
    """It was removed at once after the clock had been ahead."""
    paths = old_results(tmp_path, NAMES)
    os.utime(paths[0], (1, 1))
    remove_old_results(tmp_path, keep, paths[0])
    assert sorted(tmp_path.iterdir()) == sorted([paths[0], *paths[len(paths) - keep + 1 :]])


def test_files_from_a_clock_that_was_ahead_are_removed_first(
    tmp_path: Path,
) -> None:
    paths = old_results(tmp_path, NAMES)
    for ahead in paths[:3]:
        os.utime(ahead, (4e9, 4e9))
    remove_old_results(tmp_path, 3, paths[5])
    assert sorted(tmp_path.iterdir()) == paths[3:]
