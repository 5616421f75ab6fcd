"""Somebody who does what QUICKSTART.md says, in a copy of the project that is theirs alone.

Owns what a person adds: values in `.env`, an environment without settings of ours, and a `.venv`
that has its packages already, as tests ask no package index. Refuses to know what the lines do.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.support.documents import HOME
from tests.support.program import PATIENCE_SECONDS, Ending


class Reader:
    """Reads and does, a line at a time. `own` is what this reader puts into `.env`."""

    def __init__(self, folder: Path, own: Mapping[str, str]) -> None:
        self.folder = folder
        self._own = own
        self.endings: dict[str, Ending] = {}

    def do(self, line: str) -> Ending:
        """Type a line in the project's folder."""
        if line.startswith("python3 -m venv"):
            line += " --without-pip"
        done = self.run(line)
        if line.startswith("python3 -m venv"):
            self._bring_packages()
        elif line.startswith("cp .env.example"):
            self._fill_in()
        return done

    def run(self, line: str, cwd: Path | None = None) -> Ending:
        done = subprocess.run(
            ["/bin/sh", "-c", line],
            cwd=cwd or self.folder,
            env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "COLUMNS": "100"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=PATIENCE_SECONDS,
        )
        printed = done.stdout.replace(str(self.folder), HOME)
        return Ending(done.returncode, printed, done.stderr)

    def _bring_packages(self) -> None:
        """Put our own environment where a new one is, and a pip that asks no network."""
        pip = '-m pip --disable-pip-version-check "$@" --dry-run --no-index'
        for name, arguments in {"python": '"$@"', "pip": pip}.items():
            path = self.folder / ".venv/bin" / name
            path.unlink(missing_ok=True)
            path.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments}\n', encoding="utf-8")
            path.chmod(0o755)

    def _fill_in(self) -> None:
        """Put values in the place of the template's, as an editor would."""
        path = self.folder / ".env"
        text = path.read_text(encoding="utf-8")
        for name, value in self._own.items():
            text, found = re.subn(rf"(?m)^{name}=.*$", f"{name}={value}", text)
            assert found == 1
        path.write_text(text, encoding="utf-8")
