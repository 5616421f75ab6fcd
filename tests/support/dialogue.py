"""A program that asks questions on a pseudo-terminal, and the text that its user would see."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.program import PATIENCE_SECONDS

# Makes the pseudo-terminal the one that Ctrl-C comes from and getpass reads, then starts main.py.
# SIGINT is ignored where the tests run in the background of a script.
_ON_TERMINAL = (
    "import fcntl, os, signal, sys, termios;"
    "signal.signal(signal.SIGINT, signal.SIG_DFL);"
    "fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)
_TYPE_AGAIN_SECONDS = 3.0
CTRL_C, CTRL_D = "\x03", "\x04"


class Dialogue:
    """`main.py` on a pseudo-terminal, as a context manager."""

    def __init__(
        self, project: Path, *flags: str, environment: Mapping[str, str] | None = None
    ) -> None:
        self._outside, inside = os.openpty()
        # Otherwise a ^C drops what the program has written and nobody has read yet.
        attributes = termios.tcgetattr(inside)
        attributes[3] |= termios.NOFLSH
        termios.tcsetattr(inside, termios.TCSANOW, attributes)
        self._seen = bytearray()
        self._read = 0  # how much of it an answer has followed
        self._process = subprocess.Popen(
            [sys.executable, "-c", _ON_TERMINAL, str(project / "main.py"), *flags],
            stdin=inside,
            stdout=inside,
            stderr=inside,
            env={
                "PATH": os.environ["PATH"],
                "LANG": "C.UTF-8",
                "TERM": "dumb",
                **(environment or {}),
            },
            cwd=project,
            start_new_session=True,
        )
        os.close(inside)

    def __enter__(self) -> Dialogue:
        return self

    def __exit__(self, *ending: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        os.close(self._outside)

    @property
    def text(self) -> str:
        """All that was on the terminal until now."""
        return self._seen.decode(errors="replace").replace("\r\n", "\n")

    @property
    def has_echo(self) -> bool:
        """Whether the terminal shows what is typed."""
        return bool(termios.tcgetattr(self._outside)[3] & termios.ECHO)

    def answer(self, question: str, answer: str) -> None:
        """Wait for a question, then type the answer and the enter key."""
        self.wait_for(question)
        self.type(f"{answer}\n")

    def answer_all(self, answers: Sequence[tuple[str, str]]) -> None:
        for question, answer in answers:
            self.answer(question, answer)

    def wait_for(self, text: str) -> None:
        """Wait until the program has printed a text since the last one that was waited for."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (at := self._seen.find(text.encode(), self._read)) < 0:
            assert time.monotonic() < deadline, f"no {text!r} in:\n{self.text}"
            assert self._receive(), f"ended without {text!r}:\n{self.text}"
        self._read = at + len(text.encode())

    def type(self, keys: str) -> None:
        os.write(self._outside, keys.encode())

    def status(self, keys: str = "") -> int:
        """Wait for the end of the program, and return its exit status.

        `keys` are typed again every few seconds: a signal that comes just before Python waits for
        the terminal is handled only after the wait.
        """
        started_at = typed_at = time.monotonic()
        while self._receive():
            now = time.monotonic()
            assert now < started_at + PATIENCE_SECONDS, f"does not end:\n{self.text}"
            if keys and now > typed_at + _TYPE_AGAIN_SECONDS:
                self.type(keys)
                typed_at = now
        return self._process.wait(PATIENCE_SECONDS)

    def _receive(self) -> bool:
        """Read what is there; return whether there may be more."""
        if not select.select([self._outside], [], [], 0.05)[0]:
            return self._process.poll() is None
        try:
            chunk = os.read(self._outside, 65_536)
        except OSError:  # Linux: the program has ended
            return False
        self._seen += chunk
        return bool(chunk)
