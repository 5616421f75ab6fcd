"""Soak test: runs the program repeatedly under random faults (`python -m benchmarks.soak`).

Each round changes some users, sets random faults of Iterable or the database, and runs the program:
in one long-lived process, where leaks add up, or in a separate one, which may be killed. It prints
memory and open files over time; at the end it compares Iterable with the database. Linux only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.machine import machine_line, versions_line
from benchmarks.processes import PROJECT_FOLDER, BenchmarkError, Sandbox, environment, sandbox
from benchmarks.soak_users import SoakUsers
from tests.support.mariadb import PrivateMariaDB

# Faults of which each round draws some. A call that hangs costs the program's time-out of 30 s.
_FAULTS: Sequence[dict[str, Any]] = (
    {"fault": "status", "status": "any", "probability": 0.1},
    {"fault": "status", "status": "any", "applied": True, "probability": 0.1},
    {"fault": "status", "status": 408, "probability": 0.05},
    {"fault": "status", "status": 400, "probability": 0.05},
    {"fault": "status", "status": 401, "nth": 100},
    {"fault": "rate_limited", "probability": 0.05},
    {"fault": "rate_limited", "reset": None, "retry_after": 1, "probability": 0.05},
    {"fault": "malformed_json", "probability": 0.05},
    {"fault": "html_body", "probability": 0.05},
    {"fault": "half_body", "probability": 0.05},
    {"fault": "empty_body", "probability": 0.05},
    {"fault": "huge_body", "bytes": 9_000_000, "times": 2},
    {"fault": "drop_before", "probability": 0.1},
    {"fault": "drop_after", "probability": 0.1},
    {"fault": "miscount", "probability": 0.2},
    {"fault": "miscount", "by": 1, "probability": 0.2},
    {"fault": "success_code_on_error", "probability": 0.05},
    {"fault": "error_code_on_200", "probability": 0.05},
    {"fault": "echo_request", "status": 500, "probability": 0.05},
    {"fault": "redirect", "nth": 150},
    {"fault": "down", "from_seconds": 1, "to_seconds": 3},
    {"fault": "down"},
    {"fault": "delay", "seconds": 0.5, "probability": 0.1},
)
_HANG = {"fault": "hang", "nth": 20, "times": 1}
_HANG_SHARE = 0.02
_NO_FAULT_SHARE = 0.2  # rounds without a fault, which deliver what is still open
_OWN_PROCESS_SHARE = 0.25
_KILL_SHARE = 0.5  # of the separate processes
_DATABASE_KILL_SHARE = 0.03
# By default the tests' MariaDB may lose its last second when it is killed; here it must not.
_DURABLE_OPTIONS = ("--innodb-flush-log-at-trx-commit=1",)
_TIMEOUT_SECONDS = 240.0
_EXPECTED_STATUSES = frozenset({0, 1, 3, 128 + signal.SIGTERM, 128 + signal.SIGKILL})
_MAX_GROWTH = 1.1  # from the second quarter, when caches are warm, to the last


@dataclass
class Sample:
    """Resources of the long-lived process after a run."""

    minute: float
    memory_bytes: int
    open_files: int
    threads: int


@dataclass
class Soak:
    """Counts and problems so far."""

    endings: Counter[int] = field(default_factory=Counter)
    samples: list[Sample] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    kill_count: int = 0
    database_kill_count: int = 0

    def add_run(self, status: int, output: str, what: str) -> None:
        """Count a run by its exit status, and note an unexpected one."""
        self.endings[status] += 1
        if status not in _EXPECTED_STATUSES or "Traceback" in output:
            self.problems.append(f"{what}: exit status {status}: {output[-1_000:]}")


class LongLivedProcess:
    """The `soak_process` that runs the program many times."""

    def __init__(self, settings: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.soak_process"],
            cwd=PROJECT_FOLDER,
            env={**environment(), **settings},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, flags: Sequence[str]) -> dict[str, Any]:
        """Run the program once; return the reply of `soak_process`."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise BenchmarkError("the program's process has no pipes")
        stdin.write(f"{json.dumps(list(flags))}\n")
        stdin.flush()
        line = stdout.readline()
        if not line:
            raise BenchmarkError(f"the program's process ended with {self._process.wait()}")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def close(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.communicate()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the soak; return 0 if no resource grew and Iterable has exactly the right data."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak", description=__doc__.split("\n", 1)[0]
    )
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--users", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args(argv)
    _print(machine_line(), versions_line(), f"seed {arguments.seed}", "")
    soak = Soak()
    with _servers(arguments.users) as (users, api, settings):
        long_lived = LongLivedProcess(settings)
        try:
            _rounds(soak, long_lived, users, api, settings, arguments)
            _last_runs(soak, long_lived, api)
        finally:
            long_lived.close()
        soak.problems += users.differences(api.users(), api.events())
    soak.problems += growth(soak.samples)
    _print("", f"runs by exit status: {dict(sorted(soak.endings.items()))}")
    _print(f"runs killed: {soak.kill_count}; MariaDB killed: {soak.database_kill_count}")
    _print(*soak.problems or ["no problems: every user has the right profile and each event once"])
    return 1 if soak.problems else 0


@contextlib.contextmanager
def _servers(count: int) -> Iterator[tuple[SoakUsers, Sandbox, dict[str, str]]]:
    with (
        PrivateMariaDB(options=_DURABLE_OPTIONS) as server,
        sandbox(latency_ms=5) as api,
        TemporaryDirectory() as folder,
    ):
        users = SoakUsers(server, count)
        yield (
            users,
            api,
            {
                **users.settings,
                "ITERABLE_API_KEY": "soak-key",
                "ITERABLE_API_BASE_URL": api.url,
                "STATE_FILE": f"{folder}/state.sqlite3",
                "RESULTS_DIR": folder,
                "LOG_FILE": f"{folder}/log",
                "RESULTS_KEEP": "20",
                "REPORT": "true",
                "METRICS_FILE": f"{folder}/metrics",
                "MAX_ATTEMPTS": "3",
                "OUTAGE_PATIENCE_SECONDS": "5",
                "REJECTED_RETRY_HOURS": "0",  # the fault that rejected a row may be over
                "BULK_UPDATE_RPS": "50",
                "TRACK_BULK_RPS": "50",
                "BULK_BATCH_SIZE": "50",
            },
        )


def _rounds(
    soak: Soak,
    long_lived: LongLivedProcess,
    users: SoakUsers,
    api: Sandbox,
    settings: dict[str, str],
    arguments: argparse.Namespace,
) -> None:
    rng = random.Random(arguments.seed)  # noqa: S311 - repeatable, not secret
    started_at = time.monotonic()
    printed_at = 0.0
    while (minute := (time.monotonic() - started_at) / 60) < arguments.minutes:
        users.change(rng)
        faults = _draw_faults(rng)
        api.set_faults(faults)
        flags = ["--mode", rng.choice(("per-user", "bulk"))]
        if rng.random() < 0.05:
            flags.append("--full-refresh")
        what = f"minute {minute:.1f}, {flags}, {faults}"
        if rng.random() < _OWN_PROCESS_SHARE:
            _run_separately(soak, flags, settings, rng, what)
            continue
        with _perhaps_killed_database(soak, users, rng):
            reply = long_lived.run(flags)
        soak.add_run(reply["status"], reply["output"], what)
        resources = [reply[name] for name in ("memory_bytes", "open_files", "threads")]
        soak.samples.append(Sample(minute, *resources))
        if minute - printed_at >= 1 or len(soak.samples) == 1:
            printed_at = minute
            _print_status(soak)
    _print_status(soak)


def _draw_faults(rng: random.Random) -> list[dict[str, Any]]:
    if rng.random() < _NO_FAULT_SHARE:
        return []
    faults = rng.sample(_FAULTS, rng.randint(1, 4))
    return [*faults, _HANG] if rng.random() < _HANG_SHARE else faults


def _run_separately(
    soak: Soak, flags: Sequence[str], settings: dict[str, str], rng: random.Random, what: str
) -> None:
    """Run in a separate process, and perhaps kill it during the run."""
    process = subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, "main.py", *flags],
        cwd=PROJECT_FOLDER,
        env={**environment(), **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        if rng.random() < _KILL_SHARE:
            time.sleep(rng.uniform(0.1, 1.5))
            process.send_signal(rng.choice((signal.SIGKILL, signal.SIGTERM)))
            soak.kill_count += 1
        output, _ = process.communicate(timeout=_TIMEOUT_SECONDS)
    except BaseException:
        process.kill()
        process.communicate()
        raise
    status = process.returncode
    soak.add_run(128 - status if status < 0 else status, output, what)


@contextlib.contextmanager
def _perhaps_killed_database(soak: Soak, users: SoakUsers, rng: random.Random) -> Iterator[None]:
    """Perhaps kill the database during the block; it runs again afterwards."""
    if rng.random() >= _DATABASE_KILL_SHARE:
        yield
        return
    soak.database_kill_count += 1
    with users.killed_after(rng.uniform(0.0, 0.3)):
        yield


def _last_runs(soak: Soak, long_lived: LongLivedProcess, api: Sandbox) -> None:
    """Run twice without faults: the first delivers the rest, the second must find nothing."""
    api.set_faults([])
    for flags in (["--mode", "per-user"], ["--mode", "bulk"]):
        reply = long_lived.run([*flags, "--json"])
        soak.add_run(reply["status"], reply["output"], f"final run, {flags}")
        if reply["status"] != 0:
            soak.problems.append(f"a final run ended with {reply['status']}: {reply['output']}")
    if '"api_calls": 0,' not in reply["output"]:
        soak.problems.append(f"the final run still had something to send: {reply['output']}")


def growth(samples: Sequence[Sample]) -> list[str]:
    """Return the resources that grew from the second quarter of the runs to the last."""
    quarter = len(samples) // 4
    if not quarter:
        return ["too few runs to tell whether memory, files or threads grow"]
    problems = []
    for name in ("memory_bytes", "open_files", "threads"):
        values = [getattr(sample, name) for sample in samples]
        before, after = median(values[quarter : 2 * quarter]), median(values[-quarter:])
        if after > before * _MAX_GROWTH:
            problems.append(f"{name} grew from {before:,.0f} to {after:,.0f}")
    return problems


def _print_status(soak: Soak) -> None:
    now = soak.samples[-1]
    _print(
        f"minute {now.minute:5.1f}: {soak.endings.total():5,} runs, "
        f"{now.memory_bytes / 1e6:6.1f} MB, {now.open_files:3} open files, "
        f"{now.threads} threads, {len(soak.problems)} problems"
    )


def _print(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
