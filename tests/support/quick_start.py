"""Run the commands of a document as a reader would, in a copy of the project.

The copy's `.venv` gets the packages of the tests' own environment, because tests do not use a
package index.
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
    """Runs one line at a time. `own` are the values that this reader enters into settings files.

    `places` maps paths in the document to paths of this reader.
    """

    def __init__(
        self, folder: Path, own: Mapping[str, str], places: Mapping[str, Path] | None = None
    ) -> None:
        self.folder = folder
        self._own = own
        self._places = {HOME: folder, **(places or {})}
        self.endings: dict[str, Ending] = {}

    def do(self, line: str) -> Ending:
        """Run a line in the project folder, and make the edits that the document asks for.

        `endings` has the result of each line when it was first run.
        """
        line_here = f"{line} --without-pip" if line.startswith("python3 -m venv") else line
        ending = self.run(line_here)
        self.endings.setdefault(line, ending)
        if line.startswith("python3 -m venv"):
            self._bring_packages()
        elif found := re.match(r"(?:cp|install) .*\.env(?:\.example)? (\S+)$", line):
            self.edit(found[1], self._own)
        return ending

    def run(self, line: str, cwd: Path | None = None) -> Ending:
        """Run a line in a shell, with an environment that holds no settings."""
        line = self._here(line)
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

    def edit(self, name: str, values: Mapping[str, str]) -> None:
        """Replace values in a settings file, as with an editor."""
        path = self.folder / self._here(name)
        text = path.read_text(encoding="utf-8")
        for setting, value in values.items():
            text, found = re.subn(rf"(?m)^{setting}=.*$", f"{setting}={self._here(value)}", text)
            assert found == 1
        path.write_text(text, encoding="utf-8")

    def _here(self, text: str) -> str:
        for name, path in self._places.items():
            text = text.replace(name, str(path))
        return text

    def _bring_packages(self) -> None:
        """Fill a new `.venv` from the tests' environment, with a pip that uses no network."""
        pip = '-m pip --disable-pip-version-check "$@" --dry-run --no-index'
        for name, arguments in {"python": '"$@"', "pip": pip}.items():
            path = self.folder / ".venv/bin" / name
            path.unlink(missing_ok=True)
            path.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments}\n', encoding="utf-8")
            path.chmod(0o755)
