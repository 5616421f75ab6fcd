"""Run the model-based test for hours: `python -m tools.model --minutes N [--seed S]`.

Prints each broken promise once, with the shortest steps that hypothesis found, and at the end how
many steps and runs were made. Exit status 1 means that there were findings.

`--only TEXT` looks for one finding, the one whose message contains the text, and ends with it.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.errors import HypothesisException
from hypothesis.stateful import run_state_machine_as_test

from tests.properties.test_model import Counts, SyncMachine
from tests.support.contract_model import Broken
from tests.support.model_world import world

_EXAMPLES_A_SEED = 20
_STEPS = 40


def main(argv: Sequence[str]) -> int:
    """Try one seed after the other until the time is over; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.model", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seed", type=int, default=1, help="the first seed (default: 1)")
    parser.add_argument("--only", default="", metavar="TEXT")
    parser.add_argument("--steps", type=int, default=_STEPS, help="of an example, at most")
    arguments = parser.parse_args(argv)
    ends_at = time.monotonic() + arguments.minutes * 60
    began_at = time.monotonic()
    found: dict[str, Finding] = {}
    told: set[str] = set()

    def on_broken(broken: Broken, steps: list[str]) -> bool:
        if arguments.only not in str(broken) or broken.place in told:
            return False
        known = found.get(broken.place)
        if known is None or len(steps) < len(known.steps):
            found[broken.place] = Finding(broken, list(steps))
        return True

    number = arguments.seed
    with world() as made:
        SyncMachine.world, SyncMachine.on_broken = made, staticmethod(on_broken)
        while time.monotonic() < ends_at and not (arguments.only and told):
            for place, text in [*_try(number, arguments.steps, found), *found.items()]:
                if place not in told:
                    told.add(place)
                    _say(f"FINDING {len(told)}, seed {number}: {text}\n")
            number += 1
            minutes = (time.monotonic() - began_at) / 60
            _say(
                f"{minutes:.1f} minutes, seeds {arguments.seed} to {number - 1}:"
                f" {Counts.examples:,} examples, {Counts.steps:,} steps, {made.run_count:,} runs,"
                f" {len(told)} findings"
            )
    return min(1, len(told))


class Finding:
    """A broken promise and the shortest steps that led to it."""

    def __init__(self, broken: Broken, steps: list[str]) -> None:
        self.broken, self.steps = broken, steps

    def __str__(self) -> str:
        steps = "\n".join(f"  {number}. {step}" for number, step in enumerate(self.steps, 1))
        return f"{self.broken} [{self.broken.place}]\n{steps}"


def _try(number: int, steps: int, found: Mapping[str, Finding]) -> dict[str, str]:
    """Run the examples of one seed; return errors that are no broken promise, by their kind."""
    few = settings(
        max_examples=_EXAMPLES_A_SEED,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
        print_blob=False,
        report_multiple_bugs=False,
    )
    machine = seed(number)(type(f"Seed{number}", (SyncMachine,), {}))
    found_before = len(found)
    try:
        with redirect_stdout(io.StringIO()):
            run_state_machine_as_test(machine, settings=few)
    except Broken:
        pass
    except Exception as error:  # noqa: BLE001 - a time-out, or a fault of the test itself
        # If the same steps end in another way when they are repeated, hypothesis raises an error
        # of its own; what was broken is in `found`.
        if not (isinstance(error, HypothesisException) and len(found) > found_before):
            text = "".join(traceback.format_exception(error))
            return {f"{type(error).__name__}: {error}"[:100]: text}
    return {}


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
