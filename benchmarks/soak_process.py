"""Long-lived process of the soak: runs the program once per line of input, so that leaks add up.

Input: a JSON list of flags per line. Output: a JSON object with exit status, output and resources.
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
    """Run the program for each line of standard input."""
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
            reply = {"status": status, "output": output[-_KEPT_CHARACTERS:], **resources()}
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


def resources() -> dict[str, int]:
    """Return memory (bytes), open files and threads of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return {
        "memory_bytes": pages * os.sysconf("SC_PAGE_SIZE"),
        "open_files": len(os.listdir("/proc/self/fd")) - 1,  # one is the listing itself
        "threads": threading.active_count(),
    }


if __name__ == "__main__":
    main()
