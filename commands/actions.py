"""What the command line can ask for instead of a sync, a function each.

Every one returns its exit status; what it cannot do it raises. Knows no flags.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from commands.console import print_line, print_text
from config.settings import Settings
from errors import ConfigError, ExitStatus


def check(environment: Mapping[str, str], env_file: str | None) -> int:
    """Print a line for each thing that a run needs; 0 when all are there, else 2."""
    from commands.check.run import check_setup, settings_problems
    from config.parsers import PROJECT_FOLDER
    from logger_config import register_secret

    path: Path | None = Path(env_file) if env_file else PROJECT_FOLDER / ".env"
    if path is not None and not path.is_file():
        path = None
    try:
        settings = Settings.from_environment(environment)
    except ConfigError as error:
        lines = settings_problems(error)
    else:
        for secret, label in settings.secrets():
            register_secret(secret, label)
        lines = check_setup(settings, path)
    all_ok = True
    for line in lines:
        print_line(str(line))
        all_ok = all_ok and line.ok
    return ExitStatus.OK if all_ok else ExitStatus.BAD_SETTINGS


def verify_delivered(settings: Settings, count: int, stop: threading.Event) -> int:
    """Read people back from Iterable and print what is not as it was sent.

    Returns 3 if anything is not, 1 if not all could be read back.
    """
    from commands.verify.run import VerificationTally, verify

    tally = VerificationTally()
    for finding in verify(settings, count, stop):
        tally.add(finding)
        if finding.details:
            print_line(str(finding))
    print_line(f"Read back: {tally}")
    if tally.has_differences:
        return ExitStatus.SOME_FAILED
    return ExitStatus.OK if tally.is_complete else ExitStatus.STOPPED_EARLY


def export(settings: Settings, path: Path) -> int:
    """Write the query's rows to a CSV file."""
    from commands.export import export_rows
    from sync.source_rows import SourceRows

    with SourceRows(settings) as rows:
        count = export_rows(rows, path)
    print_line(f"{count:,} rows written to {path}")
    return ExitStatus.OK


def demo(sync: Callable[[Mapping[str, str]], int]) -> int:
    """Run the real pipeline twice against the sandbox: the second run sends only what failed."""
    try:
        from sandbox.demo import demo_servers
    except ImportError as error:
        raise ConfigError(
            [f"--demo needs {error.name}: pip install -r requirements-dev.txt"]
        ) from error

    folder = Path(tempfile.mkdtemp(prefix="mysql-to-iterable-demo-"))
    with demo_servers() as leading_there:
        environment = {
            **leading_there,
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
