"""Description of the machine (without its name) and of the versions measured."""

from __future__ import annotations

import os
import platform
import re
import sqlite3
import subprocess
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

from benchmarks.processes import PROJECT_FOLDER

_PACKAGES = ("requests", "urllib3", "orjson", "mysql-connector-python", "aiohttp")


def machine_line() -> str:
    """Return processor, cores, memory, kernel and the current load."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    kernel = re.match(r"[\d.]*\d", platform.release())  # the rest identifies a build
    return (
        f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GB, {platform.system()} "
        f"{kernel.group() if kernel else ''}; load {os.getloadavg()[0]:.1f} at the start"
    )


def versions_line() -> str:
    """Return the versions of Python and of the packages that affect the figures."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    packages = [f"{name} {version(name)}" for name in _PACKAGES]
    return ", ".join([python, *packages, f"SQLite {sqlite3.sqlite_version}"])


def today() -> str:
    """Return the date in UTC."""
    return datetime.now(timezone.utc).date().isoformat()


def commit() -> str:
    """Return the short hash of the commit, with a + if files were changed since."""
    try:
        name = _git("rev-parse", "--short", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return "no commit"
    others = [line for line in changed.splitlines() if "benchmarks/RESULTS.md" not in line]
    return f"{name}+" if others else name


def _git(*arguments: str) -> str:
    done = subprocess.run(  # noqa: S603 - our own arguments
        ["git", *arguments],  # noqa: S607 - the installed git
        cwd=PROJECT_FOLDER,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def _processor() -> str:
    try:
        cpu_info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", cpu_info, re.MULTILINE)
    return found.group(1).strip() if found else platform.machine()
