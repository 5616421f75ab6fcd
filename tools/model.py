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
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import NamedTuple

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.errors import HypothesisException
from hypothesis.stateful import run_state_machine_as_test

from tests.support.contract_model import Broken
from tests.support.model_machine import Counts, Step, SyncMachine, repeat
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
    broken_by: dict[str, Finding] = {}
    reported: set[str] = set()

    def on_broken(broken: Broken, steps: list[Step]) -> bool:
        if arguments.only not in str(broken) or broken.place in reported:
            return False
        known = broken_by.get(broken.place)
        if known is None or len(steps) < len(known.steps):
            broken_by[broken.place] = Finding(broken, list(steps))
        return True

    number = arguments.seed
    with world() as made:
        SyncMachine.world = made
        while time.monotonic() < ends_at and not (arguments.only and reported):
            SyncMachine.on_broken = staticmethod(on_broken)
            errors = _try(number, arguments.steps)
            SyncMachine.on_broken = staticmethod(lambda *_: True)
            for place in [each for each in broken_by if each not in reported]:
                reported.add(place)
                _say(f"FINDING {len(reported)}, seed {number}: {_shortest(broken_by[place])}\n")
            for kind, text in errors.items():
                if kind not in reported:
                    reported.add(kind)
                    _say(f"FINDING {len(reported)}, seed {number}: {text}\n")
            number += 1
            minutes = (time.monotonic() - began_at) / 60
            _say(
                f"{minutes:.1f} minutes, seeds {arguments.seed} to {number - 1}:"
                f" {Counts.examples:,} examples, {Counts.steps:,} steps, {made.run_count:,} runs,"
                f" {len(reported)} findings"
            )
    return min(1, len(reported))


class Finding(NamedTuple):
    """A broken promise and the steps that led to it."""

    broken: Broken
    steps: list[Step]


def _try(number: int, steps: int) -> dict[str, str]:
    """Run the examples of one seed; return errors that are no broken promise, by their kind."""
    few = settings(
        max_examples=_EXAMPLES_A_SEED,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],  # see `_shortest`
        print_blob=False,
        report_multiple_bugs=False,
    )
    machine = seed(number)(type(f"Seed{number}", (SyncMachine,), {}))
    try:
        with redirect_stdout(io.StringIO()):
            run_state_machine_as_test(machine, settings=few)  # type: ignore[no-untyped-call]
    except (Broken, HypothesisException):
        pass  # hypothesis raises an error of its own where the steps end otherwise the second time
    except Exception as error:  # noqa: BLE001 - a time-out, or a fault of the test itself
        text = "".join(traceback.format_exception(error))
        return {f"{type(error).__name__}: {error}"[:100]: text}
    return {}


def _shortest(finding: Finding) -> str:
    """Leave out what is not needed to break the promise, and return the steps as text.

    Hypothesis could do so, but it gives up where an end depends on the threads' order.
    """
    steps, place = finding.steps, finding.broken.place
    text = f"{finding.broken} [{place}]\n  did not happen again with the steps {steps}"
    broken, described = repeat(steps)
    if broken is not None and broken.place == place:
        text = _to_text(broken, described)
    size = len(steps)
    while size:
        start = len(steps) - size
        while start >= 1:  # the first step makes the table
            shorter = steps[:start] + steps[start + size :]
            broken, described = repeat(shorter)
            if broken is not None and broken.place == place:
                steps, text = shorter, _to_text(broken, described)
            start -= size
        size //= 2
    return text


def _to_text(broken: Broken, described: Sequence[str]) -> str:
    lines = (f"  {number}. {step}" for number, step in enumerate(described, 1))
    return "\n".join([f"{broken} [{broken.place}]", *lines])


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
