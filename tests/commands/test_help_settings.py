"""`--help-settings` lists every setting, whether or not there is a usable `.env` file."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from commands.help_settings import help_lines, print_settings
from config.settings import DEFAULTS, NAMES, SETTINGS
from errors import ExitStatus
from tests.support.program import Program


def test_every_setting_is_listed_with_its_default_and_its_meaning() -> None:
    text = "\n".join(help_lines())
    listed = dict(re.findall(r"(?m)^  ([A-Z_]+)=?(.*)$", text))
    assert list(listed) == list(NAMES)
    assert {name: listed[name] for name in DEFAULTS} == DEFAULTS
    meanings = textwrap.dedent(text).replace("\n      ", " ")
    assert all(setting.help in meanings for setting in SETTINGS)


def test_the_list_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert print_settings() == ExitStatus.OK
    assert capsys.readouterr().out == "".join(f"{line}\n" for line in help_lines())


@pytest.mark.slow
def test_the_list_needs_no_settings(tmp_path: Path) -> None:
    ending = Program(tmp_path, {}).run("--help-settings", reads_env_file=False)
    assert (ending.status, ending.stderr) == (0, "")
    assert ending.stdout == "".join(f"{line}\n" for line in help_lines())
