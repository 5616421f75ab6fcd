"""Project check of `--check`: whether the state file is of the project in the settings."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

from commands.check.line import CheckLine, failed, passed, warned
from config.settings import Settings
from iterable_api.http import IterableHTTP
from state.database import StateError
from state.outbox import Outbox
from state.project import Match, Project
from sync.project_check import OtherProjectError, check_key, choose_samples
from sync.source_rows import SourceRows

_NAME = "project"
_MAX_ROWS = 1_000  # among which a delivered one is looked for


def check_project(settings: Settings) -> Iterator[CheckLine]:
    """Yield the line. A new key is checked by reading back, once, what was delivered."""
    project = Project(settings.iterable_api_base_url, settings.iterable_api_key)
    try:
        opened = Outbox(settings.state_file, read_only=True)
    except StateError:
        return  # the line "state file" says why
    with closing(opened) as outbox:
        try:
            match = outbox.project.match(project)
        except StateError as error:
            yield failed(_NAME, str(error))
            return
        if match is Match.SAME:
            yield passed(_NAME, "the state file is of this Iterable project")
        elif match is Match.NOTHING_NOTED:
            yield passed(_NAME, "the state file notes the project with the first delivered request")
        else:
            yield _check_key(settings, outbox)


def _check_key(settings: Settings, outbox: Outbox) -> CheckLine:
    with SourceRows(settings, limit=_MAX_ROWS) as rows:
        samples = choose_samples(outbox.fill(rows, rows.mapping, takes_samples=True).samples)
    if not samples:
        return warned(
            _NAME,
            f"the API key is new to the state file, and none of the first {_MAX_ROWS:,} rows shows "
            "whether its project is the same: if no other row does, everything is sent once more",
        )
    address = settings.iterable_api_base_url
    with closing(IterableHTTP(settings.iterable_api_key, address, connections=1)) as http:
        try:
            check_key(
                http.get,
                address,
                samples,
                settings.state_file,
                threading.Event(),
                waits_seconds=(),
            )
        except OtherProjectError as error:
            return failed(_NAME, str(error))
    return passed(_NAME, "the API key is new to the state file, and its project is the same")
