"""Pseudo-terminal, and the text that a user would see on it."""

from __future__ import annotations

import fcntl
import os
import re
import select
import struct
import termios
import threading
import time
from typing import TextIO


class Terminal:
    """A pseudo-terminal; the program writes to `stream`."""

    def __init__(self, columns: int = 120) -> None:
        self._outside, inside = os.openpty()
        fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        # Otherwise a ^C drops what the program has written and the reader has not read yet.
        attributes = termios.tcgetattr(inside)
        attributes[3] |= termios.NOFLSH
        termios.tcsetattr(inside, termios.TCSANOW, attributes)
        self.stream: TextIO = os.fdopen(inside, "w", encoding="utf-8")
        self._seen = bytearray()
        self._is_gone = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while not self._is_gone.is_set():
            if not select.select([self._outside], [], [], 0.02)[0]:
                continue
            try:
                chunk = os.read(self._outside, 65_536)
            except OSError:  # the other side is closed
                return
            if not chunk:
                return
            self._seen += chunk

    def press(self, keys: bytes) -> None:
        """Type; returns when the terminal has echoed the keys, a control key as `^C`."""
        expected = keys.replace(b"\x03", b"^C")
        seen = len(self._seen)
        os.write(self._outside, keys)
        deadline = time.monotonic() + 10
        while expected not in self._seen[seen:]:
            assert time.monotonic() < deadline, "the terminal echoed nothing"
            time.sleep(0.01)

    def hang_up(self) -> None:
        """Close the terminal: every later write to `stream` fails."""
        self._is_gone.set()
        self._reader.join(5)
        os.close(
            self._outside
        )  # after the reader has ended: the number of the descriptor may be reused

    def output(self) -> str:
        """Close `stream` and return all that was written to it."""
        self.stream.close()
        self._reader.join(5)
        os.close(self._outside)
        return self._seen.decode()


def screen(output: str, columns: int = 10_000) -> list[str]:
    """Apply the control codes that the program uses, and return the visible lines."""
    lines, row, column = [""], 0, 0
    for code, text in re.findall(r"(\r|\n|\x1b\[[0-9;?]*[A-Za-z])|([^\r\n\x1b]+)", output):
        while text:
            if column == columns:
                row, column = row + 1, 0
                lines += [""] * (row + 1 - len(lines))
            part, text = text[: columns - column], text[columns - column :]
            line = lines[row].ljust(column)
            lines[row] = line[:column] + part + line[column + len(part) :]
            column += len(part)
        if code == "\r":
            column = 0
        elif code == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif code == "\x1b[2K":
            lines[row] = ""
        elif code.endswith("A"):
            row -= int(code[2:-1] or 1)
    return [line for line in lines if line]
