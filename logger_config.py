"""Logging to a rotating file and the console, and the redaction of every text for output."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
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
FILE_ONLY = {"file_only": True}  # `extra` of log records that only the file gets
SHOWN_FAILURES = 3  # of one kind; the console counts the others
COUNT_EVERY_SECONDS = 60.0
_MAX_LINKS = 40  # the limit of Linux
_WRITE_EVERY_SECONDS = 0.1  # at most so many DEBUG lines are lost if the process is killed
MIN_SECRET_CHARACTERS = 4  # a shorter one would match parts of unrelated words
_NUMBERS = (int, float, type(None))  # arguments left as they are: %d needs a number

_secrets: dict[str, str] = {}  # spelling of a secret -> its label in brackets; the longest first
# Characters that control a terminal, end a line, change the direction of the text, or are
# invisible. Not the joiners U+200C and U+200D: names and emoji contain them.
CONTROL_CHARACTERS = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\U000e0000-\U000e007f]"
)
# Text around an @, or around %40, its form in URLs. It may match too much, but never too little.
_EMAIL = re.compile(
    r"""(?: \\?"[^"]{1,254}" | (?: [^\s@"<>()\[\],;:\\] | \\[^\s"'] ){1,254} )
    (?: @ | %40 )
    (?: \[[^\]\s]*\] | (?: [^\s@"'<>()\[\],;:\\{}|] | \\[^\s"'] )+ )""",
    re.VERBOSE,
)


def register_secret(secret: str, label: str) -> None:
    """Make `redact` replace `secret` with `[label]` from now on."""
    global _secrets
    if len(secret) >= MIN_SECRET_CHARACTERS:
        known = {**_secrets, **dict.fromkeys(_spellings(secret), f"[{label}]")}
        # One may be part of another. A new dict: other threads may be reading the old one.
        _secrets = {each: known[each] for each in sorted(known, key=len, reverse=True)}


def _spellings(secret: str) -> set[str]:
    """Return the forms that a secret can have in text, in Python and JSON literals and in URLs."""
    as_bytes = secret.encode("utf-8", "surrogateescape")
    spellings = {
        *(secret, repr(secret)[1:-1], ascii(secret)[1:-1], repr(as_bytes)[2:-1]),
        # As part of a longer text that has both kinds of quotes.
        *(repr(f"'\"{secret}")[4:-1], repr(b"'\"" + as_bytes)[5:-1]),
        *(json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]),
        *(quote(as_bytes), quote(as_bytes, safe=""), quote_plus(as_bytes)),
    }
    return set(map(_escape, spellings))


class RowText(str):
    """Text made of a row's values, as an argument of a log message: secrets are not looked for.

    No secret is in it, but an ordinary word that is somebody's password may be.
    """

    __slots__ = ()


def redact(text: str, *, emails: bool = False, secrets: bool = True) -> str:
    """Return `text` as one line that is safe to print, to log and to send.

    With `secrets` the registered ones are replaced by their labels, and with `emails` every e-mail
    address by `[e-mail]`. Control and invisible characters, which could forge a line or drive a
    terminal, appear as `\\n` or `\\x1b`.
    """
    text = _escape(text)
    if secrets:
        for secret, label in _secrets.items():
            if secret in text:
                text = text.replace(secret, label)
    if emails and ("@" in text or "%40" in text):  # the pattern takes 60 microseconds a line
        text = _EMAIL.sub("[e-mail]", text)
    return text


def _escape(text: str) -> str:
    if text.isascii() and text.isprintable():  # nearly always, and ten times faster
        return text
    return CONTROL_CHARACTERS.sub(
        lambda found: found.group().encode("unicode_escape").decode(), text
    )


def redirect_to_devnull(stream: TextIO) -> None:
    """Redirect a stream that cannot be written, and what is in its buffer, to /dev/null.

    Otherwise Python flushes the buffer once more at exit, fails, and exits with status 120.
    """
    with contextlib.suppress(OSError), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def follow_own_links(path: str | Path) -> Path:
    """Return where a path leads, following only links that nobody else could have planted.

    Those are the links of this user, of root and of the owner of this program's code. In a folder
    such as /tmp another user could lead a log into any file of this user. The file need not exist.
    Raises PermissionError for a link of anybody else.
    """
    trusted = {os.geteuid(), 0, os.stat(__file__).st_uid}
    left = list(reversed(Path(os.path.abspath(path)).parts))
    reached = Path(left.pop())
    links = 0
    while left:
        if reached == Path("/proc"):  # its links lead to pipes as well: /dev/stdout, for example
            return reached.joinpath(*reversed(left))
        candidate = Path(os.path.normpath(reached / left.pop()))
        if not candidate.is_symlink():
            reached = candidate
            continue
        owner = candidate.lstat().st_uid
        if owner not in trusted:
            raise PermissionError(
                errno.EPERM,
                f"{candidate} is a symbolic link made by the user {owner}, which is not followed; "
                "remove it or choose another file",
            )
        links += 1
        if links > _MAX_LINKS:
            raise OSError(errno.ELOOP, "its symbolic links lead in a circle")
        target = reached / os.readlink(candidate)
        left += reversed(target.parts[1:])
        reached = Path(target.parts[0])
    return reached


def setup_logger(
    name: str,
    log_file: str | Path | None,
    log_level: str = "INFO",
    *,
    file_level: str = "DEBUG",
    redact_emails: bool = False,
) -> logging.Logger:
    """Log `name` to the console from `log_level` up, and to a rotating file from `file_level` up.

    The file has mode 0600 and rotates at 10 MB with five backups. The empty name stands for the
    whole program. A link in place of the file is followed only if it is one of `follow_own_links`.
    Without a file (None) the console takes its place: it gets what is for the file only, and each
    failure. A second call replaces the handlers of the first. Raises ValueError for an unknown
    level, OSError if the file cannot be written.
    """
    console_level, file_level = _to_level(log_level), _to_level(file_level)
    handlers: list[logging.Handler] = [_Console(sys.stderr, log_file, file_level)]
    handlers[0].setLevel(console_level)
    if log_file is not None:
        handlers.insert(0, _PrivateRotatingFile(log_file))
        handlers[0].setLevel(file_level)
    logger = logging.getLogger(name)
    for handler in logger.handlers[:]:
        logger.removeHandler(handler)
        handler.close()
    for new_handler in handlers:
        new_handler.setFormatter(_RedactingFormatter(emails=redact_emails))
        logger.addHandler(new_handler)
    # Lines that no handler wants are not even made.
    logger.setLevel(min(handler.level for handler in handlers))
    logger.propagate = False
    for library in ("urllib3", "mysql", "asyncio", "aiohttp", "sqlglot"):
        logging.getLogger(library).setLevel(logging.WARNING)
    return logger


def _to_level(name: str) -> str:
    if name.upper() not in LEVELS:
        raise ValueError(f"unknown log level {name!r}: use one of {', '.join(LEVELS)}")
    return name.upper()


def log_path() -> str | None:
    """Return the path of the program's log file, None where there is none."""
    handlers = logging.getLogger().handlers
    files = (each.baseFilename for each in handlers if isinstance(each, logging.FileHandler))
    return next(files, None)


def failure_of(endpoint: str, code: object) -> dict[str, object]:
    """Return the `extra` of a log record about one of many failures of this kind.

    The console shows the first three of a kind and then counts them once a minute.
    """
    return {"failure": f"{endpoint} {code}"}


def show_failure_counts() -> None:
    """Print how many failures the console has counted since it last said so."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _Console):
            handler.show_counts()


def log_uncaught_errors() -> None:
    """Log warnings, and errors that nothing catches in threads and in `__del__`.

    Python's own hooks print them on the console without redaction.
    """
    logger = logging.getLogger("uncaught")

    def log(uncaught: Any) -> None:
        error = uncaught.exc_value or uncaught.exc_type()
        logger.error("Uncaught error", exc_info=error, extra=FILE_ONLY)

    threading.excepthook = sys.unraisablehook = log
    logging.captureWarnings(True)


def get_logger(name: str) -> logging.Logger:
    """Return the logger of this name, with the handlers of `setup_logger`."""
    return logging.getLogger(name)


class _RedactingFormatter(logging.Formatter):
    """One line for each record; the lines of a traceback or stack are indented below it.

    The indentation keeps a line of an exception's text from passing for a log line.
    """

    def __init__(self, *, emails: bool) -> None:
        super().__init__(FORMAT, TIME_FORMAT)
        self._redact = partial(redact, emails=emails)
        self._last_second = (-1, "")  # and its text: most lines are of the same second

    def format(self, record: logging.LogRecord) -> str:
        if record.exc_info or record.exc_text or record.stack_info:
            return super().format(record)
        record.asctime = self.formatTime(record, self.datefmt)
        return self.formatMessage(record)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        second, text = self._last_second
        if int(record.created) != second:
            text = super().formatTime(record, datefmt)
            self._last_second = (int(record.created), text)
        return text

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = self._redacted_message(record)
        return super().formatMessage(record)

    def _redacted_message(self, record: logging.LogRecord) -> str:
        arguments = record.args
        if not isinstance(arguments, tuple) or RowText not in map(type, arguments):
            return self._redact(record.getMessage())
        redacted = [
            each
            if isinstance(each, _NUMBERS)
            else self._redact(str(each), secrets=type(each) is not RowText)
            for each in arguments
        ]
        return self._redact(str(record.msg)) % tuple(redacted)

    def formatException(self, ei: Any) -> str:
        return self._indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:
        return self._indented(super().formatStack(stack_info))

    def _indented(self, text: str) -> str:
        return "\n".join(f"  {self._redact(line)}" for line in text.split("\n"))


@dataclass
class _FailureCount:
    """The failures of one kind since `since` (unix seconds) that the console did not show."""

    shown: int = 0
    logger: str = ""
    hidden: int = 0
    level: int = logging.NOTSET  # the highest of those that are hidden
    since: float = 0.0


class _Console(logging.StreamHandler):  # type: ignore[type-arg] # Python 3.10 cannot subscript it
    """Handler for standard error; a full disk or a closed pipe does not stop the run.

    Of failures of one kind (`failure_of`) it shows three and then counts, because the log file has
    each of them. At DEBUG, or without a log file, it shows everything.
    """

    def __init__(self, stream: TextIO, log_file: str | Path | None, file_level: str) -> None:
        super().__init__(stream)
        self._log_file = log_file
        # Retries are warnings: a file from ERROR up does not have each failure.
        has_each = logging.getLevelName(file_level) <= logging.WARNING
        self._where = f" (each one is in {log_file})" if has_each else ""
        self._failures: dict[str, _FailureCount] = {}
        if log_file is not None:
            self.addFilter(lambda record: not getattr(record, "file_only", False))

    def emit(self, record: logging.LogRecord) -> None:
        kind = getattr(record, "failure", None)
        if kind is None or self._log_file is None or self.level <= logging.DEBUG:
            super().emit(record)
            return
        count = self._failures.setdefault(kind, _FailureCount())
        if count.shown < SHOWN_FAILURES:
            count.shown += 1
            count.since = record.created
            super().emit(record)
            return
        count.hidden += 1
        count.level = max(count.level, record.levelno)
        count.logger = record.name
        if record.created - count.since >= COUNT_EVERY_SECONDS:
            self._show_count(kind, count, record.created)

    def show_counts(self) -> None:
        """Print the counts that are not zero, and start anew with them."""
        with self.lock or contextlib.nullcontext():
            for kind, count in self._failures.items():
                if count.hidden:
                    self._show_count(kind, count, time.time())

    def _show_count(self, kind: str, count: _FailureCount, now: float) -> None:
        line = {
            "name": count.logger,
            "levelno": count.level,
            "levelname": logging.getLevelName(count.level),
            "msg": "%s: %s more in the last %.0f s%s",
            "args": (kind, f"{count.hidden:,}", max(1.0, now - count.since), self._where),
        }
        super().emit(logging.makeLogRecord(line))
        count.hidden, count.level, count.since = 0, logging.NOTSET, now

    def handleError(self, record: logging.LogRecord) -> None:
        if isinstance(sys.exc_info()[1], OSError):
            redirect_to_devnull(sys.stderr)  # `self.stream` may be the wrapper of the progress bar
        else:
            super().handleError(record)


class _PrivateRotatingFile(RotatingFileHandler):
    """A rotating file that only its owner can read; its errors do not stop the run.

    Of many DEBUG lines in a short time all but the first are formatted and written together, by a
    thread of their own. One by one they took a quarter of the CPU time of a per-user run, whose
    threads had to wait for each other.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = os.path.abspath(path)
        self._waiting: deque[logging.LogRecord] = deque()
        self._writing = threading.RLock()
        self._is_scheduled = False  # whether a thread will write the lines that wait
        self._written_at = 0.0
        super().__init__(path, maxBytes=MAX_BYTES, backupCount=BACKUP_COUNT, encoding="utf-8")

    def _open(self) -> TextIOWrapper:
        # The file that a link leads to rotates beside itself, and the link stays.
        self.baseFilename = str(follow_own_links(self._path))

        def open_private(path: str, flags: int) -> int:
            # O_NONBLOCK: opening a pipe without a reader fails instead of blocking.
            flags |= os.O_NONBLOCK | (0 if path.startswith("/proc/") else os.O_NOFOLLOW)
            descriptor = os.open(path, flags, 0o600)
            with contextlib.suppress(OSError):  # the file belongs to another user
                if stat.S_ISREG(os.fstat(descriptor).st_mode):  # root could close /dev/null
                    os.fchmod(descriptor, 0o600)
            return descriptor

        stream: TextIO = open(  # noqa: SIM115
            self.baseFilename, "a", encoding="utf-8", errors="backslashreplace", opener=open_private
        )
        assert isinstance(stream, TextIOWrapper)  # noqa: S101
        return stream

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, at once or a little later."""
        try:
            self._waiting.append(record)
            is_frequent = record.created - self._written_at < _WRITE_EVERY_SECONDS
            if record.levelno > logging.DEBUG or not is_frequent:
                self._write()
            elif not self._is_scheduled:
                self._is_scheduled = True
                later = threading.Timer(_WRITE_EVERY_SECONDS, self.flush)
                later.daemon = True
                later.start()
        except Exception:  # noqa: BLE001 - as every handler of `logging` does
            self.handleError(record)

    def handle(self, record: logging.LogRecord) -> bool:
        """Emit the record without the lock, so that nobody waits while another thread writes."""
        is_wanted = bool(self.filter(record))
        if is_wanted:
            self.emit(record)
        return is_wanted

    def flush(self) -> None:
        """Write the lines that have waited."""
        with self._writing:
            try:
                self._write()
            except (OSError, ValueError):
                self._drop_stream()

    def close(self) -> None:
        self.flush()
        super().close()

    def _write(self) -> None:
        """Write all lines, after a rotation if they would make the file too large."""
        with self._writing:
            self._written_at = time.time()
            self._is_scheduled = False  # before the lines are taken: a later one starts a thread
            lines = "".join(self._taken_lines())
            if not lines:
                return
            if self.stream is None:
                self.stream = self._open()
            if self._is_full(self.stream, lines):
                self.doRollover()
            self.stream.write(lines)
            self.stream.flush()

    def _taken_lines(self) -> Iterator[str]:
        while self._waiting:
            record = self._waiting.popleft()
            with contextlib.suppress(Exception):  # its arguments do not fit; the other lines do
                yield f"{self.format(record)}\n"

    def _is_full(self, stream: TextIO, lines: str) -> bool:
        """Return whether the file has no room for these lines; a pipe or a device always has."""
        file = os.fstat(stream.fileno())
        if not stat.S_ISREG(file.st_mode):
            return False
        size_bytes = len(lines)
        if not lines.isascii():
            size_bytes = len(lines.encode("utf-8", "backslashreplace"))
        return file.st_size + size_bytes >= self.maxBytes

    def doRollover(self) -> None:
        """Rotate the file, or keep writing to it if the folder does not allow a rotation."""
        try:
            super().doRollover()
        except OSError:
            self.stream = self.stream or self._open()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002 - logging calls it
        """Drop what could not be written, without a traceback; the next record reopens the file."""
        self._drop_stream()

    def _drop_stream(self) -> None:
        """Close the stream, or Python would write its buffer at exit and print a traceback."""
        with self._writing:
            stream, self.stream = self.stream, None
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                stream.close()
