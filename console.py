"""Lines for people: on standard output what was asked for, on standard error what went wrong.

Owns that nothing from outside reaches a terminal as anything but text, and no secret at all.
Log lines are `logger_config`'s.
"""

from __future__ import annotations

import os
import sys
from typing import TextIO

from logger_config import printable, without_secrets


def print_line(line: str, out: TextIO | None = None) -> None:
    """Print a line; a reader that has left (`| head`) ends the printing, not the program.

    What the terminal's encoding does not have is spelled out, as Python does on standard error.
    """
    out = out or sys.stdout
    encoding = out.encoding or "utf-8"
    text = printable(without_secrets(line)).encode(encoding, "backslashreplace").decode(encoding)
    try:
        out.write(f"{text}\n")
        out.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())


def print_text(text: str) -> None:
    """Print several lines of our own: a line end in words from outside would forge one."""
    for line in text.split("\n"):
        print_line(line)


def print_payload(out: TextIO, endpoint: str, body: bytes) -> None:
    """Print what would be sent."""
    print_line(f"{endpoint} {body.decode()}", out)


def say(line: str) -> None:
    """Say on standard error what the operator has to know."""
    print_line(line, sys.stderr)
