"""Processes of a benchmark: the measured program, and the sandbox.

A child's peak memory starts at that of the process that forked it. So this process must stay small:
it holds no rows and runs no server.
"""

from __future__ import annotations

import os
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


def run_measured(command: Sequence[str]) -> EndedProcess:
    """Run a command until it ends."""
    with TemporaryFile() as output:
        started_at, start = time.time(), time.monotonic()
        process = subprocess.Popen(  # noqa: S603 - our own command
            command, cwd=PROJECT_FOLDER, stdout=output, stderr=subprocess.STDOUT, env=environment()
        )
        try:
            _pid, status, used = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        wall_seconds = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(status)  # Popen cannot know it after `wait4`
        output.seek(0)
        return EndedProcess(
            process.returncode,
            started_at,
            wall_seconds,
            used.ru_utime + used.ru_stime,
            used.ru_maxrss * _MAXRSS_UNIT_BYTES,
            output.read().decode("utf-8", "replace"),
        )


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


def environment() -> dict[str, str]:
    """Return the environment for a child process, without settings and without proxies.

    The settings are in an env file; a proxy must not be used for loopback.
    """
    left_out = {*NAMES, "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"}
    return {name: value for name, value in os.environ.items() if name.upper() not in left_out}


class Sandbox:
    """Client of a sandbox that runs in a separate process."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy

    def endpoints(self) -> dict[str, Any]:
        """Return the traffic counts by endpoint."""
        found: dict[str, Any] = self._get("state")["endpoints"]
        return found

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
def sandbox(latency_ms: float, keep_calls: int = 0, port: int = 0) -> Iterator[Sandbox]:
    """Run `python -m sandbox`, on a free port unless one is given."""
    command = [sys.executable, "-m", "sandbox", "--latency-ms", f"{latency_ms:g}"]
    command += ["--port", str(port)]
    with background([*command, "--keep-calls", str(keep_calls)]) as first_line:
        yield Sandbox(first_line.split()[-1])


@dataclass(frozen=True)
class ProgramRun:
    """One run of the program: its process, and the content of its results file."""

    process: EndedProcess
    counts: Mapping[str, Any]
    settled: Mapping[str, int]  # time (ISO 8601, UTC) -> rows settled then


class Program:
    """The program with its settings and state in one folder; the state is kept between runs."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        self._folder = folder
        self._settings = {
            "ITERABLE_API_KEY": "benchmark-key",
            "STATE_FILE": str(folder / "state.sqlite3"),
            "RESULTS_DIR": str(folder),
            "LOG_FILE": str(folder / "log"),
            **settings,
        }

    def run(self, *flags: str, **settings: str) -> ProgramRun:
        """Run the program with these settings added; BenchmarkError unless it exits with 0."""
        for old_file in self._folder.glob("integration_results_*"):
            old_file.unlink()
        env_file = self._folder / "env"
        lines = [f"{name}='{value}'\n" for name, value in {**self._settings, **settings}.items()]
        env_file.write_text("".join(lines), encoding="utf-8")
        command = [sys.executable, "main.py", "--env-file", str(env_file), *flags]
        ended = run_measured(command)
        if ended.exit_status != 0:
            output = ended.output[-2_000:]
            raise BenchmarkError(
                f"the program ended with exit status {ended.exit_status}:\n{output}"
            )
        (results,) = self._folder.glob("integration_results_*.json")
        return ProgramRun(ended, *_read_results(results))


def _read_results(path: Path) -> tuple[dict[str, Any], Counter[str]]:
    """Return the counts, and the number of rows settled by time; reads line by line."""
    head = b""
    settled: Counter[str] = Counter()
    with path.open("rb") as file:
        for line in file:
            if b'"records": [' in line:
                break
            head += line
        for line in file:
            if line.startswith(b"    {"):
                settled[orjson.loads(line.rstrip(b",\n"))["timestamp"]] += 1
    counts: dict[str, Any] = orjson.loads(head.rstrip().rstrip(b",") + b"}")
    return counts, settled
