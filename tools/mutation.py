"""Would a test notice? Change a module in one small place, run its tests, and list what survives.

    .venv/bin/python -m tools.mutation records [--jobs 2] [--results FILE] [--survivors-of FILE]

Owns the running: every mutant in a copy of the project, in a process of its own that was forked
after pytest and the packages were imported, so that it starts at once, under a time limit.
A hang counts as killed. `tools/mutations.py` knows what there is to change.
"""

from __future__ import annotations

import argparse
import difflib
import gc
import glob
import importlib
import json
import multiprocessing
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings

from tools.mutations import Mutant, mutants_of, unparsed

PROJECT = Path(__file__).resolve().parent.parent
# The tests that speak of a module, and need no database; the quickest first.
TESTS = {
    "records/mapping": "records/test_mapping.py records/test_emails.py records/test_times.py"
    " records/test_change_hashes.py",
    "iterable_api/rate_limiter": "iterable_api/test_backoff.py iterable_api/test_rate*.py"
    " iterable_api/test_retries.py",
    "iterable_client": "iterable_api/test_iterable_client.py iterable_api/test_connections.py"
    " iterable_api/test_[eflr]*.py",
    "state/outbox": "state/test_outbox*.py state/test_disk_full.py",
    "sync/dispatcher": "sync/test_dispatcher*.py sync/test_event_delay.py"
    " sync/test_bulk_delivery.py",
    "iterable_api/responses": "iterable_api/test_responses.py iterable_api/test_requested_waits.py",
}
# What takes long to import. Nothing of ours: each mutant imports that itself.
PACKAGES = (
    "aiohttp.web email_validator hypothesis.strategies mysql.connector orjson pytest_socket"
    " pytest_timeout requests rich xdist.plugin _hypothesis_pytestplugin"
)
MEMORY_BYTES = 4 << 30


@dataclass(frozen=True)
class Ending:
    """What became of one mutant: "survived", "killed" or "hung", and by which test."""

    line: int
    change: str
    outcome: str
    by: str


def main() -> int:
    """Mutate one module; the status is 1 where a mutant survived."""
    parser = argparse.ArgumentParser(prog="python -m tools.mutation")
    parser.add_argument("module", choices=sorted(TESTS))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--results", type=Path, help="JSON lines, a mutant each; carried on")
    parser.add_argument("--survivors-of", type=Path, help="only those that survived in this file")
    arguments = parser.parse_args()
    source = (PROJECT / f"{arguments.module}.py").read_text(encoding="utf-8")
    mutants = list(mutants_of(source))
    if arguments.survivors_of:
        survived = {
            ending.change
            for ending in _read(arguments.survivors_of)
            if ending.outcome == "survived"
        }
        mutants = [mutant for mutant in mutants if _change(source, mutant) in survived]
    endings = _read(arguments.results) if arguments.results else []
    known = {(ending.line, ending.change) for ending in endings}
    mutants = [mutant for mutant in mutants if (mutant.line, _change(source, mutant)) not in known]
    _warm_up()
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        _Bench.folder, _Bench.module, _Bench.source = Path(folder), arguments.module, source
        _Bench.limit_seconds = 600.0
        started_at = time.monotonic()
        unchanged = _ending(Mutant(0, unparsed(source)))
        if unchanged.outcome != "survived":
            sys.stderr.write(f"The tests fail on the unchanged module: {unchanged.by}\n")
            return 2
        _Bench.limit_seconds = 20 + 4 * (time.monotonic() - started_at)
        with (
            open(arguments.results or os.devnull, "a", encoding="utf-8") as results,
            multiprocessing.get_context("fork").Pool(arguments.jobs) as pool,
        ):
            for ending in pool.imap_unordered(_ending, mutants):
                endings.append(ending)
                results.write(json.dumps(asdict(ending), ensure_ascii=False) + "\n")
                results.flush()
                sys.stderr.write(f"\r{len(endings)} of {len(known) + len(mutants)} ")
    for ending in sorted(endings, key=lambda ending: ending.line):
        if ending.outcome == "survived":
            sys.stdout.write(f"{arguments.module}.py:{ending.line}\n{ending.change}\n")
    counts = Counter(ending.outcome for ending in endings)
    sys.stdout.write(f"{arguments.module}: {len(endings)} mutants, {dict(counts)}\n")
    return 1 if counts["survived"] else 0


class _Bench:
    """What the forked processes inherit."""

    folder: Path
    module: str
    source: str
    limit_seconds: float


def _read(results: Path) -> list[Ending]:
    if not results.exists():
        return []
    return [Ending(**json.loads(line)) for line in results.read_text("utf-8").splitlines()]


def _change(source: str, mutant: Mutant) -> str:
    before, after = unparsed(source).splitlines(), mutant.source.splitlines()
    difference = list(difflib.unified_diff(before, after, n=0, lineterm=""))[2:]
    return "\n".join(line for line in difference if not line.startswith("@@"))


def _warm_up() -> None:
    for package in PACKAGES.split():
        importlib.import_module(package)
    # One failure is enough: shrinking it takes a hundred times as long as finding it.
    hypothesis_settings.register_profile(
        "mutants",
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow],
        phases=(Phase.explicit, Phase.generate),
    )
    gc.freeze()


def _ending(mutant: Mutant) -> Ending:
    project = _Bench.folder / str(os.getpid())
    if not project.exists():
        _copy_project(project)
    (project / f"{_Bench.module}.py").write_text(mutant.source, encoding="utf-8")
    # Python knows a compiled file's source by second and size: two mutants may share both.
    changed = project / f"{_Bench.module}.py"
    for compiled in (changed.parent / "__pycache__").glob(f"{changed.stem}.*"):
        compiled.unlink()
    output = project.with_suffix(".output")
    child = os.fork()
    if child == 0:
        _run_tests(project, output)
    status = _wait(child)
    change = _change(_Bench.source, mutant)
    if status is None:
        return Ending(mutant.line, change, "hung", "")
    outcome = "survived" if status == 0 else "killed"
    failed = re.findall(r"^(?:FAILED|ERROR) .*", output.read_text(errors="replace"), re.MULTILINE)
    return Ending(mutant.line, change, outcome, "; ".join(failed)[:200])


def _copy_project(project: Path) -> None:
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listed, cwd=PROJECT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(PROJECT / name, project / name)


def _run_tests(project: Path, output: Path) -> None:
    os.setsid()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.chdir(project)
    sys.path[:] = [str(project), *(entry for entry in sys.path if Path(entry) != PROJECT)]
    for name in [name for name in sys.modules if name.split(".")[0] == "tests"]:
        del sys.modules[name]
    options = ["-x", "-q", "--tb=no", "-pno:cacheprovider", "-pno:unraisableexception"]
    status = 70
    try:
        for pattern in TESTS[_Bench.module].split():
            tests = sorted(glob.glob(f"tests/{pattern}"))
            status = int(pytest.main([*options, "--hypothesis-profile=mutants", *tests]))
            if status:
                break
    finally:
        sys.stdout.flush()
        os._exit(status)


def _wait(child: int) -> int | None:
    """Return the exit status, None where the time was up; nothing of the process remains."""
    until = time.monotonic() + _Bench.limit_seconds
    status = None
    while time.monotonic() < until:
        ended, how = os.waitpid(child, os.WNOHANG)
        if ended:
            status = os.waitstatus_to_exitcode(how)
            break
        time.sleep(0.01)
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:
        return status
    if status is None:
        os.waitpid(child, 0)
    return status


if __name__ == "__main__":
    sys.exit(main())
