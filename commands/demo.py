"""`--demo`: two runs of the real pipeline against an embedded MySQL server and Iterable API."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from commands.console import print_text
from errors import ConfigError, ExitStatus


def run_demo(sync: Callable[[Mapping[str, str]], int]) -> ExitStatus:
    """Sync twice with the sample data; the second run sends only what failed in the first."""
    try:
        from sandbox.demo import demo_servers
    except ImportError as error:
        raise ConfigError(
            [f"--demo needs {error.name}: pip install -r requirements-dev.txt"]
        ) from error

    folder = Path(tempfile.mkdtemp(prefix="mysql-to-iterable-demo-"))
    with demo_servers() as connection_settings:
        environment = {
            **connection_settings,
            "STATE_FILE": str(folder / "sync_state.sqlite3"),
            "RESULTS_DIR": str(folder),
            "LOG_FILE": str(folder / "iterable_integration.log"),
            "REPORT": "true",
        }
        print_text(
            "A MySQL server with sample data and an Iterable that answers like the real one now\n"
            "run on this machine, for the length of this demo; the program is the real one.\n\n"
            "FIRST RUN: everything is new, some rows are bad, one call fails once\n"
        )
        sync(environment)
        print_text("\nSECOND RUN: nothing is sent twice; what failed is tried again\n")
        sync(environment)
    print_text(f"\nLog, results and reports of this demo: {folder}")
    return ExitStatus.OK
