"""Failures of one kind on the console: three of them, then a count a minute; the file has all."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from logger_config import FILE_ONLY, failure_of, setup_logger
from tests.support.logs import SetUp, log_file, set_up

__all__ = ["log_file", "set_up"]  # fixtures

ROOT = Path(__file__).resolve().parent.parent.parent
BEGAN_AT = 1_768_314_645.0


def fail(
    logger: logging.Logger,
    text: str,
    at_seconds: float = 0.0,
    *,
    code: object = "BadParams",
    level: int = logging.ERROR,
) -> None:
    """Log a failure of users/update, so long after the beginning."""
    record = {
        **{"name": logger.name, "levelno": level, "levelname": logging.getLevelName(level)},
        **{"msg": text, "created": BEGAN_AT + at_seconds, **failure_of("users/update", code)},
    }
    logger.handle(logging.makeLogRecord(record))


def messages(lines: str) -> list[str]:
    return [line.split(" - ", 2)[2] for line in lines.splitlines()]


def test_the_console_shows_three_failures_of_a_kind_and_then_a_count_a_minute(
    set_up: SetUp, log_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = set_up()
    for number in range(1_300):
        fail(logger, f"failure {number}", number / 10)
    assert messages(capsys.readouterr().err) == [
        *("ERROR - failure 0", "ERROR - failure 1", "ERROR - failure 2"),
        f"ERROR - users/update BadParams: 600 more in the last 60 s (each one is in {log_file})",
        f"ERROR - users/update BadParams: 600 more in the last 60 s (each one is in {log_file})",
    ]
    assert messages(log_file.read_text()) == [f"ERROR - failure {n}" for n in range(1_300)]


def test_the_count_named_a_file_whose_level_leaves_failures_out(
    log_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = setup_logger("test_of_counts", log_file, file_level="ERROR")
    for number in range(604):
        fail(logger, f"failure {number}", number / 10, level=logging.WARNING)
    assert messages(capsys.readouterr().err)[-1] == (
        "WARNING - users/update BadParams: 600 more in the last 60 s"
    )
    setup_logger("test_of_counts", None, "CRITICAL")


def test_each_kind_of_failure_is_counted_on_its_own(
    set_up: SetUp, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = set_up()
    for number in range(5):
        fail(logger, f"a{number}", code="BadParams")
        fail(logger, f"b{number}", code="ForgottenUserError")
    shown = [f"ERROR - {kind}{number}" for number in range(3) for kind in "ab"]
    assert messages(capsys.readouterr().err) == shown


def test_a_count_has_the_level_of_the_worst_failure_in_it(
    set_up: SetUp, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = set_up()
    for second in (*range(10), 70):
        level = logging.ERROR if second == 7 else logging.WARNING
        fail(logger, "failed", second, code=None, level=level)
    assert messages(capsys.readouterr().err)[3].startswith("ERROR - users/update None: 8 more in ")


def test_other_warnings_are_all_shown(set_up: SetUp, capsys: pytest.CaptureFixture[str]) -> None:
    logger = set_up()
    for number in range(10):
        fail(logger, "a failure")
        logger.warning("the same warning")
        logger.error("error %d", number)
    shown = messages(capsys.readouterr().err)
    assert shown.count("WARNING - the same warning") == 10
    assert [line for line in shown if "error " in line] == [f"ERROR - error {n}" for n in range(10)]


@pytest.mark.parametrize("level", ["DEBUG", "ERROR"])
def test_a_console_with_everything_and_one_without_a_log_file_show_each_failure(
    log_file: Path, capsys: pytest.CaptureFixture[str], level: str
) -> None:
    logger = setup_logger("all_failures", log_file if level == "DEBUG" else None, level)
    for number in range(10):
        fail(logger, f"failure {number}", 100.0 * number)
    assert messages(capsys.readouterr().err) == [f"ERROR - failure {n}" for n in range(10)]
    setup_logger("all_failures", None, "CRITICAL")


def test_without_a_log_file_the_console_gets_what_is_for_the_file_only(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logger = setup_logger("no_file", None, "INFO", file_level="DEBUG")
    logger.info("for the file", extra=FILE_ONLY)
    logger.debug("too detailed")
    assert messages(capsys.readouterr().err) == ["INFO - for the file"]
    assert not logger.isEnabledFor(logging.DEBUG)


def test_failures_below_the_level_of_the_console_are_not_counted(
    set_up: SetUp, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = set_up("ERROR")
    for second in range(200):
        fail(logger, "retried", second, level=logging.WARNING)
    fail(logger, "final", 200)
    assert messages(capsys.readouterr().err) == ["ERROR - final"]


def test_the_last_count_is_shown_on_demand_and_only_once(log_file: Path) -> None:
    program = (
        "import logging, sys; from logger_config import *\n"
        "from logger_config import show_failure_counts\n"
        "setup_logger('', sys.argv[1], 'INFO')\n"
        "show_failure_counts()\n"
        "for n in range(1_003):\n"
        "    logging.error('failure %d', n, extra=failure_of('events/track', 502))\n"
        "show_failure_counts(); show_failure_counts()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(log_file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert messages(done.stderr)[3:] == [
        f"ERROR - events/track 502: 1,000 more in the last 1 s (each one is in {log_file})"
    ]
    assert len(log_file.read_text().splitlines()) == 1_003


# Levels of the file


def test_the_file_gets_its_own_level_and_up(set_up: SetUp, log_file: Path) -> None:
    set_up()
    logger = setup_logger("test_of_logging", log_file, "ERROR", file_level="info")
    for level in ("debug", "info", "warning", "error"):
        getattr(logger, level)(level)
    assert messages(log_file.read_text()) == ["INFO - info", "WARNING - warning", "ERROR - error"]
    assert not logger.isEnabledFor(logging.DEBUG)  # so that lines nobody wants cost nothing


def test_a_console_more_detailed_than_the_file_gets_its_lines(
    set_up: SetUp, log_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up()
    logger = setup_logger("test_of_logging", log_file, "DEBUG", file_level="ERROR")
    logger.debug("details")
    assert messages(capsys.readouterr().err) == ["DEBUG - details"]
    assert log_file.read_text() == ""


def test_an_unknown_level_of_the_file_is_refused_before_it_is_created(log_file: Path) -> None:
    with pytest.raises(ValueError, match=r"^unknown log level 'LOUD'"):
        setup_logger("test_of_logging", log_file, file_level="LOUD")
    assert not log_file.exists()
