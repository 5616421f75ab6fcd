"""Colour for lines on a terminal. Elsewhere, as in a cron mail, lines stay as they are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TextIO

# Patterns and the styles of `rich` for what they match.
CHECK_COLOURS: Mapping[str, str] = {
    r"^ok\b": "green",
    r"^warning\b": "yellow",
    r"^FAILED\b": "bold red",
}
SUMMARY_COLOURS: Mapping[str, str] = {
    # With SYNC_NAME: Run of shop-eu completed. A dry run goes on after a colon.
    r"^(Run|Dry run)( of .+)? completed(: .*)?$": "bold green",
    r"^(Run|Dry run)( of .+)? completed with failures(: .*)?$": "bold yellow",
    r"^(Run|Dry run)( of .+)? (aborted|interrupted)(: .*)?$": "bold red",
    r"^  successful +[0-9,]*[1-9][0-9,]*$": "green",
    r"^  (partial failures|total failures|invalid) +[0-9,]*[1-9][0-9,]*$": "red",
    r"^  not attempted +[0-9,]*[1-9][0-9,]*$": "yellow",
    r"^ +[0-9,]+ x \S+: .*$": "red",
}


def takes_colour(stream: TextIO) -> bool:
    """Return whether a stream is a terminal with colours that the user wants (no-color.org)."""
    if os.environ.get("NO_COLOR") or (os.environ.get("TERM") or "dumb") in ("dumb", "unknown"):
        return False
    try:
        return stream.isatty()
    except ValueError:  # the stream is closed
        return False


def coloured(line: str, colours: Mapping[str, str]) -> str:
    """Return a line with the control codes for its colours."""
    from rich.console import Console  # importing it takes time that other lines do not need
    from rich.text import Text

    text = Text(line)
    for pattern, style in colours.items():
        text.highlight_regex(pattern, style)
    console = Console(force_terminal=True, color_system="standard", highlight=False)
    with console.capture() as captured:
        console.print(text, end="", soft_wrap=True)
    return captured.get()
