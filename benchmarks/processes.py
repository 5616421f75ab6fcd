"""Processes of a benchmark: the measured program, and the sandbox.

A child's peak memory starts at that of the process that forked it. So this process must stay small:
it holds no rows and runs no server.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import orjson
import requests

from benchmarks.certificates import Certificates
from config.settings import NAMES

PROJECT_FOLDER = Path(__file__).resolve().parent.parent
_STOP_SECONDS = 30.0
_MAXRSS_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024


class BenchmarkError(Exception):
    """A figure cannot be measured; the text gives the reason."""


@dataclass(frozen=True)
class EndedProcess:
    """Result of a process; CPU time and peak memory as measured by the kernel (`wait4`)."""

    exit_status: int
    started_at: float  # unix seconds
    wall_seconds: float
    cpu_seconds: float
    peak_bytes: int
    output: str


class MeasuredProcess:
    """A command that runs; `wait` returns what it used. Use it in a `with`, which kills it."""

    def __init__(
        self,
        command: Sequence[str],
        variables: Mapping[str, str] | None = None,
        folder: Path = PROJECT_FOLDER,
    ) -> None:
        self._output = TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._started_at, self._start = time.time(), time.monotonic()
        self._process = subprocess.Popen(  # noqa: S603 - our own command
            command,
            cwd=folder,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            env=environment(variables),
        )

    def __enter__(self) -> MeasuredProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
            self._process.wait()
        self._output.close()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def terminate(self) -> None:
        """Send SIGTERM."""
        os.kill(self.pid, signal.SIGTERM)

    def has_ended(self) -> bool:
        """Return whether the process has ended, without collecting its status."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def wait(self) -> EndedProcess:
        """Wait for the end; to be called once."""
        _pid, status, used = os.wait4(self.pid, 0)
        wall_seconds = time.monotonic() - self._start
        # Popen cannot know it after `wait4`.
        self._process.returncode = os.waitstatus_to_exitcode(status)
        self._output.seek(0)
        return EndedProcess(
            self._process.returncode,
            self._started_at,
            wall_seconds,
            used.ru_utime + used.ru_stime,
            used.ru_maxrss * _MAXRSS_UNIT_BYTES,
            self._output.read().decode("utf-8", "replace"),
        )


def run_measured(
    command: Sequence[str], variables: Mapping[str, str] | None = None
) -> EndedProcess:
    """Run a command until it ends."""
    with MeasuredProcess(command, variables) as process:
        return process.wait()


@contextmanager
def background(command: Sequence[str]) -> Iterator[str]:
    """Run a command in the background; yield the first line that it prints."""
    process = subprocess.Popen(  # noqa: S603 - our own command
        command, cwd=PROJECT_FOLDER, stdout=subprocess.PIPE, text=True, env=environment()
    )
    try:
        line = process.stdout.readline() if process.stdout is not None else ""
        if not line:
            raise BenchmarkError(f"{' '.join(command[1:])} did not start")
        yield line
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def environment(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for a child process, without settings and without proxies.

    The settings are in an env file; a proxy must not be used for loopback. `variables` are added.
    """
    left_out = {*NAMES, "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"}
    kept = {name: value for name, value in os.environ.items() if name.upper() not in left_out}
    return {**kept, **(variables or {})}


class Sandbox:
    """Client of a sandbox that runs in a separate process.

    `variables` are the environment variables that make a program trust its certificate.
    """

    def __init__(self, url: str, tls: Certificates | None = None) -> None:
        self.url = url
        self.variables = {} if tls is None else tls.environment
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy
        if tls is not None:
            self._session.verify = str(tls.bundle)

    def state(self) -> dict[str, Any]:
        """Return all counts."""
        return self._get("state")

    def endpoints(self) -> dict[str, Any]:
        """Return the traffic counts by endpoint."""
        found: dict[str, Any] = self.state()["endpoints"]
        return found

    def call_count(self) -> int:
        """Return the number of calls, of all endpoints."""
        count: int = self.state()["calls"]
        return count

    def calls(self) -> list[dict[str, Any]]:
        """Return the recorded calls."""
        found: list[dict[str, Any]] = self._get("calls?limit=1000000")["calls"]
        return found

    def users(self) -> list[dict[str, Any]]:
        """Return every profile."""
        found: list[dict[str, Any]] = self._get("users")["users"]
        return found

    def events(self) -> list[dict[str, Any]]:
        """Return every event."""
        found: list[dict[str, Any]] = self._get("events")["events"]
        return found

    def set_faults(self, rules: Sequence[Mapping[str, Any]]) -> None:
        """Replace the fault script."""
        self._session.post(
            f"{self.url}/sandbox/faults", data=orjson.dumps(rules), timeout=60
        ).raise_for_status()

    def reset(self) -> None:
        """Remove users, events and recorded calls."""
        self._session.post(f"{self.url}/sandbox/reset", timeout=60).raise_for_status()

    def _get(self, what: str) -> dict[str, Any]:
        response = self._session.get(f"{self.url}/sandbox/{what}", timeout=60)
        response.raise_for_status()
        content: dict[str, Any] = orjson.loads(response.content)
        return content


@contextmanager
def sandbox(
    latency_ms: float,
    tls: Certificates | None = None,
    *,
    keep_calls: int = 0,
    port: int = 0,
    limits: Mapping[str, float] | None = None,
    flags: Sequence[str] = (),
) -> Iterator[Sandbox]:
    """Run `python -m sandbox`, on a free port unless one is given; over http without `tls`.

    `limits` are calls per second by endpoint, enforced in every sliding second.
    """
    command = [sys.executable, "-m", "sandbox", "--latency-ms", f"{latency_ms:g}"]
    command += ["--port", str(port), "--keep-calls", str(keep_calls)]
    command += [] if tls is None else tls.sandbox_flags
    for endpoint, per_second in (limits or {}).items():
        command += ["--limit", f"{endpoint}={per_second:g}/sliding"]
    with background([*command, *flags]) as first_line:
        yield Sandbox(first_line.split()[-1], tls)


@dataclass(frozen=True)
class Results:
    """Content of a results file: the counts, and how many rows were settled when."""

    counts: Mapping[str, Any]
    settled: Mapping[str, int]  # time (ISO 8601, UTC) -> rows settled then
    record_count: int
    is_closed: bool  # the JSON ends as it should

    @property
    def is_complete(self) -> bool:
        """Whether every row has a record, and the seven counts add up."""
        total: int = self.counts["total_users"]
        added = sum(self.counts[name] for name in _OUTCOME_COUNTS)
        return self.is_closed and total == added == self.record_count


_OUTCOME_COUNTS = (
    "successful",
    "partial_failures",
    "total_failures",
    "unchanged",
    "invalid",
    "duplicates",
    "not_attempted",
)


@dataclass(frozen=True)
class ProgramRun:
    """One run of the program: its process, and its results file."""

    process: EndedProcess
    results: Results

    @property
    def counts(self) -> Mapping[str, Any]:
        """The counts of the results file."""
        return self.results.counts


class Program:
    """The program with its settings and state in one folder; the state is kept between runs."""

    def __init__(
        self, folder: Path, settings: Mapping[str, str], api: Sandbox | None = None
    ) -> None:
        self.folder = folder
        self._variables = {} if api is None else api.variables
        self._settings = {
            "ITERABLE_API_KEY": "benchmark-key",
            "STATE_FILE": str(folder / "state.sqlite3"),
            "RESULTS_DIR": str(folder),
            "LOG_FILE": str(folder / "log"),
            **({} if api is None else {"ITERABLE_API_BASE_URL": api.url}),
            **settings,
        }

    def start(self, *flags: str, **settings: str) -> MeasuredProcess:
        """Start the program with these settings added."""
        for old_file in self.folder.glob("integration_results_*"):
            old_file.unlink()
        env_file = self.folder / "env"
        lines = [f"{name}='{value}'\n" for name, value in {**self._settings, **settings}.items()]
        env_file.touch(mode=0o600)  # --check fails if others can read it
        env_file.write_text("".join(lines), encoding="utf-8")
        command = [sys.executable, "main.py", "--env-file", str(env_file), *flags]
        return MeasuredProcess(command, self._variables)

    def run_command(self, *flags: str, **settings: str) -> EndedProcess:
        """Run an action that writes no results; BenchmarkError unless it exits with 0."""
        with self.start(*flags, **settings) as process:
            ended = process.wait()
        _expect(ended, 0)
        return ended

    def run(self, *flags: str, **settings: str) -> ProgramRun:
        """Run the program; BenchmarkError unless it exits with 0."""
        with self.start(*flags, **settings) as process:
            return self.finish(process)

    def finish(self, process: MeasuredProcess, exit_status: int = 0) -> ProgramRun:
        """Wait for the end of a started program; BenchmarkError for another exit status."""
        ended = process.wait()
        _expect(ended, exit_status)
        return ProgramRun(ended, self.results())

    def results(self) -> Results:
        """Read the results file of the last run."""
        (path,) = self.folder.glob("integration_results_*.json")
        return _read_results(path)


def _expect(ended: EndedProcess, exit_status: int) -> None:
    if ended.exit_status != exit_status:
        output = ended.output[-2_000:]
        raise BenchmarkError(f"the program ended with exit status {ended.exit_status}:\n{output}")


def _read_results(path: Path) -> Results:
    """Read line by line: a child process must not start with the memory of a million records."""
    head, tail = b"", b""
    settled: Counter[str] = Counter()
    record_count = 0
    with path.open("rb") as file:
        for line in file:
            if b'"records": [' in line:
                tail = line.partition(b"[")[2]
                break
            head += line
        for line in file:
            if line.startswith(b"    {"):
                record = orjson.loads(line.rstrip(b",\n"))
                record_count += 1
                settled[record["timestamp"]] += 1
            else:
                tail += line
    counts: dict[str, Any] = orjson.loads(head.rstrip().rstrip(b",") + b"}")
    return Results(counts, settled, record_count, b"".join(tail.split()) == b"]}")
