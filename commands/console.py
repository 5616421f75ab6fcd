"""Printing to the terminal: output on standard output, messages on standard error.

Every line is redacted, and its control characters are escaped. The log is
redacted in `logger_config`.
"""

from __future__ import annotations

import os
import sys
from typing import TextIO

from logger_config import redact, redirect_to_devnull


def open_closed_streams() -> None:
    """Open /dev/null for each standard stream that the shell closed (`>&-`).

    Python has None in its place, and the next file to be opened would get its descriptor.
    """
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")  # noqa: SIM115 - until exit
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def print_line(line: str, out: TextIO | None = None) -> None:
    """Print a line. Once a line cannot be written, this and all later lines are discarded.

    The reason is printed on standard error, unless it is a closed pipe (`| head`). Characters that
    the terminal's encoding lacks are escaped.
    """
    out = out or sys.stdout
    encoding = out.encoding or "utf-8"
    text = redact(line).encode(encoding, "backslashreplace").decode(encoding)
    try:
        out.write(f"{text}\n")
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
    """Print a request of a dry run."""
    print_line(f"{endpoint} {body.decode()}", out)


def print_error(line: str) -> None:
    """Print a line on standard error."""
    print_line(line, sys.stderr)
