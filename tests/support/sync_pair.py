"""A database and a sandbox that were synced, for tests that then change what Iterable has."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from commands.verify.run import Finding, verify
from config.settings import Settings
from iterable_api.comparison import Comparison
from sandbox.iterable_api import IterableSandbox
from sandbox.users_and_events import Event
from sync.run import Options, SyncRun
from sync.signals import StopSignal
from tests.conftest import SourceDatabase
from tests.support.users import WINDOW, email_of

KEY = "c0ffee00c0ffee00c0ffee00c0ffee00"
USER_COUNT = 12
LATER = 10**10  # so long after the delivery that `verify` does not wait


class SyncPair:
    """A database, a sandbox and the settings to sync and to verify them."""

    def __init__(self, folder: Path, source: SourceDatabase, iterable: IterableSandbox) -> None:
        self.source, self.iterable = source, iterable
        self.settings = Settings.from_environment(
            {
                **source.settings(),
                **WINDOW,
                "ITERABLE_API_KEY": KEY,
                "ITERABLE_API_BASE_URL": iterable.url,
                "STATE_FILE": str(folder / "state.sqlite3"),
                "RESULTS_DIR": str(folder),
                "LOG_FILE": str(folder / "run.log"),
                "CONFIRMATIONS_FILE": str(folder / "confirmations.sqlite3"),
            }
        )

    def sync(self, **options: Any) -> None:
        report = SyncRun(self.settings, Options(**options), StopSignal()).execute()
        assert report.error is None

    def findings(self, count: int = 100, now: Callable[[], float] = lambda: LATER) -> list[Finding]:
        return list(verify(self.settings, count, threading.Event(), now=now))

    def wrong(self) -> list[Finding]:
        return [each for each in self.findings() if each.comparison is not Comparison.AS_SENT]

    def event(self, number: int) -> Event:
        events = self.iterable.project.events.values()
        return next(event for event in events if event.email == email_of(number))

    def change_profile(self, number: int, **fields: Any) -> None:
        user = self.iterable.project.users[email_of(number)]
        changed = {**user.data_fields, **fields}
        user.fields_json = orjson.dumps({k: v for k, v in changed.items() if v != "gone"}).decode()

    def put_event(self, event: Event) -> None:
        project = self.iterable.project
        project.events[event.id] = event
        project._events_by_user = None

    def take_event(self, event: Event) -> None:
        project = self.iterable.project
        del project.events[event.id]
        project._events_by_user = None
