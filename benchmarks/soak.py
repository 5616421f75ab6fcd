"""`python -m benchmarks.soak --minutes 30`: runs back to back under mixed faults.

Each round changes some people, breaks Iterable or the database in ways that the seed draws, and
runs the program: in a process that lives as long as the soak, where leaks add up, or in one of
its own, which may be killed. Prints memory and open files over time, and checks at the end that
Iterable has what the database has. Linux only (`/proc`). Refuses to know how the program works.
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
from benchmarks.soak_users import People
from tests.support.mariadb import PrivateMariaDB

# What may go wrong with calls in a round. What hangs costs the program's time-out of 30 s.
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
_QUIET_SHARE = 0.2  # rounds without a fault: what was left over goes through
_OWN_PROCESS_SHARE = 0.25
_KILL_SHARE = 0.5  # of these
_MYSQL_TROUBLE_SHARE = 0.03
# The tests' MariaDB may forget its last second when it is killed; here it must not.
_LOSES_NOTHING = ("--innodb-flush-log-at-trx-commit=1",)
_PATIENCE_SECONDS = 240.0
_EXPECTED = frozenset({0, 1, 3, 128 + signal.SIGTERM, 128 + signal.SIGKILL})
_GROWTH = 1.1  # from the second quarter to the last: caches are warm by then


@dataclass
class Sample:
    """What the long-lived process holds after a run."""

    minute: float
    memory_bytes: int
    open_files: int
    threads: int


@dataclass
class Soak:
    """What has happened so far."""

    endings: Counter[int] = field(default_factory=Counter)
    samples: list[Sample] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    kills: int = 0
    database_kills: int = 0

    def ended(self, status: int, output: str, what: str) -> None:
        """Take in how a run ended."""
        self.endings[status] += 1
        if status not in _EXPECTED or "Traceback" in output:
            self.troubles.append(f"{what}: exit status {status}: {output[-1_000:]}")


class Loop:
    """The process that lives as long as the soak."""

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
        """Run once; returns what `soak_loop` replies."""
        to_it, from_it = self._process.stdin, self._process.stdout
        if to_it is None or from_it is None:
            raise BenchmarkError("the program's process has no pipes")
        to_it.write(f"{json.dumps(list(flags))}\n")
        to_it.flush()
        line = from_it.readline()
        if not line:
            raise BenchmarkError(f"the program's process died: {self._process.wait()}")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


def main(argv: Sequence[str] | None = None) -> int:
    """Soak; return 0 when memory and files stayed flat and every row is where it should be."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--people", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args(argv)
    _print(machine_line(), versions_line(), f"seed {arguments.seed}", "")
    soak = Soak()
    with _world(arguments.people) as (people, api, settings):
        loop = Loop(settings)
        try:
            _rounds(soak, loop, people, api, settings, arguments)
            _last_runs(soak, loop, api)
        finally:
            loop.close()
        soak.troubles += people.differences(api.users(), api.events())
    soak.troubles += growth(soak.samples)
    _print("", f"runs by exit status: {dict(sorted(soak.endings.items()))}")
    _print(f"killed in the middle: {soak.kills}; MariaDB killed: {soak.database_kills}")
    _print(*soak.troubles or ["no trouble: everyone has the right profile and every event once"])
    return 1 if soak.troubles else 0


@contextlib.contextmanager
def _world(count: int) -> Iterator[tuple[People, Sandbox, dict[str, str]]]:
    with (
        PrivateMariaDB(options=_LOSES_NOTHING) as server,
        sandbox(latency_ms=5) as api,
        TemporaryDirectory() as folder,
    ):
        people = People(server, count)
        yield (
            people,
            api,
            {
                **people.settings,
                "ITERABLE_API_KEY": "soak-key",
                "ITERABLE_API_BASE_URL": api.url,
                "STATE_FILE": f"{folder}/state.sqlite3",
                "RESULTS_DIR": folder,
                "LOG_FILE": f"{folder}/log",
                "RESULTS_KEEP": "20",
                "REPORT": "true",
                "METRICS_FILE": f"{folder}/metrics",
                "MAX_ATTEMPTS": "3",
                "BULK_UPDATE_RPS": "50",
                "TRACK_BULK_RPS": "50",
                "BULK_BATCH_SIZE": "50",
            },
        )


def _rounds(
    soak: Soak,
    loop: Loop,
    people: People,
    api: Sandbox,
    settings: dict[str, str],
    arguments: argparse.Namespace,
) -> None:
    draw = random.Random(arguments.seed)  # noqa: S311 - repeatable, not secret
    started_at = time.monotonic()
    told_at = 0.0
    while (minute := (time.monotonic() - started_at) / 60) < arguments.minutes:
        people.change(draw)
        faults = _draw_faults(draw)
        api.set_faults(faults)
        flags = ["--mode", draw.choice(("per-user", "bulk"))]
        if draw.random() < 0.05:
            flags.append("--full-refresh")
        what = f"minute {minute:.1f}, {flags}, {faults}"
        if draw.random() < _OWN_PROCESS_SHARE:
            _run_alone(soak, flags, settings, draw, what)
            continue
        with _database_trouble(soak, people, draw):
            reply = loop.run(flags)
        soak.ended(reply["status"], reply["output"], what)
        held = [reply[name] for name in ("memory_bytes", "open_files", "threads")]
        soak.samples.append(Sample(minute, *held))
        if minute - told_at >= 1 or len(soak.samples) == 1:
            told_at = minute
            _tell(soak)
    _tell(soak)


def _draw_faults(draw: random.Random) -> list[dict[str, Any]]:
    if draw.random() < _QUIET_SHARE:
        return []
    faults = draw.sample(_FAULTS, draw.randint(1, 4))
    return [*faults, _HANG] if draw.random() < _HANG_SHARE else faults


def _run_alone(
    soak: Soak, flags: Sequence[str], settings: dict[str, str], draw: random.Random, what: str
) -> None:
    """Run in a process of its own, and perhaps end it in the middle."""
    process = subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, "main.py", *flags],
        cwd=PROJECT_FOLDER,
        env={**environment(), **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        if draw.random() < _KILL_SHARE:
            time.sleep(draw.uniform(0.1, 1.5))
            process.send_signal(draw.choice((signal.SIGKILL, signal.SIGTERM)))
            soak.kills += 1
        output, _ = process.communicate(timeout=_PATIENCE_SECONDS)
    except BaseException:
        process.kill()
        process.communicate()
        raise
    status = process.returncode
    soak.ended(128 - status if status < 0 else status, output, what)


@contextlib.contextmanager
def _database_trouble(soak: Soak, people: People, draw: random.Random) -> Iterator[None]:
    """Perhaps kill the database beside the block, and have it back afterwards."""
    if draw.random() >= _MYSQL_TROUBLE_SHARE:
        yield
        return
    soak.database_kills += 1
    with people.killed_after(draw.uniform(0.0, 0.3)):
        yield


def _last_runs(soak: Soak, loop: Loop, api: Sandbox) -> None:
    """With the faults gone: one run delivers what is left, another finds nothing to do."""
    api.set_faults([])
    for flags in (["--mode", "per-user"], ["--mode", "bulk"]):
        reply = loop.run([*flags, "--json"])
        soak.ended(reply["status"], reply["output"], f"the last runs, {flags}")
        if reply["status"] != 0:
            soak.troubles.append(f"a last run ended with {reply['status']}: {reply['output']}")
    if '"api_calls": 0,' not in reply["output"]:
        soak.troubles.append(f"the very last run had something to send: {reply['output']}")


def growth(samples: Sequence[Sample]) -> list[str]:
    """Compare the second quarter with the last."""
    quarter = len(samples) // 4
    if not quarter:
        return ["too few runs to say whether anything grows"]
    troubles = []
    for name in ("memory_bytes", "open_files", "threads"):
        values = [getattr(sample, name) for sample in samples]
        before, after = median(values[quarter : 2 * quarter]), median(values[-quarter:])
        if after > before * _GROWTH:
            troubles.append(f"{name} grew from {before:,.0f} to {after:,.0f}")
    return troubles


def _tell(soak: Soak) -> None:
    now = soak.samples[-1]
    _print(
        f"minute {now.minute:5.1f}: {soak.endings.total():5,} runs, "
        f"{now.memory_bytes / 1e6:6.1f} MB, {now.open_files:3} open files, "
        f"{now.threads} threads, {len(soak.troubles)} troubles"
    )


def _print(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
