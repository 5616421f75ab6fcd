"""Peak disk space of a run, sampled: files in its folder, and unlinked files that it still holds.

Linux only for the unlinked ones, which are found through /proc.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_INTERVAL_SECONDS = 0.2
_BLOCK_BYTES = 512  # the unit of st_blocks, whatever the file system
_DELETED = " (deleted)"


@contextmanager
def sampled_disk(pid: int, folder: Path) -> Iterator[Callable[[], int]]:
    """Sample until the block ends; yields a function that returns the peak so far, in bytes.

    Counted is the state file, its log and the results, but not the program's own log file.
    """
    peak, stop = 0, threading.Event()

    def sample() -> None:
        nonlocal peak
        while not stop.wait(_INTERVAL_SECONDS):
            peak = max(peak, used_bytes(pid, folder))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield lambda: peak
    finally:
        stop.set()
        thread.join()


def used_bytes(pid: int, folder: Path) -> int:
    """Return the allocated bytes now; a file with two names counts once."""
    sizes: dict[tuple[int, int], int] = {}
    for path in _files(pid, folder):
        with suppress(OSError):  # it may be gone since it was listed
            found = path.stat()
            sizes[(found.st_dev, found.st_ino)] = found.st_blocks * _BLOCK_BYTES
    return sum(sizes.values())


def _files(pid: int, folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.is_file() and not path.name.startswith("log"):
            yield path
    with suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            target = ""
            with suppress(OSError):
                target = os.readlink(link)
            if target.startswith("/") and target.endswith(_DELETED) and "/dev/" not in target:
                yield link
