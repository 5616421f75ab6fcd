"""Process with the sandbox's MySQL server: `python -m benchmarks.embedded_mysql ROWS`.

It prints its settings in one line when it listens, and ends at SIGTERM.
"""

from __future__ import annotations

import signal
import sys

from benchmarks.processes import PROJECT_FOLDER
from benchmarks.users import customers, page_views
from sandbox.mysql_server import MySQLSandbox


def main(rows: int) -> None:
    """Serve the tables with `rows` users until a signal arrives."""
    tables = {"customers": list(customers(rows)), "page_views": list(page_views(rows))}
    with MySQLSandbox([PROJECT_FOLDER / "sql" / "schema.sql"], rows=tables) as server:
        settings = " ".join(f"{name}={value}" for name, value in server.settings.items())
        sys.stdout.write(f"{settings}\n")
        sys.stdout.flush()
        signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    main(int(sys.argv[1]))
