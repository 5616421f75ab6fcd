"""A file under its temporary name: new, its owner's, and gone unless it is given another name.

Owns the safe making of it, in folders too that others can write to. Knows not what is written.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def atomic_file(part: Path, mode: int = 0o600) -> Iterator[BinaryIO]:
    """Make a file of this mode, whatever the umask; give it its real name within the block.

    Nothing that lies there under that name (of a dead process with our number, or somebody's
    link) is written into. Raises OSError.
    """
    part.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(part, flags, 0o600)
    try:
        with open(descriptor, "wb", buffering=1_000_000) as file:
            os.fchmod(descriptor, mode)
            yield file
    finally:
        part.unlink(missing_ok=True)


def flush_to_disk(file: BinaryIO) -> None:
    """Have all of it on the disk; only then may it take the place of another file."""
    file.flush()
    os.fsync(file.fileno())
