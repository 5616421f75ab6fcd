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


class EndOfInputError(ConfigError):
    """The terminal was closed, or Ctrl-D pressed, instead of an answer."""

    def __init__(self) -> None:
        super().__init__(["The input ended before the last question. Nothing was written."])


class Option(NamedTuple):
    """One line of a numbered list."""

    name: str
    note: str = ""


def ask(question: str, default: str = "", *, may_be_empty: bool = False) -> str:
    """Return the answer without spaces at its ends; an empty one stands for the default."""
    prompt = f"{question} [{default}]: " if default else f"{question}: "
    while True:
        print_prompt(prompt)
        answer = _read_line().strip() or default
        problem = _problem_with(answer)
        if problem is None and (answer or may_be_empty):
            return answer
        print_line(f"  {problem or 'This needs an answer.'}")


def ask_secret(question: str, *, may_be_empty: bool = False) -> str:
    """Return a text that is typed without echo, exactly as typed."""
    while True:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", GetPassWarning)  # it would be echoed
                answer = getpass(f"{question} (is not shown): ")
        except EOFError:
            print_line("")
            raise EndOfInputError from None
        except UnicodeDecodeError:
            answer = "\udcff"
        except GetPassWarning:
            raise ConfigError(
                [
                    "This terminal shows what is typed, so no password is asked for. Nothing was "
                    "written: copy .env.example to .env and edit it."
                ]
            ) from None
        problem = _problem_with(answer)
        if problem is None and (answer or may_be_empty):
            return answer
        print_line(f"  {problem or 'This needs an answer.'}")


def ask_until_valid(ask_once: Callable[[], str], check: Callable[[str], object]) -> str:
    """Return the first answer for which `check` raises no ConfigError; print why not."""
    while True:
        answer = ask_once()
        try:
            check(answer)
        except ConfigError as error:
            for problem in error.problems:
                print_line(f"  {problem}")
        else:
            return answer


def choose(
    question: str, options: Sequence[Option], default: str = "", *, others: Sequence[str] = ()
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
        answer = ask(question, default)
        name = name_of(answer, [option.name for option in shown], names)
        if name is not None:
            return name
        print_line(f"  {answer} is neither a number of the list nor a name.", redacts_secrets=False)


def name_of(answer: str, numbered: Sequence[str], names: Sequence[str]) -> str | None:
    """Return the name that an answer means: a name, a number of the list, a name in other case."""
    if answer in names:
        return answer
    if answer.isdecimal() and len(answer) < 4 and 1 <= int(answer) <= len(numbered):
        return numbered[int(answer) - 1]
    alike = [name for name in names if name.strip().lower() == answer.lower()]
    return alike[0] if len(set(alike)) == 1 else None


def _read_line() -> str:
    line = sys.stdin.buffer.readline()
    if not line:
        print_line("")
        raise EndOfInputError
    return line.decode(sys.stdin.encoding or "utf-8", "surrogateescape")


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
