"""Runs between a database and the sandbox, in a folder of their own and in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from config.settings import Settings
from iterable_client import IterableClient
from records.mapping import RowMapping
from sandbox.iterable_api import IterableSandbox
from state.history import PastRun
from state.outbox import Outbox
from sync.run import Options, RunReport, SyncRun
from sync.signals import StopSignal
from tests.conftest import SourceDatabase
from tests.support.rows import API_KEY
from tests.support.users import WINDOW

FAST = {
    "USERS_UPDATE_RPS": "2000",
    "EVENTS_TRACK_RPS": "2000",
    "BULK_UPDATE_RPS": "500",
    "TRACK_BULK_RPS": "500",
    "MAX_ATTEMPTS": "1",
}


@dataclass
class Runs:
    """The runs of one state file; `settings` may be changed between them."""

    folder: Path
    settings: dict[str, str]
    payloads: list[tuple[str, bytes]] = field(default_factory=list)
    to_client: Callable[..., IterableClient] = IterableClient
    settle_seconds: float = 0.5  # instead of a minute

    @classmethod
    def between(
        cls, folder: Path, source: SourceDatabase, iterable: IterableSandbox, **settings: str
    ) -> Runs:
        return cls(
            folder,
            {
                **source.settings(),
                **WINDOW,
                **FAST,
                "ITERABLE_API_KEY": API_KEY,
                "ITERABLE_API_BASE_URL": iterable.url,
                "STATE_FILE": str(folder / "state.sqlite3"),
                "RESULTS_DIR": str(folder),
                **settings,
            },
        )

    @property
    def state_file(self) -> Path:
        return Path(self.settings["STATE_FILE"])

    def run(self, stop: StopSignal | None = None, /, **options: Any) -> RunReport:
        """Run once, with these `Options`."""
        return SyncRun(
            Settings.from_environment(self.settings),
            Options(**options),
            stop or StopSignal(),
            show_payload=lambda endpoint, body: self.payloads.append((endpoint, body)),
            to_client=self.to_client,
            settle_seconds=self.settle_seconds,
        ).execute()

    def note_mapping(self) -> None:
        """Note a delivery with these settings, so that no run asks for the field types first."""
        settings = Settings.from_environment(self.settings)
        mapping = RowMapping(
            (),
            user_fields=settings.user_fields,
            event_fields=settings.event_fields,
            zone=settings.db_timezone,
            send_nulls=settings.send_nulls,
        )
        outbox = Outbox(self.state_file)
        outbox.mapping_settings.note_delivered_profile(mapping)
        outbox.close()

    def history(self) -> list[PastRun]:
        """The past runs, the newest first."""
        outbox = Outbox(self.state_file, read_only=True)
        try:
            return outbox.history.runs()
        finally:
            outbox.close()

    def with_query(self, query: str) -> None:
        """Let the next runs use this query."""
        path = self.folder / "query.sql"
        path.write_text(query, encoding="utf-8")
        self.settings["QUERY_FILE"] = str(path)


def results_of(report: RunReport) -> dict[str, Any]:
    """Read the results file of a run; its summary must equal the report's."""
    assert report.results_path is not None
    results: dict[str, Any] = json.loads(report.results_path.read_text(encoding="utf-8"))
    head = {name: value for name, value in results.items() if name != "records"}
    assert head == report.summary.to_json()
    assert len(results["records"]) == report.summary.total_users
    return results


def counts_of(report: RunReport) -> dict[str, int]:
    """Return the counts that are not zero."""
    names = (
        *("successful", "partial_failures", "total_failures", "unchanged"),
        *("invalid", "duplicates", "not_attempted"),
    )
    said = report.summary.to_json()
    assert sum(said[name] for name in names) == said["total_users"]
    return {name: said[name] for name in names if said[name]}
