"""Fixtures for tests of `--check`: a database of either kind, and a sandbox with one key.

A pytest plugin.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.iterable_api import IterableSandbox
from tests.conftest import SourceDatabase
from tests.support.set_up import KEY, SetUp
from tests.support.users import add_users


@pytest.fixture
def api() -> Iterator[IterableSandbox]:
    with IterableSandbox(api_key=KEY) as sandbox:
        yield sandbox


@pytest.fixture
def set_up(tmp_path: Path, embedded: SourceDatabase, api: IterableSandbox) -> SetUp:
    add_users(embedded.run_sql, range(1, 4))
    return SetUp(tmp_path, embedded, api)


@pytest.fixture
def on_mariadb_too(tmp_path: Path, source: SourceDatabase, api: IterableSandbox) -> SetUp:
    add_users(source.run_sql, range(1, 4))
    return SetUp(tmp_path, source, api)


@pytest.fixture
def with_mariadb(tmp_path: Path, mariadb: SourceDatabase, api: IterableSandbox) -> SetUp:
    add_users(mariadb.run_sql, range(1, 4))
    return SetUp(tmp_path, mariadb, api)
