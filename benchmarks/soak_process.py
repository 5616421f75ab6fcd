"""`python -m benchmarks.soak_process`: runs the program again and again, in this one process.

What leaks from run to run adds up here. A line of flags in (JSON), a line out: how the run
ended and what the process holds after it. Refuses to know what the runs should do.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import main as program

_KEPT_CHARACTERS = 4_000


def main() -> None:
    """Run for each line of standard input, until there are no more."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    with tempfile.TemporaryFile() as printed:
        for number in (1, 2):
            os.dup2(printed.fileno(), number)
        for line in sys.stdin:
            printed.seek(0)
            printed.truncate()
            status = _run(json.loads(line))
            printed.seek(0)
            output = printed.read().decode("utf-8", "replace")
            reply = {"status": status, "output": output[-_KEPT_CHARACTERS:], **holdings()}
            replies.write(f"{json.dumps(reply)}\n")
            replies.flush()


def _run(flags: list[str]) -> int:
    sys.argv = ["main.py", *flags]
    try:
        program.main()
    except SystemExit as ending:
        status: Any = ending.code
        return int(status or 0)
    raise AssertionError("main() returns nothing")


def holdings() -> dict[str, int]:
    """Return what this process holds now: memory (bytes), open files, threads."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return {
        "memory_bytes": pages * os.sysconf("SC_PAGE_SIZE"),
        "open_files": len(os.listdir("/proc/self/fd")) - 1,  # one is of the listing itself
        "threads": threading.active_count(),
    }


if __name__ == "__main__":
    main()
