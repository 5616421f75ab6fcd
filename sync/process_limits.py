"""What the process asks of the system before a run: open files, and a patient collector.

Knows nothing of the run.
"""

from __future__ import annotations

import contextlib
import gc
import resource


def allow_open_files() -> None:
    """Raise the usual limit of 1,024 open files: a connection for each row in flight is one."""
    wanted = 4_096
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def tune_garbage_collection() -> None:
    """Have modules left out of garbage collection, and rows looked at less often.

    Rows come and go in chunks and hold no cycles: over a million of them, the collector took
    more than a second to find nothing. Once a process: the leftovers of a run before this one
    would never be collected.
    """
    if not gc.get_freeze_count():
        gc.freeze()
    gc.set_threshold(50_000, 20, 100)
