"""Run property tests for hours: `python -m tools.fuzzing [TARGET ...] --minutes N [--seed S]`.

The targets are the tests in `tests/properties`, each in a process of its own. `atheris`, which is
guided by coverage, makes the examples where it is installed, and hypothesis otherwise. An example
that fails, crashes, hangs or uses too much memory is a finding: it is printed with its
input, and the search goes on. Exit status 1 means that there were findings.

Why not hypofuzz: its licence forbids commercial use, version 25.11.1 crashes with the hypothesis
that is pinned here, and with an older one it made 74 executions of `rows` in a minute (this
program: 1,808) and 847 of `waits` (7,166).
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
    "rows": "test_rows:test_every_row_is_counted_once_in_the_results",
    "row-keys": "test_rows:test_any_row_becomes_a_record_with_a_key_or_is_invalid",
    "row-hashes": "test_rows:test_a_changed_payload_has_another_change_hash",
    "emails": "test_rows:test_any_text_is_an_email_address_or_not",
    "settings": "test_settings:test_any_settings_work_or_are_refused_by_name",
    "secrets": "test_settings:test_no_message_about_settings_shows_a_secret",
    "env-files": "test_settings:test_any_env_file_is_read_or_refused_in_one_line",
    "long-env-lines": "test_settings:test_a_long_line_of_an_env_file_is_read_quickly",
    "responses": "test_responses:test_any_response_gets_a_verdict_and_is_delivered_only_if_it"
    "_says_so",
    "batches": "test_responses:test_any_bulk_response_settles_each_row_or_sends_it_again_in_a"
    "_smaller_batch",
    "outside-responses": "test_responses:test_any_response_passed_in_from_outside_gets_a_verdict",
    "waits": "test_responses:test_any_retry_after_is_a_finite_wait_or_none",
    "state-bytes": "test_state_file:test_any_bytes_of_a_state_file_work_or_are_refused_unchanged",
    "state-edits": "test_state_file:test_any_edit_of_a_state_file_works_or_is_refused_unchanged",
    "failures": "test_failures:test_a_run_sends_what_the_rules_say",
    "locks": "test_state_file:test_a_lock_file_may_hold_any_bytes",
    "stored": "test_source_reading:test_any_stored_user_or_event_is_equal_or_its_differences_are"
    "_listed",
    "comparisons": "test_source_reading:test_any_two_values_can_be_compared",
    "checks": "test_source_reading:test_any_response_to_the_check_is_reported_in_lines",
    "flags": "test_command_line:test_any_flags_without_settings_end_with_a_message_and_a_status",
    "query-files": "test_command_line:test_any_bytes_of_a_query_file_are_read_or_refused",
    "long-emails": "test_rows:test_a_long_email_address_is_checked_quickly",
}
HANG_SECONDS = 60
# Many properties call fsync, which is quick in memory.
IN_MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None
MEMORY_BYTES = 3_000_000_000
MAX_PRINTED_CHARACTERS = 4_000
# Packages that read hostile input for the program: their branches guide the search, too.
GUIDING_PACKAGES = ("dotenv", "email_validator", "urllib3", "requests")


class Report:
    """Executions and findings of one process, kept on disk because any example may kill it."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.path, self.seconds = folder / "report.json", seconds
        self.executions = 0
        self.findings: dict[str, str] = {}
        self._started_at = time.monotonic()
        self._last_input = os.open(folder / "last input", os.O_RDWR | os.O_CREAT, 0o600)
        self._errors = (folder / "errors").open("ab")  # as standard error
        self._written_at = 0.0

    def begin(self, example: str) -> None:
        """Record the example that is about to run; end the process when its time is over."""
        seconds = time.monotonic() - self._started_at
        if seconds - self._written_at > 1 or seconds > self.seconds:
            self._written_at = seconds
            self.write()
            if seconds > self.seconds:
                sys.stdout.flush()
                os._exit(0)  # neither atheris nor hypothesis can be stopped in another way
        self.executions += 1
        content = example.encode("utf-8", "backslashreplace")
        os.pwrite(self._last_input, content, 0)
        os.ftruncate(self._last_input, len(content))
        faulthandler.dump_traceback_later(HANG_SECONDS, exit=True, file=self._errors)

    def add(self, error: Exception, example: str) -> None:
        """Record a finding: one for each place in the code, with the shortest input found."""
        frames = traceback.extract_tb(error.__traceback__)
        inside = [each for each in frames if each.filename.startswith(str(PROJECT_FOLDER))]
        ours = [each for each in inside if "site-packages" not in each.filename]
        at = (ours or frames)[-1]
        place = f"{type(error).__name__} at {Path(at.filename).name}:{at.lineno}"
        message = "".join(traceback.format_exception_only(type(error), error)).strip()
        if place not in self.findings:
            write_line(f"FINDING {place}\n{''.join(traceback.format_tb(error.__traceback__)[-8:])}")
        previous = self.findings.get(place)
        text = f"{message[:MAX_PRINTED_CHARACTERS]}\n  input: {example[:MAX_PRINTED_CHARACTERS]}"
        if previous is None or len(text) < len(previous):
            self.findings[place] = text

    def end(self) -> None:
        """Record that the example has ended: it can no longer hang."""
        faulthandler.cancel_dump_traceback_later()

    def close(self) -> None:
        """Write the report and close its files."""
        self.write()
        os.close(self._last_input)
        self._errors.close()

    def write(self) -> None:
        """Replace the report on disk."""
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps([self.executions, self._written_at, self.findings]))
        part.replace(self.path)


def reporting(inner_test: Callable[..., None], report: Report) -> Callable[..., None]:
    """Return the body of a property that reports its failures instead of raising them."""

    @functools.wraps(inner_test)
    def run(*arguments: Any, **named: Any) -> None:
        try:
            example = repr(arguments)[1:-1] + repr(named)
        except RecursionError:
            example = "an example that is nested too deeply to be printed"
        report.begin(example)
        try:
            inner_test(*arguments, **named)
        except HypothesisException:  # `assume`
            raise
        except Exception as error:  # noqa: BLE001 - any exception is a finding
            report.add(error, example)
        finally:
            report.end()

    return run


def search(name: str, seconds: float, first_seed: int, folder: Path) -> None:
    """Run examples of one target until the time is over, and then end this process."""
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
    report = Report(folder, seconds)
    test.hypothesis.inner_test = reporting(test.hypothesis.inner_test, report)
    if is_guided:
        corpus = PROJECT_FOLDER / ".hypothesis" / "fuzz" / name
        corpus.mkdir(parents=True, exist_ok=True)
        for number in range(20):  # start from inputs that are long enough for a whole example
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
    """Import a property; for a guided search its modules are instrumented."""
    module, function = TARGETS[name].split(":")
    instrumented: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
    if is_guided:
        atheris = importlib.import_module("atheris")
        ours = [*TOP_MODULES, *PACKAGES]
        instrumented = atheris.instrument_imports(include=[*ours, *GUIDING_PACKAGES])
    with instrumented:
        for other in GUIDING_PACKAGES:
            importlib.import_module(other)
        return getattr(importlib.import_module(f"tests.properties.{module}"), function)


def run_target(name: str, minutes: float, first_seed: int) -> int:
    """Search one target, in a new process after each crash, and return the number of findings."""
    executions, seconds = 0, 0.0
    found: dict[str, str] = {}
    number = first_seed
    while (left := minutes * 60 - seconds) > 1:
        with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
            command = [sys.executable, "-m", "tools.fuzzing", name, "--seed", str(number)]
            command += ["--minutes", str(left / 60), "--inside", folder]
            started_at = time.monotonic()
            environment = {**os.environ, "TMPDIR": folder}
            with Path(folder, "errors").open("wb") as errors:
                ending = subprocess.run(
                    command, cwd=PROJECT_FOLDER, env=environment, stderr=errors, check=False
                )
            try:
                count, spent, findings = json.loads(Path(folder, "report.json").read_text())
            except OSError:
                count, spent, findings = 0, time.monotonic() - started_at, {}
            executions, found = executions + count, {**found, **findings}
            if ending.returncode:
                last = Path(folder, "last input")
                example = last.read_text()[:MAX_PRINTED_CHARACTERS] if last.exists() else "none"
                errors_text = Path(folder, "errors").read_text(errors="replace")
                why = f"{errors_text[-MAX_PRINTED_CHARACTERS:]}\n  input: {example}"
                found[f"ended with status {ending.returncode} (hang, crash, memory)"] = why
                spent = max(spent, time.monotonic() - started_at)
        seconds, number = seconds + spent, number + 1
    for place, text in found.items():
        write_line(f"{name}: {place}\n  {text}")
    write_line(f"{name}: {executions:,} executions in {seconds:,.0f} s, {len(found)} findings")
    return len(found)


def write_line(text: str) -> None:
    """Write a line to standard output at once; what UTF-8 cannot encode is escaped."""
    sys.stdout.write(text.encode("utf-8", "backslashreplace").decode() + "\n")
    sys.stdout.flush()


def main(argv: Sequence[str]) -> int:
    """Run the targets one after the other; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.fuzzing", description="Run property tests for as long as you like."
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--minutes", type=float, default=5, help="for each target (default: 5)")
    parser.add_argument(
        "--seed",
        type=int,
        default=int(time.time()),
        help="of the first process (default: the time)",
    )
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if unknown := set(arguments.targets) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    if arguments.inside:
        search(arguments.targets[0], arguments.minutes * 60, arguments.seed, arguments.inside)
    write_line(f"seed {arguments.seed}")
    names = arguments.targets or TARGETS
    return min(1, sum(run_target(name, arguments.minutes, arguments.seed) for name in names))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
