"""Atomic writing of files: a reader sees the whole content or none of it.

The content goes into a temporary file beside the target, is flushed to disk, and then gets the
target's name. On failure the temporary file is removed and the target stays as it was. File
modes do not depend on the umask. Other users may be able to write to the folder, so a file that
already has the temporary name is never written to: it may be a link to another file. All functions
raise OSError.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
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


def create_file(path: Path, chunks: Iterable[bytes]) -> Path:
    """Write a new file, mode 0600, and return its path.

    An existing file is never overwritten: if the name is taken, it gets the suffix _2, _3 ...
    """
    with _temporary_file(path, 0o600) as (part, file):
        file.writelines(chunks)
        _flush_to_disk(file)
        return _rename_to_free_name(part, path)


@contextlib.contextmanager
def _temporary_file(path: Path, mode: int) -> Iterator[tuple[Path, BinaryIO]]:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(part, flags, 0o600)
    try:
        with open(descriptor, "wb", buffering=1_000_000) as file:
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
