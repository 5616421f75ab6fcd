"""Run `main.py` as a process, with a clean environment and in a folder of the test.

Tests give the settings and look at exit status, output and files.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.program_files import PACKAGES, PROJECT_FOLDER
from tests.support.users import WINDOW

if TYPE_CHECKING:
    from sandbox.iterable_api import IterableSandbox
    from tests.conftest import SourceDatabase

API_KEY = "0123456789abcdef0123456789abcdef"
PATIENCE_SECONDS = 60.0
# The only variables of the developer's environment that the program gets.
_PASSED_ON = ("PATH", "LANG", "COVERAGE_PROCESS_START")


@dataclass(frozen=True)
class Ending:
    """How the program ended. `status` is what a shell shows: 137 after SIGKILL."""

    status: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        """Standard output, then standard error."""
        return self.stdout + self.stderr


class Running:
    """A running program."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_over(self) -> bool:
        return self._process.poll() is not None

    def send(self, number: signal.Signals) -> None:
        """Send a signal; does nothing if the program has ended."""
        self._process.send_signal(number)

    def ending(self, patience_seconds: float = PATIENCE_SECONDS) -> Ending:
        """Wait for the end; kills a program that takes longer, and raises TimeoutExpired."""
        try:
            stdout, stderr = self._process.communicate(timeout=patience_seconds)
        except BaseException:
            self._process.kill()
            self._process.communicate()
            raise
        status = self._process.returncode
        return Ending(128 - status if status < 0 else status, stdout, stderr)

    def killed(self) -> Ending:
        """Kill it with SIGKILL, and wait for its end."""
        self.send(signal.SIGKILL)
        return self.ending()


class Program:
    """`python main.py` with one set of settings, in a folder of its own.

    `settings` become environment variables. The developer's own `.env` is not read: `env_file`,
    which is empty unless a test writes to it, is passed with `--env-file`.
    """

    def __init__(
        self, folder: Path, settings: Mapping[str, str], *, project: Path = PROJECT_FOLDER
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.project = project
        self.state_file = folder / "state.sqlite3"
        self.log_file = folder / "run.log"
        self.env_file = folder / "settings.env"
        self.env_file.touch(0o600)
        self.settings = {
            "STATE_FILE": str(self.state_file),
            "RESULTS_DIR": str(folder),
            "LOG_FILE": str(self.log_file),
            **settings,
        }

    @classmethod
    def between(
        cls, folder: Path, source: SourceDatabase, iterable: IterableSandbox, **settings: str
    ) -> Program:
        """Return the program that syncs this database to this sandbox."""
        return cls(
            folder,
            {
                **source.settings(),
                **WINDOW,
                "ITERABLE_API_KEY": API_KEY,
                "ITERABLE_API_BASE_URL": iterable.url,
                **settings,
            },
        )

    def start(
        self,
        *flags: str,
        settings: Mapping[str, str | None] | None = None,
        cwd: Path | None = None,
        reads_env_file: bool = True,
        umask: int = 0o022,
    ) -> Running:
        """Start it; `settings` replace or extend its own, None removes one."""
        changed = {**self.settings, **(settings or {})}
        environment = {name: value for name, value in changed.items() if value is not None}
        environment |= {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        env_file = ["--env-file", str(self.env_file)] if reads_env_file else []
        return Running(
            subprocess.Popen(
                [sys.executable, str(self.project / "main.py"), *env_file, *flags],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                env=environment,
                cwd=cwd or self.folder,
                umask=umask,
            )
        )

    def run(
        self,
        *flags: str,
        settings: Mapping[str, str | None] | None = None,
        cwd: Path | None = None,
        reads_env_file: bool = True,
    ) -> Ending:
        """Start it and wait for its end."""
        return self.start(
            *flags, settings=settings, cwd=cwd, reads_env_file=reads_env_file
        ).ending()

    @property
    def results_files(self) -> list[Path]:
        """The results files, the oldest first."""
        found = Path(self.settings["RESULTS_DIR"]).glob("integration_results_*.json")
        return sorted(found, key=lambda path: path.stat().st_mtime_ns)

    @property
    def results(self) -> dict[str, Any]:
        """The newest results file."""
        newest: dict[str, Any] = json.loads(self.results_files[-1].read_text(encoding="utf-8"))
        return newest

    @property
    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8")

    def outcomes(self) -> dict[str | None, str]:
        """Return the outcome of each row in the newest results file, by e-mail."""
        return {row["email"]: row["outcome"] for row in self.results["records"]}


def counts_of(results: Mapping[str, Any]) -> dict[str, int]:
    """Return the counts of a results file that are not zero; checks that they add up."""
    names = (
        *("successful", "partial_failures", "total_failures", "unchanged"),
        *("invalid", "duplicates", "not_attempted"),
    )
    counts = {name: results[name] for name in names}
    assert sum(counts.values()) == results["total_users"] == len(results["records"])
    return {name: count for name, count in counts.items() if count}


def copy_of_project(folder: Path) -> Path:
    """Copy the program, without a `.env`, and return the folder of the copy."""
    folder.mkdir(parents=True)
    for source in PROJECT_FOLDER.glob("*.py"):
        shutil.copy(source, folder)
    for name in (*PACKAGES, "sql", "sandbox"):
        shutil.copytree(
            PROJECT_FOLDER / name, folder / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    return folder


def wait_until(happened: Callable[[], bool], patience_seconds: float = 20.0) -> None:
    """Return as soon as `happened()` is true; fails if that takes too long."""
    deadline = time.monotonic() + patience_seconds
    while not happened():
        assert time.monotonic() < deadline, f"did not happen within {patience_seconds} s"
        time.sleep(0.01)
