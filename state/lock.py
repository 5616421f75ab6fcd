"""Run lock: only one run at a time can use a state file."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import struct
import sys
from contextlib import ExitStack, suppress
from datetime import datetime, timezone
from pathlib import Path

from state.database import StateError, state_errors

# The locked byte of the state file. SQLite locks the bytes from 0x40000000 to 0x400001ff, and its
# files stay below 2**48 bytes (sqlite.org/fileformat2.html, "The Lock-Byte Page"; limits.html).
_LOCKED_BYTE = 2**48
_FLOCK = "hhqqi0q"  # struct flock on Linux: l_type, l_whence, l_start, l_len, l_pid
# What systems without these locks answer: old kernels, emulated ones, some network file systems.
_UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
_TO_WRITE = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
_TO_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW


class RunInProgressError(StateError):
    """Another run holds the lock of the state file, which is in order."""


class RunLock:
    """A context manager that holds the lock; raises StateError, naming the run that holds it.

    Two files are locked: the state file, by whatever symbolic or hard link it is reached, and a
    file beside it, whose text names the process. Each lock suffices to refuse a second run, so the
    lock holds even if one of the files is removed or replaced. The operating system releases both
    when the process ends, even if it is killed. The lock file is not removed.

    Close every SQLite connection to the state file before the lock ends: closing the descriptor of
    the lock drops SQLite's own locks of this process.
    """

    def __init__(self, state_path: Path) -> None:
        self._state_path = _real_path(state_path)
        self.path = self._state_path.with_name(self._state_path.name + ".lock")
        self._held = ExitStack()

    def __enter__(self) -> RunLock:
        with ExitStack() as held, state_errors(self._state_path):
            if not self.path.parent.is_dir():
                raise StateError(f"The folder {self.path.parent} does not exist: create it.")
            lock_file = _open_lock_file(self.path)
            held.callback(os.close, lock_file)
            is_free = _lock_whole_file(lock_file)
            while is_free:
                state_file = os.open(self._state_path, _TO_WRITE, 0o600)
                if _is_the_file_at(self._state_path, state_file):
                    held.callback(os.close, state_file)
                    is_free = _lock_state_file(state_file)
                    break
                os.close(state_file)  # removed or replaced in this very moment
            if not is_free:
                owner = _read_owner(lock_file)
                raise RunInProgressError(
                    f"Another run is in progress ({owner}): wait until it ends."
                )
            started_at = datetime.now(timezone.utc).isoformat(" ", "seconds")
            owner = f"process {os.getpid()} on {socket.gethostname()}, started {started_at}\n"
            os.ftruncate(lock_file, 0)
            os.pwrite(lock_file, owner.encode(), 0)
            self._held = held.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._held.close()


def owner_of_lock(state_path: Path) -> str | None:
    """Return the process that holds the lock of the state file, None where there is none.

    Creates and changes nothing. Raises OSError.
    """
    real_path = _real_path(state_path)
    lock = RunLock(real_path).path
    with ExitStack() as opened:
        lock_file = _open_to_read(lock, opened)
        state_file = _open_to_read(real_path, opened)
        is_held = (state_file is not None and _is_state_file_locked(state_file)) or (
            lock_file is not None and not _lock_whole_file(lock_file, fcntl.LOCK_SH)
        )
        if not is_held:
            return None
        return _read_owner(lock_file)


def _real_path(path: Path) -> Path:
    """Follow symbolic links; the file need not exist."""
    return Path(os.path.realpath(path))


def _open_lock_file(path: Path) -> int:
    try:
        descriptor = os.open(path, _TO_WRITE, 0o600)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR):  # ELOOP: a symbolic link, never followed
            raise StateError(_not_a_lock_file(path)) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise StateError(_not_a_lock_file(path))
    with suppress(PermissionError):  # the file belongs to another user
        os.fchmod(descriptor, 0o600)
    return descriptor


def _open_to_read(path: Path, opened: ExitStack) -> int | None:
    """Open a file until `opened` closes; return None where there is none."""
    try:
        descriptor = os.open(path, _TO_READ)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise StateError(_not_a_lock_file(path)) from None
        raise
    opened.callback(os.close, descriptor)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise StateError(_not_a_lock_file(path))
    return descriptor


def _not_a_lock_file(path: Path) -> str:
    kind = "a symbolic link" if path.is_symlink() else "not a regular file"
    return f"{path} is {kind}: remove it; a run makes a file of that name to lock the state file."


def _is_the_file_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _lock_whole_file(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool:
    """Lock a file until its descriptor is closed; return False where another run holds it."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock_state_file(descriptor: int) -> bool:
    """Lock a byte until the descriptor is closed; return False where another run holds it.

    This is a lock of the descriptor ("open file description lock", Linux). One of the process
    would end as soon as SQLite, or anything else here, closes a descriptor of the file. flock() is
    the same as a lock of the process on NFS, and conflicts with SQLite's locks there and on macOS.
    Where the system has no such locks, the lock file has to suffice.
    """
    if sys.platform == "linux":
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _byte_lock())
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            if error.errno not in _UNSUPPORTED:
                raise
    return True


def _is_state_file_locked(descriptor: int) -> bool:
    """Return whether a run holds the lock of `_lock_state_file`, without taking it."""
    if sys.platform == "linux":
        try:
            found = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _byte_lock())
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
        else:
            return bool(struct.unpack(_FLOCK, found)[0] != fcntl.F_UNLCK)
    return False


def _byte_lock() -> bytes:
    return struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, _LOCKED_BYTE, 1, 0)


def _read_owner(lock_file: int | None) -> str:
    if lock_file is None:
        return "its lock file was removed"
    owner = os.pread(lock_file, 500, 0).decode("utf-8", "replace").strip()
    return owner or "just started, or its lock file was removed"
