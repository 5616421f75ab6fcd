"""One line at the foot of a terminal, redrawn in place while log lines pass above it.

Owns the drawing (`rich`, imported only where there is a terminal) and the truce with the log
handlers that write to the same terminal: their lines appear above. Knows nothing of a run but
its `ProgressSnapshot`.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO, cast

from reporting.measurements import ProgressSnapshot, clock_time

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


class LiveProgressBar:
    """One line at the foot of a terminal, redrawn in place. Its trouble stops nothing.

    While it is there, the log handlers that write to the same stream write above it.
    """

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live

        self._stream = stream
        self._console = Console(file=stream, force_terminal=True, width=_width(stream))
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        above = cast(TextIO, _Above(self._console))
        self._moved = _handlers_on(stream)
        for handler in self._moved:
            handler.setStream(above)
        with _errors_ignored():
            self._live.start()

    def show(self, snapshot: ProgressSnapshot) -> None:
        """Draw the line anew."""
        with _errors_ignored():
            self._console.width = _width(self._stream)
            self._live.update(_drawn(snapshot, self._console), refresh=True)

    def close(self) -> None:
        """Take the line away and give the log its stream back."""
        with _errors_ignored():
            self._live.stop()
        for handler in self._moved:
            handler.setStream(self._stream)


class _Above:
    """What a log handler needs of a stream; each text appears above the live line."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def write(self, text: str) -> None:
        from rich.text import Text

        self._console.print(Text(text), end="", soft_wrap=True)

    def flush(self) -> None:
        """Nothing is held back."""


def _drawn(snapshot: ProgressSnapshot, console: Console) -> RenderableType:
    """Lay out the line: what the width has no room for is left out, the least needed first."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    left = snapshot.seconds_left
    done = Text(f"{snapshot.rows_done:,} / {snapshot.rows_to_send:,}", "bold")
    percent = Text(f"{int(snapshot.share_done * 100)}%")
    rate = Text(f"{snapshot.rows_per_second:,.0f} users/s", "cyan")
    share = Text(f"{snapshot.share_of_ceiling:.0%} of limit", "cyan")
    eta = Text(f"ETA {'-' if left is None else clock_time(left)}", "bold")
    delivered = Text(f"{snapshot.rows_delivered:,} delivered", "green")
    failed = Text(f"{snapshot.rows_failed:,} failed", "red" if snapshot.rows_failed else "dim")
    retries = Text(f"{snapshot.retries:,} retries", "yellow" if snapshot.retries else "dim")

    room = console.width - 1  # a terminal may wrap a full line
    shown: list[Text] = []
    for part in (done, eta, failed, rate, share, retries, percent, delivered):
        if part.cell_len <= room:
            shown.append(part)
            room -= part.cell_len + 2
    cells: list[RenderableType] = []
    for part in (done, percent, rate, share, eta, delivered, failed, retries):
        if part in shown:
            cells.append(part)
    if room >= 10:
        total = snapshot.rows_to_send or 1
        cells.insert(
            2, ProgressBar(total, snapshot.rows_done, min(room, 30), complete_style="cyan")
        )
    line = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
    for _ in cells:
        line.add_column(no_wrap=True)
    line.add_row(*cells)
    return line


def can_be_live(stream: TextIO) -> bool:
    """Say whether a line can be redrawn there, and is not driven off by a line for each call."""
    try:
        is_terminal = stream.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
    except ValueError:  # closed
        return False
    return is_terminal and all(h.level > logging.DEBUG for h in _handlers_on(stream))


def _handlers_on(stream: TextIO) -> list[logging.StreamHandler[TextIO]]:
    return [
        handler
        for handler in logging.getLogger().handlers
        if isinstance(handler, logging.StreamHandler) and handler.stream is stream
    ]


def _width(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


@contextlib.contextmanager
def _errors_ignored() -> Iterator[None]:
    """A terminal that went away (a closed window) ends the line, not the run."""
    with contextlib.suppress(OSError, ValueError):
        yield
