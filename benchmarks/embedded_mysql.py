"""`python -m benchmarks.embedded_mysql ROWS`: the sandbox's MySQL server, filled, until a SIGTERM.

Prints the settings that lead to it, in one line, when it listens.
"""

from __future__ import annotations

import signal
import sys

from benchmarks.processes import PROJECT_FOLDER
from benchmarks.users import customers, page_views
from sandbox.mysql_server import MySQLSandbox


def main(rows: int) -> None:
    """Serve so many people."""
    people = {"customers": list(customers(rows)), "page_views": list(page_views(rows))}
    with MySQLSandbox([PROJECT_FOLDER / "sql" / "schema.sql"], rows=people) as server:
        sys.stdout.write(
            f"DB_HOST={server.host} DB_PORT={server.port} DB_USER={server.user} "
            f"DB_PASSWORD={server.password} DB_NAME={server.database}\n"
        )
        sys.stdout.flush()
        signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    main(int(sys.argv[1]))
