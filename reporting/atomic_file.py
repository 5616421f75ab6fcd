"""Atomic writing of files: a reader sees the whole content or none of it.

The content goes into a temporary file beside the target, is flushed to disk, and then gets the
target's name. On failure the temporary file is removed and the target stays as it was. File
modes do not depend on the umask. Other users may be able to write to the folder, so a file that
already has the temporary name is never written to: it may be a link to another file. All functions
raise OSError.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_MAX_NAMES = 10_000


@contextlib.contextmanager
def replace_file(path: Path, mode: int = 0o600) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` when the block ends without an error."""
    with _temporary_file(path, mode) as (part, file):
        yield file
        _flush_to_disk(file)
        part.replace(path)


class NewFile:
    """A new file, mode 0600, whose first lines are written last.

    `append` writes to the temporary file, `publish` completes it and gives it its name. An existing
    file is never overwritten: if the name is taken, it gets the suffix _2, _3 ...
    While it is written the temporary file is locked, see `is_abandoned`.
    """

    # Room for the head in a file that is too large to be copied; the rest of it becomes spaces.
    HEAD_BYTES = 2_048
    MAX_COPIED_BYTES = 4_000_000  # takes a few milliseconds

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stack = contextlib.ExitStack()
        self._part, self._file = self._open()
        try:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._file.write(b" " * self.HEAD_BYTES)
        except BaseException:
            self.close()
            raise

    def append(self, content: bytes) -> None:
        """Write content that follows the head."""
        self._file.write(content)

    def publish(self, head: bytes) -> Path:
        """Write the head, flush the file to the disk and return its path."""
        self._file.flush()
        size = os.fstat(self._file.fileno()).st_size
        if len(head) > self.HEAD_BYTES or size <= self.MAX_COPIED_BYTES:
            self._copy_behind(head)
        else:
            os.pwrite(self._file.fileno(), head.ljust(self.HEAD_BYTES), 0)
        _flush_to_disk(self._file)
        return _rename_to_free_name(self._part, self._path)

    def close(self) -> None:
        """Close the file and remove its temporary name."""
        self._stack.close()

    def _open(self) -> tuple[Path, BinaryIO]:
        # The process id is not enough: in containers that share the folder it may be the same.
        owner = f"{os.getpid()}-{secrets.token_hex(4)}"
        return self._stack.enter_context(_temporary_file(self._path, 0o600, owner))

    def _copy_behind(self, head: bytes) -> None:
        """Replace the temporary file by one without the spaces."""
        former = self._file
        with open(former.fileno(), "rb", closefd=False) as content:
            content.seek(self.HEAD_BYTES)
            self._part, self._file = self._open()
            self._file.write(head)
            shutil.copyfileobj(content, self._file, 1_000_000)


def is_abandoned(part: Path) -> bool:
    """Return whether the temporary file of a `NewFile` belongs to no running process."""
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # on NFS a lock needs O_RDWR
    try:
        descriptor = os.open(part, flags)
    except OSError:  # not ours to open, or a link
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:  # locked, or on a file system without locks
        return False
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _temporary_file(
    path: Path, mode: int, owner: str | None = None
) -> Iterator[tuple[Path, BinaryIO]]:
    part = path.with_name(f".{path.name}.{owner or os.getpid()}.part")
    part.unlink(missing_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(part, flags, 0o600)
    try:
        with open(descriptor, "w+b", buffering=1_000_000) as file:
            os.fchmod(descriptor, mode)
            yield part, file
    finally:
        part.unlink(missing_ok=True)


def _flush_to_disk(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _rename_to_free_name(part: Path, path: Path) -> Path:
    for number in range(1, _MAX_NAMES):
        candidate = path.with_stem(f"{path.stem}_{number}") if number > 1 else path
        try:
            os.link(part, candidate)  # fails if the name is taken, unlike a rename
            return candidate
        except FileExistsError:
            continue
        except OSError:  # a file system without hard links
            if not os.path.lexists(candidate):
                return part.rename(candidate)
    raise OSError(f"no free name for {path}")
