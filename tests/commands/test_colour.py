"""Colour is for terminals only; everywhere else a line stays as it is, byte for byte."""

from __future__ import annotations

import io
import re

import pytest

from commands.check.line import failed, passed, warned
from commands.colour import CHECK_COLOURS, SUMMARY_COLOURS
from commands.console import print_line
from records.outcomes import Outcome
from records.rows import Failure
from reporting.summary import summary_lines
from tests.support.run_summaries import summary_of
from tests.support.terminal import Terminal

CODE = re.compile(r"\x1b\[[0-9;]*m")
CHECKS = [passed("log", "x"), warned("disk", "low"), failed("database", "ok, but FAILED")]
FAILURES = [Failure("users/update", "rejected", "BadParams", 2, 7)]


@pytest.fixture(autouse=True)
def colour_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)


def lines_of_a_summary(*outcomes: Outcome, status: str = "completed") -> list[str]:
    return summary_lines(summary_of(*outcomes, status=status), FAILURES, [])


def on_a_terminal(line: str, colours: dict[str, str]) -> str:
    terminal = Terminal()
    print_line(line, terminal.stream, colours=colours)
    return terminal.output().replace("\r\n", "")


def colours_of(line: str) -> set[str]:
    """Return the names of the colours in which a line of a summary stands on a terminal."""
    codes = set(CODE.findall(on_a_terminal(line, dict(SUMMARY_COLOURS)))) - {"\x1b[0m"}
    names = {"31": "red", "32": "green", "33": "yellow"}
    return {names[code[2:-1].rpartition(";")[2]] for code in codes}


def test_a_check_line_shows_its_result_in_colour_and_the_rest_as_it_is() -> None:
    shown = [on_a_terminal(str(line), dict(CHECK_COLOURS)) for line in CHECKS]
    assert [CODE.sub("", line) for line in shown] == [str(line) for line in CHECKS]
    assert [CODE.findall(line)[0] for line in shown] == ["\x1b[32m", "\x1b[33m", "\x1b[1;31m"]
    assert [len(CODE.findall(line)) for line in shown] == [2, 2, 2]


@pytest.mark.parametrize(
    ("status", "outcome", "colour"),
    [
        ("completed", Outcome.SUCCESSFUL, "green"),
        ("completed", Outcome.INVALID, "yellow"),
        ("aborted", Outcome.NOT_ATTEMPTED, "red"),
        ("interrupted", Outcome.NOT_ATTEMPTED, "red"),
    ],
)
def test_the_heading_of_a_summary_shows_how_the_run_ended(
    status: str, outcome: Outcome, colour: str
) -> None:
    assert colours_of(lines_of_a_summary(outcome, status=status)[0]) == {colour}


@pytest.mark.parametrize(
    ("heading", "colour"),
    [
        ("Run of shop-eu completed", "green"),
        ("Run of shop-eu completed with failures", "yellow"),
        ("Run of shop-eu aborted", "red"),
        ("Dry run completed: 8,360 profiles would be sent", "green"),
        ("Dry run completed with failures: 8,360 profiles would be sent", "yellow"),
    ],
)
def test_a_heading_may_name_the_sync_and_say_more(heading: str, colour: str) -> None:
    assert colours_of(heading) == {colour}


def test_counts_that_are_zero_have_no_colour() -> None:
    counts = {
        line.rsplit(None, 1)[0].strip(): line for line in lines_of_a_summary(Outcome.INVALID)[2:10]
    }
    assert {name: colours_of(line) for name, line in counts.items() if colours_of(line)} == {
        "invalid": {"red"}
    }


def test_every_line_of_a_summary_says_the_same_in_colour() -> None:
    for line in lines_of_a_summary(*Outcome):
        assert CODE.sub("", on_a_terminal(line, dict(SUMMARY_COLOURS))) == line
    (reason,) = [line for line in lines_of_a_summary(*Outcome) if " x users/update" in line]
    assert colours_of(reason) == {"red"}


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb"), ("TERM", "")])
def test_a_user_can_do_without_colour(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    for line in lines_of_a_summary(*Outcome):
        assert on_a_terminal(line, dict(SUMMARY_COLOURS)) == line


def test_a_file_gets_no_colour() -> None:
    for line in (*lines_of_a_summary(*Outcome), *map(str, CHECKS)):
        out = io.StringIO()
        print_line(line, out, colours={**SUMMARY_COLOURS, **CHECK_COLOURS})
        assert out.getvalue() == f"{line}\n"


def test_a_value_cannot_add_colour_or_markup() -> None:
    line = "FAILED   query          [bold]x[/bold] \x1b[35m :smile: " + "long " * 80
    shown = on_a_terminal(line, dict(CHECK_COLOURS))
    assert CODE.sub("", shown) == line.replace("\x1b", "\\x1b")
