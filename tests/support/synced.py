"""Fixture: a database and a sandbox that a real run has synced.

A pytest plugin; `SyncPair` itself is in `tests.support.sync_pair`, for modules to import.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.iterable_api import IterableSandbox
from tests.conftest import SourceDatabase
from tests.support.sync_pair import KEY, USER_COUNT, SyncPair
from tests.support.users import add_users


@pytest.fixture
def synced(tmp_path: Path, embedded: SourceDatabase) -> Iterator[SyncPair]:
    """The embedded server and a sandbox with the same 12 users."""
    add_users(embedded.run_sql, range(1, USER_COUNT + 1))
    with IterableSandbox(api_key=KEY) as iterable:
        both = SyncPair(tmp_path, embedded, iterable)
        both.sync()
        yield both
