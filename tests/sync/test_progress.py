"""Progress on a pseudo-terminal, in a pipe and in the log."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from records.outcomes import CallResult, Verdict
from records.rows import Finished, RequestKind
from sync.progress import Call, Progress
from tests.support.terminal import Terminal, screen


class Clock:
    """A clock that only the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    """The root logger; its handlers and level are restored afterwards."""
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    logger.setLevel(logging.DEBUG)
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)


def result(
    verdict: Verdict = Verdict.DELIVERED, attempts: int = 1, elapsed_seconds: float = 0.3
) -> CallResult:
    return CallResult(verdict, 200, "Success", "", None, attempts, elapsed_seconds)


def call(
    seq: int, kind: RequestKind = RequestKind.PROFILE, outcome: CallResult | None = None
) -> Call:
    outcome = outcome or result()
    return outcome, [Finished(seq, kind, outcome, 0.0)]


def test_the_live_line_has_rows_rate_share_of_limit_time_left_and_counts(clock: Clock) -> None:
    terminal = Terminal(columns=140)
    with Progress(10_000, 500, live=True, stream=terminal.stream, clock=clock) as progress:
        clock.now += 2
        failed = result(Verdict.REJECTED)
        progress.advance([call(1, outcome=failed), call(2, outcome=result(attempts=3))], 900)
        terminal.stream.flush()
    shown = terminal.output()
    before_the_end = screen(shown[: shown.rindex("\x1b[1A")])
    assert [re.sub(r"[━╸╺ ]+", " ", line) for line in before_the_end] == [
        "900 / 10,000 9% 450 users/s 90% of limit ETA 0:20 899 delivered 1 failed 2 retries"
    ]


def test_log_lines_appear_unbroken_above_the_live_line(
    clock: Clock, root_logger: logging.Logger
) -> None:
    terminal = Terminal(columns=60)
    handler = logging.StreamHandler(terminal.stream)
    handler.setLevel(logging.INFO)
    root_logger.handlers[:] = [handler]
    with Progress(500, 500, live=True, stream=terminal.stream, clock=clock) as progress:
        for number in range(3):
            clock.now += 1
            logging.getLogger("elsewhere").error("failure %d with [bold]markup[/] :smile:", number)
            progress.advance([call(number)], number + 1)
    assert screen(terminal.output()) == [
        f"failure {number} with [bold]markup[/] :smile:" for number in range(3)
    ]


def test_many_threads_can_log_while_the_line_is_drawn(
    clock: Clock, root_logger: logging.Logger
) -> None:
    terminal = Terminal(columns=60)
    handler = logging.StreamHandler(terminal.stream)
    handler.setLevel(logging.INFO)
    root_logger.handlers[:] = [handler]
    with Progress(500, 500, live=True, stream=terminal.stream, clock=clock) as progress:

        def complain(name: int) -> None:
            for number in range(20):
                logging.getLogger("worker").warning("line %d of %d", number, name)

        threads = [threading.Thread(target=complain, args=(name,)) for name in range(8)]
        for thread in threads:
            thread.start()
        for number in range(20):
            clock.now += 0.5
            progress.advance([], number)
        for thread in threads:
            thread.join()
    lines = screen(terminal.output())
    assert sorted(lines) == sorted(f"line {n} of {name}" for n in range(20) for name in range(8))


def test_the_line_is_removed_at_the_end_and_the_log_gets_its_stream_back(
    clock: Clock, root_logger: logging.Logger
) -> None:
    terminal = Terminal()
    handler = logging.StreamHandler(terminal.stream)
    handler.setLevel(logging.INFO)
    root_logger.handlers[:] = [handler]
    with (  # noqa: PT012
        pytest.raises(RuntimeError),
        Progress(10, 500, live=True, stream=terminal.stream, clock=clock) as progress,
    ):
        progress.advance([call(1)], 1)
        assert handler.stream is not terminal.stream
        raise RuntimeError
    assert handler.stream is terminal.stream
    logging.getLogger("main").error("after")
    output = terminal.output()
    assert screen(output) == ["after"]
    assert output.count("\x1b[?25l") <= output.count("\x1b[?25h")  # the cursor is seen again


@pytest.mark.parametrize("columns", [40, 79, 80, 96, 97, 98, 99, 100])
@pytest.mark.parametrize("presses", [1, 3])
def test_half_of_the_line_and_a_ctrl_c_stayed_on_the_screen(
    clock: Clock, root_logger: logging.Logger, columns: int, presses: int
) -> None:
    terminal = Terminal(columns)
    handler = logging.StreamHandler(terminal.stream)
    root_logger.handlers[:] = [handler]
    handler.setLevel(logging.INFO)
    with Progress(300, 500, live=True, stream=terminal.stream, clock=clock) as progress:
        for number in range(3):
            clock.now += 1
            progress.advance([call(number)], number + 1)
            for _ in range(presses):
                terminal.press(b"\x03")
        logging.getLogger("main").error("stopping")
        terminal.press(b"\x03")
    assert screen(terminal.output(), columns) == ["stopping"]


@pytest.mark.parametrize("columns", [10, 24, 40, 60, 79, 80, 81, 100, 120, 160, 300])
def test_the_line_is_shorter_than_the_terminal(clock: Clock, columns: int) -> None:
    terminal = Terminal(columns)
    with Progress(1_000_000, 500, live=True, stream=terminal.stream, clock=clock) as progress:
        clock.now += 3600
        progress.advance([call(n, outcome=result(Verdict.REJECTED, 9)) for n in range(99)], 654_321)
    for line in re.split(r"[\r\n]", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.output())):
        assert len(line) < columns


def test_the_important_parts_fit_into_eighty_columns_for_a_million_rows(clock: Clock) -> None:
    terminal = Terminal(columns=80)
    with Progress(1_000_000, 500, live=True, stream=terminal.stream, clock=clock) as progress:
        clock.now += 5
        progress.advance([call(1, outcome=result(Verdict.REJECTED))], 2_400)
    output = terminal.output()
    for part in ("2,400 / 1,000,000", "480 users/s", "96% of limit", "ETA 34:38", "1 failed"):
        assert part in output


def test_no_color_is_respected_on_a_terminal(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    coloured = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-8]|9[0-7])[;\dm]")
    outputs = {}
    for no_color in ("", "1"):
        monkeypatch.setenv("NO_COLOR", no_color)
        terminal = Terminal()
        with Progress(10, 500, live=True, stream=terminal.stream, clock=clock) as progress:
            progress.advance([call(1)], 1)
        outputs[no_color] = terminal.output()
    assert coloured.search(outputs[""])
    assert not coloured.search(outputs["1"])
    assert "1 / 10" in outputs["1"]


def test_without_a_terminal_progress_is_a_log_line_a_minute(
    clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    caplog.set_level(logging.INFO, "sync.progress")
    pipe = io.StringIO()
    with Progress(100_000, 500, live=True, stream=pipe, clock=clock) as progress:
        for step in range(1, 361):
            clock.now += 0.5
            progress.advance([], step * 200)
    assert pipe.getvalue() == ""
    assert [record.getMessage() for record in caplog.records] == [
        "24,000 of 100,000 rows done (24 %), 400.0 users/s, 80% of the limit, 3:10 left; "
        "0 failed, 0 retries",
        "48,000 of 100,000 rows done (48 %), 400.0 users/s, 80% of the limit, 2:10 left; "
        "0 failed, 0 retries",
        "72,000 of 100,000 rows done (72 %), 400.0 users/s, 80% of the limit, 1:10 left; "
        "0 failed, 0 retries",
    ]
    assert {record.name for record in caplog.records} == {"sync.progress"}


def test_on_a_terminal_the_log_line_goes_to_the_file_only(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "sync.progress")
    terminal = Terminal()
    with Progress(1000, 500, live=True, stream=terminal.stream, clock=clock) as progress:
        clock.now += 61
        progress.advance([], 10)
    terminal.output()
    assert [record.levelname for record in caplog.records] == ["DEBUG"]


def test_without_live_nothing_is_drawn_on_a_terminal(clock: Clock) -> None:
    terminal = Terminal()
    with Progress(10, 500, stream=terminal.stream, clock=clock) as progress:
        progress.advance([call(1)], 1)
    assert terminal.output() == ""


def test_a_dumb_terminal_gets_no_live_line(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    terminal = Terminal()
    with Progress(10, 500, live=True, stream=terminal.stream, clock=clock) as progress:
        progress.advance([call(1)], 1)
    assert terminal.output() == ""


def test_at_debug_level_there_is_no_live_line(clock: Clock, root_logger: logging.Logger) -> None:
    terminal = Terminal()
    root_logger.handlers[:] = [logging.StreamHandler(terminal.stream)]  # every level
    with Progress(10, 500, live=True, stream=terminal.stream, clock=clock) as progress:
        progress.advance([call(1)], 1)
    assert terminal.output() == ""


def test_a_closed_window_does_not_end_the_delivery(clock: Clock) -> None:
    terminal = Terminal()
    with Progress(10, 500, live=True, stream=terminal.stream, clock=clock) as progress:
        progress.advance([call(1)], 1)
        terminal.hang_up()
        for rows in range(2, 5):
            progress.advance([call(rows)], rows)
    with contextlib.suppress(OSError):
        terminal.stream.close()
    assert progress.snapshot().rows_done == 4


def test_rich_is_imported_only_for_a_terminal() -> None:
    code = (
        "import sys; from sync import progress\n"
        "with progress.Progress(1, 1, live=True) as p:\n"
        "    p.advance([], 1)\n"
        "print([name for name in sys.modules if name.split('.')[0] == 'rich'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent.parent,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
