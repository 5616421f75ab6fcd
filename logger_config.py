"""The rotating log file and the console, and what must never be in them.

Owns handlers, format, file modes and the filter that takes secrets out of every line. Knows
nothing of what is logged. Text from outside (names, answers) is written as text: control
characters, which could forge a line or drive a terminal, appear as `\\x1b`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import stat
import sys
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, TextIO

FORMAT = "%(asctime)s - %(name)s - %(levelname)s - %(message)s"
TIME_FORMAT = "%Y-%m-%d %H:%M:%S"
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
MAX_BYTES = 10_000_000
BACKUP_COUNT = 5
FILE_ONLY = {"file_only": True}  # `extra` of what the console is told in other words
MIN_SECRET_CHARACTERS = 4  # a shorter one would black out half of every line

_secrets: dict[str, str] = {}  # secret -> what is written in its place
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def hide_secret(secret: str, shown_as: str) -> None:
    """Have `shown_as` written wherever `secret` would be, from now on, in every logger."""
    if len(secret) >= MIN_SECRET_CHARACTERS:
        for form in (secret, repr(secret)[1:-1], json.dumps(secret)[1:-1]):
            _secrets[form] = f"[{shown_as}]"


def without_secrets(text: str) -> str:
    """Return `text` with every known secret taken out."""
    for secret in sorted(_secrets, key=len, reverse=True):  # one may be part of another
        if secret in text:
            text = text.replace(secret, _secrets[secret])
    return text


def printable(text: str) -> str:
    """Return `text` with control characters and direction overrides spelled out."""
    if text.isascii() and text.isprintable():  # nearly always, at a tenth of the cost
        return text
    return _CONTROL.sub(lambda found: found.group().encode("unicode_escape").decode(), text)


def setup_logger(name: str, log_file: str | Path, log_level: str = "INFO") -> logging.Logger:
    """Log `name` to the console from `log_level` up, and everything to a rotating file.

    10 MB and five backups, mode 0600. The empty name means the whole program. Calling it again
    replaces the former handlers. Raises ValueError for an unknown level, OSError where the file
    cannot be written.
    """
    if log_level.upper() not in LEVELS:
        raise ValueError(f"unknown log level {log_level!r}: use one of {', '.join(LEVELS)}")
    file_handler = _PrivateRotatingFile(log_file)
    file_handler.setLevel(logging.DEBUG)
    console = logging.StreamHandler(sys.stderr)
    console.setLevel(log_level.upper())
    console.addFilter(lambda record: not getattr(record, "file_only", False))
    logger = logging.getLogger(name)
    for former in logger.handlers[:]:
        logger.removeHandler(former)
        former.close()
    for handler in (file_handler, console):
        handler.setFormatter(_SafeFormatter(FORMAT, TIME_FORMAT))
        logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    for chatty in ("urllib3", "mysql", "asyncio", "aiohttp", "mysql_mimic", "sqlglot"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    return logger


def get_logger(name: str) -> logging.Logger:
    """Return the logger of this name; it writes where `setup_logger` said."""
    return logging.getLogger(name)


class _SafeFormatter(logging.Formatter):
    """One line a record, with nothing in it that must not be; tracebacks keep their lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = printable(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:
        """Indent a traceback: no line of an exception's text can pass for one of the log."""
        lines = super().formatException(ei).split("\n")
        return "\n".join(f"  {printable(line)}" for line in lines)

    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record))


class _PrivateRotatingFile(RotatingFileHandler):
    """A rotating file that only its owner can read, and whose trouble stops nothing."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(path, maxBytes=MAX_BYTES, backupCount=BACKUP_COUNT, encoding="utf-8")

    def _open(self) -> TextIOWrapper:
        def private(path: str, flags: int) -> int:
            descriptor = os.open(path, flags, 0o600)
            with contextlib.suppress(OSError):  # someone else's file
                if stat.S_ISREG(os.fstat(descriptor).st_mode):  # not /dev/null, for everybody
                    os.fchmod(descriptor, 0o600)
            return descriptor

        stream: TextIO = open(  # noqa: SIM115
            self.baseFilename, "a", encoding="utf-8", errors="backslashreplace", opener=private
        )
        assert isinstance(stream, TextIOWrapper)  # noqa: S101
        return stream

    def doRollover(self) -> None:
        """Rotate; where the folder does not let us, the file goes on and grows."""
        try:
            super().doRollover()
        except OSError:
            self.stream = self.stream or self._open()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002 - so called
        """A full disk ends the log, not the run, and is not a traceback on the console.

        What could not be written is dropped with the stream, or it would be tried again, and
        complained of, at the end of the process. The next line opens the file anew.
        """
        stream, self.stream = self.stream, None
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                stream.close()
