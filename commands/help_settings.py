"""`--help-settings`: list every setting with its default and its meaning."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from itertools import groupby

from commands.console import print_line
from config.settings import SETTINGS
from errors import ExitStatus

WIDTH = 100


def print_settings() -> ExitStatus:
    """Print every setting."""
    for line in help_lines():
        print_line(line)
    return ExitStatus.OK


def help_lines() -> Iterator[str]:
    """Yield the settings by group: a line with name and default, then the meaning."""
    yield "Settings of .env. An environment variable of the same name wins over the file."
    for group, settings in groupby(SETTINGS, key=lambda setting: setting.group):
        yield ""
        yield f"{group}:"
        for setting in settings:
            yield f"  {setting.name}" + ("" if setting.required else f"={setting.default}")
            yield from textwrap.wrap(
                setting.help,
                WIDTH,
                initial_indent="      ",
                subsequent_indent="      ",
                break_on_hyphens=False,
            )
