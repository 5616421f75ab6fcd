"""Print how a run ends under each fault of the sandbox: `python -m tools.fault_table`.

The table is in Markdown and has every fault in both modes. Exit status 1 means that a run did not
end as `tests/support/faults_and_ends.py` says; its line is marked WRONG.
"""

from __future__ import annotations

import logging
import sys

from sandbox.iterable_api import IterableSandbox
from tests.support.fault_runs import stage
from tests.support.faults_and_ends import all_cases

_HEAD = ("fault", "hits", "on", "mode", "exit", "rows", "calls / retries", "next run")


def main() -> int:
    """Print the table; return the exit status."""
    logging.disable(logging.CRITICAL)
    print(f"| {' | '.join(_HEAD)} |\n|{'---|' * len(_HEAD)}")  # noqa: T201 - printing is its purpose
    failed_count = 0
    with stage() as made, IterableSandbox() as iterable:
        for case in all_cases():
            try:
                cells = made.check(case, iterable).cells()
            except Exception as error:  # noqa: BLE001 - it goes into the table
                failed_count += 1
                cells = [str(case), f"WRONG: {type(error).__name__} {error}"]
            print(f"| {' | '.join(cells)} |", flush=True)  # noqa: T201
    return 1 if failed_count else 0


if __name__ == "__main__":
    sys.exit(main())
