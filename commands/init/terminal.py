"""Questions on the terminal: a text, a secret without echo, a choice from a numbered list."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from getpass import GetPassWarning, getpass
from typing import NamedTuple

from commands.console import print_line, print_prompt
from errors import ConfigError

SHOWN_OPTIONS = 12
# A line of `.env` may have 8,000 characters, and quoting can double a value.
MAX_ANSWER_CHARACTERS = 2_000
_SHOWS_SECRETS = (
    "This terminal would show the password while it is typed, so it is not asked for. Nothing was "
    "written: copy .env.example to .env and edit it."
)


class EndOfInputError(ConfigError):
    """The terminal was closed, or Ctrl-D pressed, instead of an answer."""

    def __init__(self) -> None:
        super().__init__(["The input ended before the last question. Nothing was written."])


class Option(NamedTuple):
    """One line of a numbered list."""

    name: str
    note: str = ""


class Terminal:
    """Prints questions on standard output, and reads the answers with the two functions.

    `read_line` returns a line with its end, b"" at the end of the input; `read_secret` prints the
    question that it gets, and raises EOFError at the end.
    """

    def __init__(
        self,
        read_line: Callable[[], bytes] | None = None,
        read_secret: Callable[[str], str] | None = None,
    ) -> None:
        self._read_line = read_line or sys.stdin.buffer.readline
        self._read_secret = read_secret or _read_without_echo

    def ask(self, question: str, default: str = "") -> str:
        """Return the answer without spaces at its ends; an empty one stands for the default."""
        prompt = f"{question} [{default}]: " if default else f"{question}: "
        while True:
            print_prompt(prompt)
            line = self._read_line()
            if not line:
                print_line("")
                raise EndOfInputError
            text = line.decode(sys.stdin.encoding or "utf-8", "surrogateescape")
            answer = text.strip() or default
            if _is_usable(answer, may_be_empty=False):
                return answer

    def ask_secret(self, question: str, *, may_be_empty: bool = False) -> str:
        """Return a text that is typed without echo, exactly as typed."""
        while True:
            try:
                answer = self._read_secret(f"{question} (is not shown): ")
            except EOFError:
                print_line("")
                raise EndOfInputError from None
            except UnicodeDecodeError:
                answer = "\udcff"  # no text either
            if _is_usable(answer, may_be_empty=may_be_empty):
                return answer

    def choose(
        self,
        question: str,
        options: Sequence[Option],
        default: str = "",
        *,
        others: Sequence[str] = (),
    ) -> str:
        """Return the name of an option, which is answered by its number or its name.

        Only the first options are listed; the others, and the names in `others`, can be typed.
        """
        shown = options[:SHOWN_OPTIONS]
        width = max((len(option.name) for option in shown), default=0)
        for number, option in enumerate(shown, 1):
            line = f"  {number:>2}  {option.name:<{width}}  {option.note}".rstrip()
            print_line(line, redacts_secrets=False)
        if len(options) > len(shown):
            print_line(f"      {len(options) - len(shown):,} more: type a name")
        names = [*(option.name for option in options), *others]
        while True:
            answer = self.ask(question, default)
            name = name_of(answer, [option.name for option in shown], names)
            if name is not None:
                return name
            print_line(
                f"  {answer} is neither a number of the list nor a name.", redacts_secrets=False
            )


def _read_without_echo(prompt: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("error", GetPassWarning)  # what is typed would be shown
        try:
            return getpass(prompt)
        except GetPassWarning:
            raise ConfigError([_SHOWS_SECRETS]) from None


def name_of(answer: str, numbered: Sequence[str], names: Sequence[str]) -> str | None:
    """Return the name that an answer means: a name, a number of the list, a name in other case."""
    if answer in names:
        return answer
    if answer.isdecimal() and len(answer) < 4 and 1 <= int(answer) <= len(numbered):
        return numbered[int(answer) - 1]
    alike = [name for name in names if name.strip().lower() == answer.lower()]
    return alike[0] if len(set(alike)) == 1 else None


def _is_usable(answer: str, *, may_be_empty: bool) -> bool:
    """Return whether a setting can hold the answer; if not, print why."""
    problem = _problem_with(answer)
    if problem is None and not answer and not may_be_empty:
        problem = "This needs an answer."
    if problem is not None:
        print_line(f"  {problem}")
    return problem is None


def _problem_with(answer: str) -> str | None:
    if len(answer) > MAX_ANSWER_CHARACTERS:
        return f"This is longer than {MAX_ANSWER_CHARACTERS:,} characters."
    if any(character in answer for character in "\0\r\n"):
        return "This has a character that no setting can hold."
    try:
        answer.encode()
    except UnicodeEncodeError:
        return "This is not text in the encoding of the terminal: type it again."
    return None
