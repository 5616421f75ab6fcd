"""Many runs of `main.py` as processes of their own, without the time that Python takes to start.

`RunServer` starts one process that has imported the program and forks it for each run. A run can
so be killed, stopped or locked out as in real life, and takes 50 ms instead of 500.

Each run begins a quarter of an hour after the one before, as `time.time()` tells it. So what was
delivered is not taken for something that Iterable may still have to apply.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NoReturn

from tests.support.program_files import PROJECT_FOLDER

PATIENCE_SECONDS = 100.0
SECONDS_BETWEEN_RUNS = 900.0
# Imported before the first fork. The program imports some of them only when it needs them.
_MODULES = (
    *("main", "commands.sync", "sync.run", "mysql.connector", "requests", "orjson"),
    *("email_validator", "zoneinfo", "encodings.idna", "mysql.connector.plugins"),
    "mysql.connector.plugins.mysql_native_password",
)


@dataclass(frozen=True)
class RunEnding:
    """How a run ended. `status` is what a shell shows: 137 after SIGKILL."""

    status: int
    stdout: str
    stderr: str


class ForkedRun:
    """A run in progress."""

    def __init__(self, server: RunServer, pid: int, folder: Path) -> None:
        self._server = server
        self.pid = pid
        self._folder = folder

    @property
    def is_over(self) -> bool:
        return self._server.status_of(self.pid, 0.0) is not None

    def send(self, number: signal.Signals) -> None:
        """Send a signal; does nothing if the run has ended."""
        if not self.is_over:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def ending(self) -> RunEnding:
        """Wait for the end; kills a run that takes too long, and raises TimeoutError."""
        status = self._server.status_of(self.pid, PATIENCE_SECONDS)
        if status is None:
            self.send(signal.SIGKILL)
            raise TimeoutError(f"a run took over {PATIENCE_SECONDS:.0f} s")
        out, err = (self._folder / name for name in ("stdout", "stderr"))
        return RunEnding(status, out.read_text("utf-8"), err.read_text("utf-8"))


class RunServer:
    """The process that forks the runs; a context manager, for one thread."""

    def __enter__(self) -> RunServer:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.run_server"],
            cwd=PROJECT_FOLDER,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._statuses: dict[int, int] = {}
        self._received = b""
        self._started: list[int] = []
        self._run_count = 0
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _stream(self._process.stdin).close()
        self._process.wait(PATIENCE_SECONDS)
        _stream(self._process.stdout).close()

    def start(
        self, flags: Sequence[str], environment: Mapping[str, str], folder: Path
    ) -> ForkedRun:
        """Start `main.py` with these flags; its output goes to files in the folder."""
        self._run_count += 1
        for name in ("stdout", "stderr"):  # here, as the run may be killed before it opens them
            (folder / name).touch()
        task = {
            "flags": list(flags),
            "environment": dict(environment),
            "folder": str(folder),
            "clock_is_ahead_seconds": self._run_count * SECONDS_BETWEEN_RUNS,
        }
        _stream(self._process.stdin).write(json.dumps(task).encode() + b"\n")
        _stream(self._process.stdin).flush()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self._started:
            self._receive(deadline - time.monotonic())
        return ForkedRun(self, self._started.pop(), folder)

    def status_of(self, pid: int, patience_seconds: float) -> int | None:
        """Return the exit status of a run, None if it has not ended within this time."""
        deadline = time.monotonic() + patience_seconds
        while pid not in self._statuses:
            if not self._receive(max(0.0, deadline - time.monotonic())):
                return None
        return self._statuses[pid]

    def _receive(self, patience_seconds: float) -> bool:
        """Read what the process says; return False if it says nothing in this time."""
        stream = _stream(self._process.stdout)
        if not select.select([stream], [], [], patience_seconds)[0]:
            return False
        received = os.read(stream.fileno(), 65_536)
        if not received:
            raise RuntimeError("the process that forks the runs has ended")
        *lines, self._received = (self._received + received).split(b"\n")
        for line in lines:
            word, pid, *status = line.decode().split()
            if word == "started":
                self._started.append(int(pid))
            else:
                self._statuses[int(pid)] = int(status[0])
        return True


def _stream(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


# In the process that forks. It has one thread: a fork of more is not safe.


class _Clock:
    ahead_seconds = 0.0
    real = staticmethod(time.time)

    def __call__(self) -> float:
        return self.real() + self.ahead_seconds


_clock = _Clock()


def _serve() -> None:
    time.time = _clock
    for name in _MODULES:
        with contextlib.suppress(ImportError):  # not every version of the connector has them all
            __import__(name)
    wake_reader, wake_writer = os.pipe()
    os.set_blocking(wake_writer, False)
    signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tool that started it
    waiting = b""
    while True:
        for readable in select.select([0, wake_reader], [], [])[0]:
            received = os.read(readable, 65_536)
            if readable == wake_reader:
                _report_ended()
                continue
            if not received:
                return
            *tasks, waiting = (waiting + received).split(b"\n")
            for task in tasks:
                pid = os.fork()
                if pid == 0:
                    _run(json.loads(task))
                _say(f"started {pid}")


def _report_ended() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        code = os.waitstatus_to_exitcode(status)
        _say(f"ended {pid} {128 - code if code < 0 else code}")


def _say(line: str) -> None:
    os.write(1, line.encode() + b"\n")


def _run(task: Mapping[str, Any]) -> NoReturn:
    status = 99
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        for descriptor, name in ((0, os.devnull), (1, "stdout"), (2, "stderr")):
            flags = os.O_RDWR if name == os.devnull else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            opened = os.open(os.path.join(task["folder"], name), flags, 0o600)
            os.dup2(opened, descriptor)
            os.close(opened)
        _clock.ahead_seconds = task["clock_is_ahead_seconds"]
        os.environ.clear()
        os.environ.update(task["environment"])
        sys.argv = ["main.py", *task["flags"]]
        import main

        try:
            main.main()
        except SystemExit as ending:
            status = int(ending.code or 0)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


if __name__ == "__main__":
    _serve()
