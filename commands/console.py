"""Printing to the terminal: output on standard output, messages on standard error.

Control characters are escaped in every line. Messages are redacted; JSON and values of rows are
not: no secret goes into them, and where a password is an ordinary word, redaction would change the
data and give the password away. The log is redacted in `logger_config`.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from typing import TextIO

from commands.colour import coloured, takes_colour
from logger_config import CONTROL_CHARACTERS, redact, redirect_to_devnull

_NOT_ASCII = re.compile(r"[^\x00-\x7f]")


def open_closed_streams() -> None:
    """Open /dev/null for each standard stream that the shell closed (`>&-`).

    Python has None in its place, and the next file to be opened would get its descriptor.
    """
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")  # noqa: SIM115 - until exit
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def print_line(
    line: str,
    out: TextIO | None = None,
    *,
    redacts_secrets: bool = True,
    colours: Mapping[str, str] | None = None,
) -> None:
    """Print a line. Once a line cannot be written, this and all later lines are discarded.

    The reason is printed on standard error, unless it is a closed pipe (`| head`). Characters that
    the terminal's encoding lacks are escaped. `colours` are patterns and styles for a terminal.
    """
    out = out or sys.stdout
    encoding = out.encoding or "utf-8"
    text = redact(line, secrets=redacts_secrets)
    text = text.encode(encoding, "backslashreplace").decode(encoding)
    if colours and takes_colour(out):
        text = coloured(text, colours)
    _write(text, out)


def print_prompt(question: str) -> None:
    """Print the text of a question on standard output; the answer follows on the same line."""
    encoding = sys.stdout.encoding or "utf-8"
    text = redact(question, secrets=False).encode(encoding, "backslashreplace").decode(encoding)
    _write(text, sys.stdout, end="")


def _write(line: str, out: TextIO, end: str = "\n") -> None:
    try:
        out.write(f"{line}{end}")
        out.flush()
    except OSError as error:
        redirect_to_devnull(out)
        if out is sys.stdout and not isinstance(error, BrokenPipeError):
            print_error(
                f"Standard output cannot be written ({error.strerror}): printing stops here."
            )


def print_text(text: str) -> None:
    """Print our own text of several lines; text from outside goes through print_line."""
    for line in text.split("\n"):
        print_line(line)


def print_payload(out: TextIO, endpoint: str, body: bytes) -> None:
    """Print a request of a dry run: the exact bytes that would be sent.

    Only control characters, and characters that the terminal's encoding lacks, are written as JSON
    escapes, which mean the same.
    """
    _write(f"{endpoint} {_safe_json(body.decode(), out)}", out)


def print_json(text: str) -> None:
    """Print JSON of several lines on standard output."""
    for line in text.split("\n"):
        _write(_safe_json(line, sys.stdout), sys.stdout)


def print_as_json(value: object) -> None:
    """Print a value as JSON of several lines on standard output."""
    print_json(json.dumps(value, indent=2, ensure_ascii=False))


def _safe_json(text: str, out: TextIO) -> str:
    text = CONTROL_CHARACTERS.sub(_to_json_escape, text)
    try:
        text.encode(out.encoding or "utf-8")
    except UnicodeEncodeError:
        text = _NOT_ASCII.sub(_to_json_escape, text)
    return text


def _to_json_escape(found: re.Match[str]) -> str:
    return json.dumps(found.group())[1:-1]


def print_error(line: str) -> None:
    """Print a line on standard error."""
    print_line(line, sys.stderr)
