"""Live progress bar: the bottom line of a terminal, redrawn in place below the log lines.

`rich` is imported only when a bar is drawn, because importing it slows down the start.
"""

from __future__ import annotations

import contextlib
import logging
import os
from typing import TYPE_CHECKING, TextIO, cast

from reporting.measurements import ProgressSnapshot, clock_time

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

# A terminal that no longer exists (a closed window) must not end the run.
_TERMINAL_ERRORS_IGNORED = contextlib.suppress(OSError, ValueError)


class LiveProgressBar:
    """The bottom line of a terminal. Errors of the terminal are ignored.

    Until `close`, log handlers of the same stream write above the line.
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
        above_the_line = cast(TextIO, _StreamAboveLine(self._console))
        self._redirected_handlers = _handlers_on(stream)
        for handler in self._redirected_handlers:
            handler.setStream(above_the_line)
        with _TERMINAL_ERRORS_IGNORED:
            self._live.start()

    def show(self, snapshot: ProgressSnapshot) -> None:
        """Redraw the line."""
        with _TERMINAL_ERRORS_IGNORED:
            self._console.width = _width(self._stream)
            self._live.update(_to_line(snapshot, self._console), refresh=True)
            _return_cursor(self._console)

    def close(self) -> None:
        """Remove the line and give the log handlers their stream back."""
        with _TERMINAL_ERRORS_IGNORED:
            self._live.stop()
        for handler in self._redirected_handlers:
            handler.setStream(self._stream)


class _StreamAboveLine:
    """A stream for log handlers that prints above the live line."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def write(self, text: str) -> None:
        from rich.text import Text

        self._console.print(Text(text), end="", soft_wrap=True)
        _return_cursor(self._console)

    def flush(self) -> None:
        """Do nothing: `write` prints at once."""


def _return_cursor(console: Console) -> None:
    """Move the cursor to the start of the line, where the terminal then shows a `^C`.

    At the end of a long line the `^C` went on in the next one, and half of it was not erased.
    """
    from rich.control import Control
    from rich.segment import ControlType

    console.control(Control(ControlType.CARRIAGE_RETURN))


def _to_line(snapshot: ProgressSnapshot, console: Console) -> RenderableType:
    """Return the line, without the least important parts if it would be too long."""
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

    columns_left = console.width - 1  # some terminals wrap a full line
    fitting: list[Text] = []
    for part in (done, eta, failed, rate, share, retries, percent, delivered):
        if part.cell_len <= columns_left:
            fitting.append(part)
            columns_left -= part.cell_len + 2
    cells: list[RenderableType] = []
    for part in (done, percent, rate, share, eta, delivered, failed, retries):
        if part in fitting:
            cells.append(part)
    if columns_left >= 10:
        total = snapshot.rows_to_send or 1
        cells.insert(
            2, ProgressBar(total, snapshot.rows_done, min(columns_left, 30), complete_style="cyan")
        )
    line = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
    for _ in cells:
        line.add_column(no_wrap=True)
    line.add_row(*cells)
    return line


def can_be_live(stream: TextIO) -> bool:
    """Return whether `stream` is a terminal that can redraw a line and shows no DEBUG lines.

    At DEBUG every call logs a line, which would push the progress bar away.
    """
    try:
        is_terminal = stream.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
    except ValueError:  # the stream is closed
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
