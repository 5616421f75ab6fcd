"""A database and an Iterable that a real run has brought into step, to be disturbed by tests.

A plugin of the modules that name it in `pytest_plugins`, and what they import from it lies in
`tests.support.sync_pair`.
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
    """Return the embedded server and a sandbox with the same 12 people."""
    add_users(embedded.run_sql, range(1, USER_COUNT + 1))
    with IterableSandbox(api_key=KEY) as iterable:
        both = SyncPair(tmp_path, embedded, iterable)
        both.sync()
        yield both
