"""`python -m tools.fault_table`: every fault in either mode, as a table in Markdown.

Exit status 1 where a case does not end as it must; the table says so, too.
"""

from __future__ import annotations

import logging
import sys

from sandbox.iterable_api import IterableSandbox
from tests.support.fault_runs import stage
from tests.support.faults_and_ends import all_cases

_HEAD = ("fault", "hits", "on", "mode", "exit", "rows", "calls / retries", "next run")


def main() -> int:
    logging.disable(logging.CRITICAL)
    print(f"| {' | '.join(_HEAD)} |\n|{'---|' * len(_HEAD)}")  # noqa: T201 - what it is for
    wrong_count = 0
    with stage() as made, IterableSandbox() as iterable:
        for case in all_cases():
            try:
                cells = made.check(case, iterable).cells()
            except Exception as error:  # noqa: BLE001 - one line of the table, and on it goes
                wrong_count += 1
                cells = [str(case), f"WRONG: {type(error).__name__} {error}"]
            print(f"| {' | '.join(cells)} |", flush=True)  # noqa: T201
    return 1 if wrong_count else 0


if __name__ == "__main__":
    sys.exit(main())
