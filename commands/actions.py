"""`--history`: the past runs, one a line."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from commands.console import print_line
from config.settings import read_setting
from errors import ExitStatus


def history(environment: Mapping[str, str]) -> int:
    """Print the past runs of the state file, the newest first."""
    from state.history import history_lines
    from state.outbox import Outbox

    outbox = Outbox(read_setting(environment, "STATE_FILE"), read_only=True)
    with contextlib.closing(outbox):
        runs = outbox.history.runs()
    for line in history_lines(runs):
        print_line(line)
    return ExitStatus.OK
