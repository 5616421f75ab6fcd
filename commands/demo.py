"""`--demo`: two runs of the real pipeline against an embedded MySQL server and Iterable API."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from commands.console import print_text
from errors import ExitStatus, explain_import_error

_IDENTITY_TEXTS = {
    "email": "",
    "userid": "The project identifies users by userId: an e-mail may be missing, and two users\n"
    "may have the same one.\n",
    "hybrid": "The program names users by userId, and the project lets no two users have the same\n"
    "e-mail.\n",
}


def run_demo(
    sync: Callable[[Mapping[str, str]], int], project_type: str | None = None
) -> ExitStatus:
    """Call `sync` twice with the settings of the embedded servers; its files go to a new folder.

    `project_type` is that of the Iterable project: email (None, too), userid or hybrid.
    """
    project_type = project_type or "email"
    try:
        from sandbox.demo import demo_servers
    except ImportError as error:
        raise explain_import_error(error, "requirements-dev.txt") from error

    folder = Path(tempfile.mkdtemp(prefix="mysql-to-iterable-demo-"))
    with demo_servers(project_type) as server_settings:
        environment = {
            **server_settings,
            "STATE_FILE": str(folder / "sync_state.sqlite3"),
            "RESULTS_DIR": str(folder),
            "LOG_FILE": str(folder / "iterable_integration.log"),
            "REPORT": "true",
        }
        print_text(
            "This demo runs the real program against a MySQL server with sample data and an API\n"
            "that responds like Iterable's. Both run on this machine until the demo ends.\n"
            f"{_IDENTITY_TEXTS[project_type]}\n"
            "FIRST RUN: every row is new, some are invalid or rejected, one call is retried\n"
        )
        sync(environment)
        print_text("\nSECOND RUN: nothing has changed, so nothing is sent\n")
        sync(environment)
    print_text(f"\nLog, results and reports of this demo: {folder}")
    return ExitStatus.OK
