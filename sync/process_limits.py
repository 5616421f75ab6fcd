"""Process-wide limits for a run: open files and garbage collection."""

from __future__ import annotations

import contextlib
import gc
import resource


def allow_open_files() -> None:
    """Raise the usual limit of 1,024 open files: each row in flight uses a connection."""
    wanted = 4_096
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            new_soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (new_soft, hard))


def tune_garbage_collection() -> None:
    """Exclude the loaded modules from garbage collection, and collect less often.

    Rows come in chunks and form no cycles: for a million rows the collector used more than a
    second and found nothing. Modules are frozen once a process, as a second time would also
    freeze what an earlier run left.
    """
    if not gc.get_freeze_count():
        gc.freeze()
    gc.set_threshold(50_000, 20, 100)
