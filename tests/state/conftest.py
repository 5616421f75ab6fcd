"""A state file that does not exist yet, and the outbox of a run with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from state.outbox import Outbox


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.sqlite3"


@pytest.fixture
def outbox(path: Path) -> Iterator[Outbox]:
    made = Outbox(path)
    yield made
    made.close()
