"""The text of the settings file: what was answered, with a comment for each setting."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import groupby

from config.settings import SETTINGS

_HEADING = """\
# Settings of the sync, written by main.py --init. The others have their defaults: see
# .env.example. Real environment variables win over this file. Relative paths start at the
# project folder. Put quotes around a value with spaces, # or quotes: 'like #this'.
"""


def env_text(settings: Mapping[str, str]) -> str:
    """Return the file, with the settings in the order of `Settings`."""
    chosen = [declared for declared in SETTINGS if declared.name in settings]
    parts = [_HEADING]
    for group, members in groupby(chosen, key=lambda declared: declared.group):
        lines = [f"# --- {group} ---"]
        for declared in members:
            lines += [f"# {declared.help}", f"{declared.name}={quoted(settings[declared.name])}"]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def quoted(value: str) -> str:
    """Return a value as `.env` needs it: in single quotes, unless it has plain characters only."""
    if re.fullmatch(r"[\w./:,=@+-]*", value, re.ASCII):
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
