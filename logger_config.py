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
import threading
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import quote, quote_plus

FORMAT = "%(asctime)s - %(name)s - %(levelname)s - %(message)s"
TIME_FORMAT = "%Y-%m-%d %H:%M:%S"
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
MAX_BYTES = 10_000_000
BACKUP_COUNT = 5
FILE_ONLY = {"file_only": True}  # `extra` of what the console is told in other words
MIN_SECRET_CHARACTERS = 4  # a shorter one would black out half of every line

_secrets: dict[str, str] = {}  # spelling of a secret -> what is written in its place
# What drives a terminal, ends a line, turns the direction of the text, or is there and cannot be
# seen. Not the joiners U+200C and U+200D, which names and emoji are written with.
_CONTROL = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\U000e0000-\U000e007f]"
)
# Anything before an @ counts, or before its form in web addresses: rather too much than a rest.
_EMAIL = re.compile(
    r"""(?: \\?"[^"]{1,254}" | (?: [^\s@"<>()\[\],;:\\] | \\[^\s"'] ){1,254} )
    (?: @ | %40 )
    (?: \[[^\]\s]*\] | (?: [^\s@"'<>()\[\],;:\\{}|] | \\[^\s"'] )+ )""",
    re.VERBOSE,
)


def register_secret(secret: str, shown_as: str) -> None:
    """Have `shown_as` written wherever `secret` would be, from now on, in every logger."""
    if len(secret) >= MIN_SECRET_CHARACTERS:
        _secrets.update(dict.fromkeys(_spellings(secret), f"[{shown_as}]"))


def _spellings(secret: str) -> set[str]:
    """Return the ways in which logs, Python, JSON and web addresses write a text."""
    as_bytes = secret.encode("utf-8", "surrogateescape")
    return {
        *(secret, printable(secret)),
        *(repr(secret)[1:-1], ascii(secret)[1:-1], repr(as_bytes)[2:-1]),
        # As part of a longer text that has both kinds of quotes.
        *(repr(f"'\"{secret}")[4:-1], repr(b"'\"" + as_bytes)[5:-1]),
        *(json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]),
        *(quote(as_bytes), quote(as_bytes, safe=""), quote_plus(as_bytes)),
    }


def redact(text: str) -> str:
    """Return `text` with every known secret taken out."""
    for secret in sorted(_secrets, key=len, reverse=True):  # one may be part of another
        if secret in text:
            text = text.replace(secret, _secrets[secret])
    return text


def redact_emails(hidden: bool) -> None:
    """Have every logger leave e-mail addresses out, wherever they come from; or no longer."""
    _SafeFormatter.hides_emails = hidden


def printable(text: str) -> str:
    """Return `text` with what a reader cannot see, or a terminal obeys, spelled out."""
    if text.isascii() and text.isprintable():  # nearly always, at a tenth of the cost
        return text
    return _CONTROL.sub(lambda found: found.group().encode("unicode_escape").decode(), text)


def redirect_to_devnull(stream: TextIO) -> None:
    """Have a stream that cannot be written end in /dev/null, what waits in its buffer too.

    At the end of the process Python would try that once more, fail, and exit with status 120.
    """
    with contextlib.suppress(OSError), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


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
    console = _Console(sys.stderr)
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


def log_uncaught_errors() -> None:
    """Have what nobody catches (in threads, in `__del__`) and warnings go into the log.

    Python's own hooks print them on the console, secrets and all.
    """
    logger = logging.getLogger("strays")

    def log(stray: Any) -> None:
        error = stray.exc_value or stray.exc_type()
        logger.error("An error that nobody caught", exc_info=error, extra=FILE_ONLY)

    threading.excepthook = sys.unraisablehook = log
    logging.captureWarnings(True)


def get_logger(name: str) -> logging.Logger:
    """Return the logger of this name; it writes where `setup_logger` said."""
    return logging.getLogger(name)


class _SafeFormatter(logging.Formatter):
    """One line a record, with nothing in it that must not be; tracebacks keep their lines."""

    hides_emails = False

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = printable(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:
        """Indent a traceback: no line of an exception's text can pass for one of the log."""
        lines = super().formatException(ei).split("\n")
        return "\n".join(f"  {printable(line)}" for line in lines)

    def format(self, record: logging.LogRecord) -> str:
        text = redact(super().format(record))
        if self.hides_emails and ("@" in text or "%40" in text):  # 60 microseconds a line
            return _EMAIL.sub("[e-mail]", text)
        return text


class _Console(logging.StreamHandler):  # type: ignore[type-arg] # 3.10 has no form with it
    """Standard error; where it cannot be written (a full disk, a closed pipe) the run goes on."""

    def handleError(self, record: logging.LogRecord) -> None:
        if isinstance(sys.exc_info()[1], OSError):
            redirect_to_devnull(sys.stderr)  # `self.stream` may be the live line above it
        else:
            super().handleError(record)


class _PrivateRotatingFile(RotatingFileHandler):
    """A rotating file that only its owner can read, and whose trouble stops nothing."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(path, maxBytes=MAX_BYTES, backupCount=BACKUP_COUNT, encoding="utf-8")

    def _open(self) -> TextIOWrapper:
        def private(path: str, flags: int) -> int:
            # Not waiting: a pipe that nobody reads is then an error and no hang.
            descriptor = os.open(path, flags | os.O_NONBLOCK, 0o600)
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
