"""One run as a process of its own, with a short wait after moved addresses.

`python -m tests.support.run_once SECONDS`, with the settings in the environment. A real run waits a
minute.
"""

from __future__ import annotations

import os
import sys

from config.settings import Settings
from sync.run import Options, SyncRun
from sync.signals import stop_signals


def main() -> int:
    """Run; return 0 if nothing ended the run early."""
    settings = Settings.from_environment(os.environ)
    with stop_signals() as stop:
        report = SyncRun(
            settings,
            Options(shows_progress=False),
            stop,
            settle_seconds=float(sys.argv[1]),
        ).execute()
    if report.error is not None:
        sys.stderr.write(f"{report.error}\n")
    return 0 if report.error is None else 1


if __name__ == "__main__":
    sys.exit(main())
