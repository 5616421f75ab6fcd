"""Drive property tests for hours: `python -m tools.fuzzing [TARGET ...] --minutes N [--seed S]`.

Owns the search, one process a target, and the account of it. The properties are ordinary tests;
here their examples come from `atheris` (guided by coverage) where it is installed, else from
hypothesis alone. An example that fails, crashes, hangs or eats the memory is a finding, printed
with its input, and not the end. Exit status 1 if there was one. Refuses to know the properties.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import functools
import importlib
import importlib.util
import json
import logging
import os
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import HealthCheck, seed, settings
from hypothesis.errors import HypothesisException

from tests.support.program_files import PACKAGES, PROJECT_FOLDER, TOP_MODULES

TARGETS = {
    "rows": "test_rows:test_any_rows_are_accounted_for_one_by_one",
    "row-keys": "test_rows:test_any_row_is_a_record_or_invalid_and_only_records_have_a_full_key",
    "row-hashes": "test_rows:test_a_row_whose_payload_changes_has_another_hash",
    "emails": "test_rows:test_any_text_is_an_address_or_none",
    "settings": "test_settings:test_any_settings_work_or_are_refused_by_name",
    "secrets": "test_settings:test_no_problem_shows_a_secret",
    "env-files": "test_settings:test_any_file_is_read_or_refused_in_a_line",
    "long-env-lines": "test_settings:test_a_long_line_is_read_at_once",
    "answers": "test_responses:test_any_answer_is_a_verdict_and_success_only_where_it_says_so",
    "batches": "test_responses:test_any_answer_to_a_batch_settles_each_row_or_sends_it_again_in_a"
    "_smaller_one",
    "replies": "test_responses:test_any_answer_that_somebody_else_got_is_judged",
    "waits": "test_responses:test_any_named_wait_is_a_time_or_none",
    "state-bytes": "test_state_file:test_any_bytes_of_a_state_file_work_or_are_refused_and_left"
    "_alone",
    "state-edits": "test_state_file:test_any_edit_of_a_state_file_works_or_is_refused_and_left"
    "_alone",
    "locks": "test_state_file:test_a_lock_may_hold_anything",
    "read-back": "test_source_reading:test_anything_shown_is_as_sent_or_told_apart",
    "comparisons": "test_source_reading:test_any_two_values_can_be_compared",
    "checks": "test_source_reading:test_any_answer_to_a_check_is_a_line",
    "flags": "test_command_line:test_any_flags_without_settings_end_with_a_line_and_a_status",
    "query-files": "test_command_line:test_any_bytes_are_the_text_of_a_query_or_refused",
    "long-emails": "test_rows:test_a_long_address_is_judged_at_once",
}
HANG_SECONDS = 60
IN_MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None  # many properties call fsync
MEMORY_BYTES = 3_000_000_000
MOST_SHOWN_CHARACTERS = 4_000
# Whose branches guide the search: ours, and what reads hostile input on our behalf.
OTHERS_GUIDING = ("dotenv", "email_validator", "urllib3", "requests")


class Account:
    """What one process has done, on disk at any moment: it may die of the next example."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.path, self.seconds = folder / "account.json", seconds
        self.executions = 0
        self.findings: dict[str, str] = {}
        self._started_at = time.monotonic()
        self._last_input = os.open(folder / "last input", os.O_RDWR | os.O_CREAT, 0o600)
        self._errors = (folder / "errors").open("ab")  # as standard error
        self._written_at = 0.0

    def begin(self, shown: str) -> None:
        """Note the example that is to be tried now; end the process when its time is over."""
        seconds = time.monotonic() - self._started_at
        if seconds - self._written_at > 1 or seconds > self.seconds:
            self._written_at = seconds
            self.write()
            if seconds > self.seconds:
                sys.stdout.flush()
                os._exit(0)  # neither search has another way to end it from here
        self.executions += 1
        content = shown.encode("utf-8", "backslashreplace")
        os.pwrite(self._last_input, content, 0)
        os.ftruncate(self._last_input, len(content))
        faulthandler.dump_traceback_later(HANG_SECONDS, exit=True, file=self._errors)

    def add(self, error: Exception, shown: str) -> None:
        """Note a finding, one for each place; the shortest input that led there is shown."""
        frames = traceback.extract_tb(error.__traceback__)
        inside = [each for each in frames if each.filename.startswith(str(PROJECT_FOLDER))]
        ours = [each for each in inside if "site-packages" not in each.filename]
        at = (ours or frames)[-1]
        place = f"{type(error).__name__} at {Path(at.filename).name}:{at.lineno}"
        said = "".join(traceback.format_exception_only(type(error), error)).strip()
        if place not in self.findings:
            say(f"FINDING {place}\n{''.join(traceback.format_tb(error.__traceback__)[-8:])}")
        former = self.findings.get(place)
        text = f"{said[:MOST_SHOWN_CHARACTERS]}\n  input: {shown[:MOST_SHOWN_CHARACTERS]}"
        if former is None or len(text) < len(former):
            self.findings[place] = text

    def end(self) -> None:
        """Note that the example came to its end: nobody has to watch over it any more."""
        faulthandler.cancel_dump_traceback_later()

    def close(self) -> None:
        self.write()
        os.close(self._last_input)
        self._errors.close()

    def write(self) -> None:
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps([self.executions, self._written_at, self.findings]))
        part.replace(self.path)


def watched(inner_test: Callable[..., None], account: Account) -> Callable[..., None]:
    """Return the body of a property that takes note of itself and never fails."""

    @functools.wraps(inner_test)
    def run(*arguments: Any, **named: Any) -> None:
        try:
            shown = repr(arguments)[1:-1] + repr(named)
        except RecursionError:
            shown = "an example that is nested too deep to be shown"
        account.begin(shown)
        try:
            inner_test(*arguments, **named)
        except HypothesisException:  # `assume`
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
            account.add(error, shown)
        finally:
            account.end()

    return run


def search(name: str, seconds: float, first_seed: int, folder: Path) -> None:
    """Try examples until the time is over. Ends the process."""
    logging.basicConfig(level=logging.DEBUG, handlers=[logging.NullHandler()])
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    settings.register_profile(
        "fuzz",
        deadline=None,
        database=None,
        max_examples=1_000,
        suppress_health_check=list(HealthCheck),
    )
    settings.load_profile("fuzz")
    is_guided = importlib.util.find_spec("atheris") is not None
    test = load_test(name, is_guided=is_guided)
    test.hypothesis.inner_test = watched(test.hypothesis.inner_test, Account(folder, seconds))
    if is_guided:
        corpus = PROJECT_FOLDER / ".hypothesis" / "fuzz" / name
        corpus.mkdir(parents=True, exist_ok=True)
        for number in range(20):  # the search needs inputs long enough to be an example at all
            (corpus / f"random {number}").write_bytes(Random(number).randbytes(8_192))
        atheris = importlib.import_module("atheris")
        atheris.Setup(
            [
                *(name, f"-seed={first_seed}", "-max_len=8192", "-len_control=0"),
                *("-rss_limit_mb=0", "-timeout=600", "-verbosity=0"),
                *(f"-artifact_prefix={folder}/", str(corpus)),
            ],
            test.hypothesis.fuzz_one_input,
        )
        atheris.Fuzz()
    for number in range(first_seed, sys.maxsize):
        seed(number)(test)()


def load_test(name: str, *, is_guided: bool) -> Any:
    """Import a property and, for a guided search, all it calls with its branches counted."""
    module, function = TARGETS[name].split(":")
    counting: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
    if is_guided:
        atheris = importlib.import_module("atheris")
        ours = [*TOP_MODULES, *PACKAGES]
        counting = atheris.instrument_imports(include=[*ours, *OTHERS_GUIDING])
    with counting:
        for other in OTHERS_GUIDING:
            importlib.import_module(other)
        return getattr(importlib.import_module(f"tests.properties.{module}"), function)


def run_target(name: str, minutes: float, first_seed: int) -> int:
    """Search in processes of their own until the time is over; return how much was found."""
    executions, seconds = 0, 0.0
    found: dict[str, str] = {}
    number = first_seed
    while (left := minutes * 60 - seconds) > 1:
        with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
            command = [sys.executable, "-m", "tools.fuzzing", name, "--seed", str(number)]
            command += ["--minutes", str(left / 60), "--inside", folder]
            began_at = time.monotonic()
            environment = {**os.environ, "TMPDIR": folder}
            with Path(folder, "errors").open("wb") as errors:
                ending = subprocess.run(
                    command, cwd=PROJECT_FOLDER, env=environment, stderr=errors, check=False
                )
            try:
                tried, spent, findings = json.loads(Path(folder, "account.json").read_text())
            except OSError:
                tried, spent, findings = 0, time.monotonic() - began_at, {}
            executions, found = executions + tried, {**found, **findings}
            if ending.returncode:
                last = Path(folder, "last input")
                shown = last.read_text()[:MOST_SHOWN_CHARACTERS] if last.exists() else "none yet"
                errors_text = Path(folder, "errors").read_text(errors="replace")
                why = f"{errors_text[-MOST_SHOWN_CHARACTERS:]}\n  input: {shown}"
                found[f"ended with status {ending.returncode} (hang, crash, memory)"] = why
                spent = max(spent, time.monotonic() - began_at)
        seconds, number = seconds + spent, number + 1
    for place, text in found.items():
        say(f"{name}: {place}\n  {text}")
    say(f"{name}: {executions:,} executions in {seconds:,.0f} s, {len(found)} findings")
    return len(found)


def say(text: str) -> None:
    sys.stdout.write(text.encode("utf-8", "backslashreplace").decode() + "\n")
    sys.stdout.flush()


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.fuzzing", description="Fuzz properties.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--minutes", type=float, default=5, help="for each target (5)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the first process")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if unknown := set(arguments.targets) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    if arguments.inside:
        search(arguments.targets[0], arguments.minutes * 60, arguments.seed, arguments.inside)
    say(f"seed {arguments.seed}")
    names = arguments.targets or TARGETS
    return min(1, sum(run_target(name, arguments.minutes, arguments.seed) for name in names))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
