"""The rotating log file and the console: line format, levels, file modes, disk errors."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from logger_config import BACKUP_COUNT, FILE_ONLY, LEVELS, MAX_BYTES, get_logger, setup_logger
from tests.support.logs import LINE, SetUp, log_file, set_up

__all__ = ["log_file", "set_up"]  # fixtures

ROOT = Path(__file__).resolve().parent.parent.parent


def mode_of(path: Path) -> int:
    return path.lstat().st_mode & 0o777


# Lines and levels


def test_a_line_has_the_documented_format(
    set_up: SetUp, log_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up().info("Message %s", "text")
    (line,) = log_file.read_text().splitlines()
    assert LINE.fullmatch(line)
    assert line.endswith(" - test_of_logging - INFO - Message text")
    captured = capsys.readouterr()
    assert captured.err == line + "\n"
    assert captured.out == ""


@pytest.mark.parametrize("level", LEVELS)
def test_the_level_applies_to_the_console_and_the_file_gets_everything(
    set_up: SetUp, log_file: Path, capsys: pytest.CaptureFixture[str], level: str
) -> None:
    logger = set_up(level.lower())
    for name in LEVELS:
        logger.log(getattr(logging, name), "a message")
    shown = [line.split(" - ")[2] for line in capsys.readouterr().err.splitlines()]
    written = [line.split(" - ")[2] for line in log_file.read_text().splitlines()]
    assert written == list(LEVELS)
    assert shown == list(LEVELS[LEVELS.index(level) :])


def test_an_unknown_level_is_refused_before_a_file_is_created(log_file: Path) -> None:
    with pytest.raises(ValueError, match=r"^unknown log level 'LOUD': use one of DEBUG, INFO,"):
        setup_logger("test_of_logging", log_file, "LOUD")
    assert not log_file.exists()


def test_a_file_that_cannot_be_created_raises_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        setup_logger("test_of_logging", tmp_path / "none" / "a.log")


def test_get_logger_returns_the_logger_that_was_set_up(set_up: SetUp, log_file: Path) -> None:
    assert get_logger("test_of_logging") is set_up()
    get_logger("test_of_logging.part").warning("from a part")
    assert " - test_of_logging.part - WARNING - from a part\n" in log_file.read_text()


def test_a_second_set_up_does_not_duplicate_lines(
    set_up: SetUp, log_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up()
    set_up().info("once")
    assert log_file.read_text().count("once") == 1
    assert capsys.readouterr().err.count("once") == 1


def test_a_child_logger_does_not_duplicate_lines(
    set_up: SetUp, log_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up()
    set_up(name="test_of_logging.part").warning("once")
    assert log_file.read_text().count("once") == 1
    assert capsys.readouterr().err.count("once") == 1


def test_a_file_only_record_is_not_printed(
    set_up: SetUp, log_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up().error("for the file", extra=FILE_ONLY)
    assert log_file.read_text().endswith(" - ERROR - for the file\n")
    assert capsys.readouterr().err == ""


def test_a_second_set_up_changes_file_and_level(
    set_up: SetUp, log_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up("DEBUG")
    other = tmp_path / "other.log"
    setup_logger("test_of_logging", other, "ERROR").info("later")
    assert "later" in other.read_text()
    assert "later" not in log_file.read_text()
    assert "later" not in capsys.readouterr().err


def test_lines_are_appended_to_an_existing_file(set_up: SetUp, log_file: Path) -> None:
    log_file.write_text("of an earlier run\n")
    set_up().info("of this run")
    assert [line.rsplit(" - ", 1)[-1] for line in log_file.read_text().splitlines()] == [
        "of an earlier run",
        "of this run",
    ]


def test_text_is_written_as_utf_8_and_lone_surrogates_are_escaped(
    set_up: SetUp, log_file: Path
) -> None:
    logger = set_up()
    logger.info("小龙 🚀 Amélie")
    logger.info("lone surrogate: \ud83d")
    lines = log_file.read_text("utf-8").splitlines()
    assert [line.rsplit(" - ", 1)[-1] for line in lines] == [
        "小龙 🚀 Amélie",
        r"lone surrogate: \ud83d",
    ]


def test_the_empty_name_sets_up_every_logger(log_file: Path) -> None:
    program = (
        "import logging, sys; from logger_config import setup_logger\n"
        "setup_logger('', sys.argv[1], 'WARNING')\n"
        "logging.getLogger('records').info('quiet'); logging.getLogger('bulk').warning('loud')\n"
        "logging.getLogger('urllib3').debug('chatter'); logging.getLogger('urllib3').warning('x')\n"
    )
    done = run_program(program, log_file)
    assert [line.split(" - ", 1)[1] for line in log_file.read_text().splitlines()] == [
        "records - INFO - quiet",
        "bulk - WARNING - loud",
        "urllib3 - WARNING - x",
    ]
    assert [line.split(" - ", 1)[1] for line in done.stderr.splitlines()] == [
        "bulk - WARNING - loud",
        "urllib3 - WARNING - x",
    ]


# The file


def test_the_file_rotates_at_ten_megabytes_and_keeps_five_backups(
    set_up: SetUp, log_file: Path
) -> None:
    assert (MAX_BYTES, BACKUP_COUNT) == (10_000_000, 5)
    for number in range(8):
        set_up().info("run %d", number)
        os.truncate(log_file, MAX_BYTES)  # as if 10 MB had been logged
    names = sorted(path.name for path in log_file.parent.iterdir())
    assert names == [log_file.name, *(f"{log_file.name}.{n}" for n in range(1, 6))]
    newest_backup = log_file.with_name(f"{log_file.name}.1")
    assert b"run 6" in newest_backup.read_bytes()[:200]


def test_a_line_that_just_fits_does_not_rotate_the_file(set_up: SetUp, log_file: Path) -> None:
    set_up().info("first")
    size = log_file.stat().st_size
    os.truncate(log_file, MAX_BYTES - size - 1)
    logger = set_up()
    logger.info("first")
    assert [path.name for path in log_file.parent.iterdir()] == [log_file.name]
    logger.info("first")
    assert len(list(log_file.parent.iterdir())) == 2


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_only_the_owner_can_read_the_log_whatever_the_umask(
    set_up: SetUp, log_file: Path, umask: int
) -> None:
    former = os.umask(umask)
    try:
        for number in range(3):
            set_up().info("run %d", number)
            os.truncate(log_file, MAX_BYTES)
    finally:
        os.umask(former)
    assert {path.name: mode_of(path) for path in log_file.parent.iterdir()} == {
        log_file.name: 0o600,
        f"{log_file.name}.1": 0o600,
        f"{log_file.name}.2": 0o600,
    }


def test_an_existing_log_is_closed_to_other_users(set_up: SetUp, log_file: Path) -> None:
    log_file.write_text("")
    log_file.chmod(0o644)
    set_up()
    assert mode_of(log_file) == 0o600


def test_a_device_keeps_its_mode(set_up: SetUp, log_file: Path) -> None:
    """With `LOG_FILE=/dev/null`, a run as root closed /dev/null to all other users."""
    terminal, device = os.openpty()
    try:
        os.fchmod(device, 0o646)
        log_file.symlink_to(os.ttyname(device))
        set_up().info("shown")
        assert os.fstat(device).st_mode & 0o777 == 0o646
    finally:
        os.close(device)
        os.close(terminal)


def test_a_link_of_ours_is_followed_and_the_log_rotates_where_it_leads(
    set_up: SetUp, log_file: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "log").write_bytes(b"\n" * MAX_BYTES)
    tmp_path.joinpath("link").symlink_to("data")
    log_file.symlink_to("link/../link/log")
    logger = set_up()
    logger.info("one more")
    assert sorted(path.name for path in data.iterdir()) == ["log", "log.1"]
    assert log_file.is_symlink()
    assert "one more" in log_file.read_text(encoding="utf-8")
    assert mode_of(data / "log") == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make links of other users")
@pytest.mark.parametrize("is_folder", [False, True])
def test_a_planted_link_was_followed_and_changed_the_mode_of_what_it_led_to(
    log_file: Path, tmp_path: Path, is_folder: bool
) -> None:
    victim = tmp_path / "precious" / log_file.name
    victim.parent.mkdir()
    victim.write_text("precious", encoding="ascii")
    victim.chmod(0o644)
    shared = tmp_path / "shared"
    link, target = (shared, victim.parent) if is_folder else (shared / log_file.name, victim)
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(target)
    os.chown(link, 4321, 4321, follow_symlinks=False)
    with pytest.raises(PermissionError) as caught:
        setup_logger("planted", shared / log_file.name)
    assert caught.value.strerror == (
        f"{link} is a symbolic link made by the user 4321, which is not followed; remove it or "
        "choose another file"
    )
    assert victim.read_text(encoding="ascii") == "precious"
    assert mode_of(victim) == 0o644


def test_links_in_a_circle_are_an_error_in_words(log_file: Path) -> None:
    log_file.symlink_to(log_file.with_name("other"))
    log_file.with_name("other").symlink_to(log_file)
    with pytest.raises(OSError, match="its symbolic links lead in a circle"):
        setup_logger("circle", log_file)


def test_the_log_can_go_to_standard_output() -> None:
    program = (
        "from logger_config import setup_logger\n"
        "setup_logger('x', '/dev/stdout', 'ERROR').info('to the pipe')\n"
    )
    assert run_program(program).stdout.endswith(" - x - INFO - to the pipe\n")


def test_a_log_that_cannot_be_rotated_keeps_growing(set_up: SetUp, log_file: Path) -> None:
    """Every line after the first 10 MB was lost."""
    log_file.with_name(f"{log_file.name}.4").write_text("")
    log_file.with_name(f"{log_file.name}.5").mkdir()  # cannot be replaced
    log_file.write_bytes(b"\n" * MAX_BYTES)
    logger = set_up()
    logger.info("one more")
    logger.info("and another")
    assert log_file.read_bytes().count(b"INFO") == 2


# Disk errors


def run_program(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_neither_stops_the_program_nor_prints_a_traceback() -> None:
    program = (
        "from logger_config import setup_logger\n"
        "for _ in range(2):\n"
        "    logger = setup_logger('x', '/dev/full', 'INFO')\n"
        "    for number in range(3):\n"
        "        logger.info('line %d', number)\n"
        "        for _ in range(500): logger.debug('for the file alone ' * 5)\n"
        "    try: 1 / 0\n"
        "    except ZeroDivisionError: logger.exception('a bug')\n"
    )
    done = run_program(program)
    assert [line[22:] for line in done.stderr.splitlines() if not line.startswith("  ")] == (
        ["x - INFO - line 0", "x - INFO - line 1", "x - INFO - line 2", "x - ERROR - a bug"] * 2
    )
    assert "No space left" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_logging_continues_when_the_disk_has_room_again(
    set_up: SetUp, log_file: Path, tmp_path: Path
) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    log_file.symlink_to("/dev/full")
    logger = set_up()
    logger.info("lost")
    log_file.unlink()
    logger.info("written")
    assert [line.rsplit(" - ")[-1] for line in log_file.read_text().splitlines()] == ["written"]
    assert [path.name for path in tmp_path.iterdir()] == [log_file.name]


def test_a_line_that_cannot_be_formatted_takes_no_other_line_with_it(tmp_path: Path) -> None:
    path = tmp_path / "log"
    logger = setup_logger("batch", path)
    logger.debug("the first is written at once")
    logger.debug("before")
    logger.debug("%d", "no number")
    logger.debug("after")
    for handler in logger.handlers:
        handler.flush()
    assert [line.split(" - ")[-1] for line in path.read_text().splitlines()] == [
        *("the first is written at once", "before", "after")
    ]
