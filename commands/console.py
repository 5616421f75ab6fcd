"""Lines for people: on standard output what was asked for, on standard error what went wrong.

Owns that nothing from outside reaches a terminal as anything but text, and no secret at all.
Log lines are `logger_config`'s.
"""

from __future__ import annotations

import os
import sys
from typing import TextIO

from logger_config import printable, redact, redirect_to_devnull


def open_closed_streams() -> None:
    """Have what was closed before the program began (`>&-`) lead to nowhere.

    Python then has None in its place, and the next file to be opened would get its number.
    """
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")  # noqa: SIM115 - to the end
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def print_line(line: str, out: TextIO | None = None) -> None:
    """Print a line; a reader that has left (`| head`) ends the printing, not the program.

    So does a full disk behind the stream, which is said on standard error. What the terminal's
    encoding does not have is spelled out, as Python does on standard error.
    """
    out = out or sys.stdout
    encoding = out.encoding or "utf-8"
    text = printable(redact(line)).encode(encoding, "backslashreplace").decode(encoding)
    try:
        out.write(f"{text}\n")
        out.flush()
    except OSError as error:
        redirect_to_devnull(out)
        if out is sys.stdout and not isinstance(error, BrokenPipeError):
            print_error(
                f"Standard output cannot be written ({error.strerror}): its lines end here."
            )


def print_text(text: str) -> None:
    """Print several lines of our own: a line end in words from outside would forge one."""
    for line in text.split("\n"):
        print_line(line)


def print_payload(out: TextIO, endpoint: str, body: bytes) -> None:
    """Print what would be sent."""
    print_line(f"{endpoint} {body.decode()}", out)


def print_error(line: str) -> None:
    """Print a line on standard error."""
    print_line(line, sys.stderr)
