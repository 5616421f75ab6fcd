"""Dry runs and other readers of the state file: they do not change it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest

from records.mapping import RowMapping
from state.database import StateError
from state.outbox import Outbox
from tests.support.rows import (
    COLUMNS,
    MAPPING,
    contents,
    deliver_all,
    fill,
    outcomes_of,
    row,
    rows,
    run_python,
)

# Reading only


def test_a_dry_run_finds_the_same_rows_and_does_not_change_the_file(path: Path) -> None:
    outbox = Outbox(path)
    fill(outbox, rows(1, 2))
    deliver_all(outbox)
    outbox.close()
    before = contents(path.parent)
    dry = Outbox(path, read_only=True)
    filled = fill(dry, [*rows(1, 3), row(2, location="Oslo"), row(4, email="nobody")])
    assert (filled.total, filled.to_send, filled.changed_by_settings) == (4, 2, 0)
    assert [bool(waiting.profile) for waiting in dry.pending()] == [True, False]
    assert list(outcomes_of(dry).values()) == [
        *("unchanged", "not_attempted", "not_attempted", "invalid")
    ]
    other = RowMapping(COLUMNS, send_nulls=True, user_fields=())
    assert fill(dry, rows(1), other).changed_by_settings == 1
    dry.close()
    assert contents(path.parent) == before


def test_a_dry_run_creates_no_state_file(path: Path) -> None:
    dry = Outbox(path, read_only=True)
    filled = fill(dry, rows(1, 2))
    assert filled.to_send == 2
    assert dry.history.runs() == []
    dry.close()
    assert contents(path.parent) == {}


def test_a_dry_run_reads_the_log_of_a_killed_run_and_does_not_change_it(path: Path) -> None:
    script = """
import os, signal, sys
from pathlib import Path
from state.outbox import Outbox
from tests.support.rows import deliver_all, fill, rows
outbox = Outbox(Path(sys.argv[1]))
fill(outbox, rows(1, 2))
deliver_all(outbox)
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert run_python(script, path) == -signal.SIGKILL
    before = contents(path.parent)
    assert before["state.sqlite3-wal"]
    dry = Outbox(path, read_only=True)
    assert fill(dry, rows(1, 2, 3)).to_send == 1
    dry.close()
    after = contents(path.parent)
    before.pop("state.sqlite3-shm"), after.pop("state.sqlite3-shm")  # whoever reads writes to it
    assert after == before


def test_a_dry_run_cannot_write(path: Path) -> None:
    Outbox(path).close()
    dry = Outbox(path, read_only=True)
    with pytest.raises(StateError, match="cannot be written"):
        dry.history.begin("run", "bulk", datetime(2026, 1, 13, tzinfo=timezone.utc))
    dry.close()


# Two at once


def test_a_reader_sees_what_is_remembered_during_a_fill(path: Path) -> None:
    first = Outbox(path)
    fill(first, rows(1))
    deliver_all(first)

    def looking() -> Iterator[list[tuple[object, ...]]]:
        yield rows(2, 3)
        second = Outbox(path, read_only=True)
        seen.append(second.delivered.count())
        second.close()
        yield rows(4)

    seen: list[object] = []
    first.fill(looking(), MAPPING)
    assert seen == [1]
    assert len(list(first.pending())) == 3
    first.close()
