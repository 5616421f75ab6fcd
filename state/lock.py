"""Run lock: only one run at a time can use a state file."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from datetime import datetime, timezone
from pathlib import Path

from state.database import StateError, state_errors


class RunLock:
    """A context manager that holds the lock; raises StateError, naming the run that holds it.

    The lock is on a file beside the state file; its text names the process. The operating system
    releases the lock whenever the process ends, even if it is killed. The file is not removed.
    """

    def __init__(self, state_path: Path) -> None:
        self.path = state_path.with_name(state_path.name + ".lock")
        self._descriptor = -1

    def __enter__(self) -> RunLock:
        with state_errors(self.path):
            if not self.path.parent.is_dir():
                raise StateError(f"The folder {self.path.parent} does not exist: create it.")
            self._descriptor = os.open(
                self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )
            with contextlib.suppress(PermissionError):  # the file belongs to another user
                os.fchmod(self._descriptor, 0o600)
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                owner = _read_owner(self._descriptor)
                os.close(self._descriptor)
                raise StateError(
                    f"Another run is in progress ({owner}): wait until it ends."
                ) from None
            started_at = datetime.now(timezone.utc).isoformat(" ", "seconds")
            owner = f"process {os.getpid()} on {socket.gethostname()}, started {started_at}\n"
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, owner.encode(), 0)
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self._descriptor)


def owner_of_lock(state_path: Path) -> str | None:
    """Return the process that holds the lock of the state file, None where there is none."""
    try:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(RunLock(state_path).path, flags)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read_owner(descriptor)
    finally:
        os.close(descriptor)
    return None


def _read_owner(descriptor: int) -> str:
    owner = os.pread(descriptor, 500, 0).decode("utf-8", "replace").strip()
    return owner or "just started"
