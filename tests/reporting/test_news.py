"""The lines of `--quiet`, and the collection of warnings."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from logger_config import FILE_ONLY, failure_of
from records.rows import Failure
from reporting.news import (
    WarningCollector,
    failure_news,
    resolved_news,
    warning_news,
    without_numbers,
)

RESULTS = Path("/a/results.json")


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger("test_of_news")
    logger.propagate = False
    yield logger
    logger.handlers.clear()
    logger.propagate = True


def warned(collector: WarningCollector) -> list[str]:
    return list(collector.warnings.values())


def test_new_failures_are_grouped_by_reason_and_name_the_results_file() -> None:
    failures = [
        Failure("users/update", "rejected", "BadParams", 1_500, 7, "signupDate"),
        Failure("row", "invalid", "no e-mail address", 1, None),
    ]
    assert list(failure_news(failures, RESULTS)) == [
        "New failures by reason:",
        "      1,500 x users/update: BadParams, field signupDate (for example user 7)",
        "          1 x row: no e-mail address",
        "Each of these rows is in /a/results.json",
    ]
    assert list(failure_news([], RESULTS)) == []


@pytest.mark.parametrize(
    ("reasons", "results"), [(18, RESULTS), (19, None), (19, RESULTS), (500, None)]
)
def test_new_failures_take_twenty_lines_at_most(reasons: int, results: Path | None) -> None:
    failures = [Failure("row", "invalid", f"reason {n}", 2, n) for n in range(reasons)]
    lines = list(failure_news(failures, results))
    assert len(lines) == 20
    assert lines[1].endswith("reason 0 (for example user 0)")
    named = sum(": reason " in line for line in lines)
    rest = [line.split() for line in lines if line.endswith(" other reasons")]
    left = reasons - named
    assert rest == ([[str(2 * left), "x", str(left), "other", "reasons"]] if left else [])


@pytest.mark.parametrize(
    ("resolved", "failing", "runs_again", "line"),
    [
        (1, 0, False, "All is well again: 1 failure is resolved."),
        (1_200, 0, False, "All is well again: 1,200 failures are resolved."),
        (0, 0, True, "All is well again: a run reached its end again."),
        (
            *(2, 0, True),
            "All is well again: a run reached its end again and 2 failures are resolved.",
        ),
        (2, 1, False, "2 failures are resolved; 1 row still fails."),
        (0, 1_500, True, "A run reached its end again; 1,500 rows still fail."),
        (0, 0, False, None),
        (0, 7, False, None),
    ],
)
def test_one_line_says_that_something_works_again(
    resolved: int, failing: int, runs_again: bool, line: str | None
) -> None:
    news = resolved_news(resolved, failing, runs_again=runs_again, is_complete=True)
    assert list(news) == [line][: line is not None]


def test_a_run_that_ended_early_said_that_all_is_well() -> None:
    assert list(resolved_news(2, 0, runs_again=False, is_complete=False)) == [
        "2 failures are resolved."
    ]
    assert list(resolved_news(2, 1, runs_again=False, is_complete=False)) == [
        "2 failures are resolved; 1 row still fails."
    ]


def test_warnings_take_twenty_lines_at_most() -> None:
    assert list(warning_news(["one", "two"], None)) == ["Warning: one", "Warning: two"]
    many = [f"warning {n}" for n in range(25)]
    lines = list(warning_news(many, Path("/a/run.log")))
    assert lines[:19] == [f"Warning: warning {n}" for n in range(19)]
    assert lines[19:] == ["6 more warnings: see /a/run.log"]
    assert list(warning_news(many, None))[19:] == ["6 more warnings"]


# Collecting


def test_only_warnings_and_errors_are_collected_and_no_failed_attempts(
    logger: logging.Logger,
) -> None:
    collector = WarningCollector()
    logger.addHandler(collector)
    logger.info("an information")
    logger.warning("a warning about %s", "fields")
    logger.error("an error")
    logger.error("for the file", extra=FILE_ONLY)
    logger.warning("a failed attempt", extra=failure_of("users/update", "BadParams"))
    assert warned(collector) == ["a warning about fields", "an error"]


def test_warnings_that_differ_in_their_arguments_are_one(logger: logging.Logger) -> None:
    collector = WarningCollector()
    logger.addHandler(collector)
    for count in ("1,234", "7"):
        logger.warning("%s events lie in the future: is DB_TIMEZONE=%s right?", count, "UTC")
    assert warned(collector) == ["1,234 events lie in the future: is DB_TIMEZONE=UTC right?"]


def test_whole_texts_differ_in_their_words_but_not_in_their_numbers(
    logger: logging.Logger,
) -> None:
    collector = WarningCollector()
    logger.addHandler(collector)
    for text in ("3 rows, 1.5 s", "14 rows, 12:30 s", "4 columns"):
        logger.warning("%s", text)
    assert warned(collector) == ["3 rows, 1.5 s", "4 columns"]


def test_the_same_text_of_two_loggers_is_two_warnings(logger: logging.Logger) -> None:
    collector = WarningCollector()
    logger.addHandler(collector)
    logger.warning("same")
    logger.getChild("part").warning("same")
    assert warned(collector) == ["same", "same"]


def test_without_payloads_a_warning_names_no_address(logger: logging.Logger) -> None:
    collector = WarningCollector(redact_emails=True)
    logger.addHandler(collector)
    logger.warning("about %s", "ann@example.com")
    assert warned(collector) == ["about [e-mail]"]


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("12 rows; the last 9 runs had 24,100 to 25,300.", "# rows; the last # runs had # to #."),
        ("process 4711 on host7, started 2026-01-13 14:30:45+00:00", None),
        ("no numbers", "no numbers"),
    ],
)
def test_numbers_are_left_out_of_what_is_compared(text: str, form: str | None) -> None:
    if form is not None:
        assert without_numbers(text) == form
    assert not any(letter.isdigit() for letter in without_numbers(text))
