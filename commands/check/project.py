"""Project check of `--check`: is the state file of this project, and what did it reject?"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

from commands.check.line import CheckLine, failed, passed, warned
from config.settings import Settings
from iterable_api.http import IterableHTTP
from records.mapping import RowMapping
from records.rows import RequestKind
from state.database import StateError
from state.outbox import Outbox
from state.project import Match
from sync.project_check import OtherProjectError, check_key, choose_samples, to_project

_NAME = "project"


def check_project(
    settings: Settings, rows: Sequence[Sequence[Any]], mapping: RowMapping
) -> Iterator[CheckLine]:
    """Yield the lines. A new key is checked by reading back, once, what was delivered.

    `rows` are the first rows of the query, among which a delivered one is looked for.
    """
    project = to_project(settings)
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
            yield _check_key(settings, outbox, rows, mapping)
        for kind in RequestKind:
            code = outbox.mass_rejections.code(kind)
            if code is not None:
                yield warned(
                    "mass rejection",
                    f"the last run sent no more {kind.value}s, because Iterable rejected most of "
                    f"them with {code or 'an error'}; the next run tries some of these rows first",
                )


def _check_key(
    settings: Settings, outbox: Outbox, rows: Sequence[Sequence[Any]], mapping: RowMapping
) -> CheckLine:
    samples = choose_samples(outbox.fill([rows], mapping, takes_samples=True).samples)
    if not samples:
        return warned(
            _NAME,
            "the API key is new to the state file, and none of the checked rows shows whether its "
            "project is the same: if no other row does, everything is sent once more",
        )
    address = settings.iterable_api_base_url
    with closing(IterableHTTP(settings.iterable_api_key, address, connections=1)) as http:
        try:
            check_key(http.get, settings, samples, threading.Event(), waits_seconds=())
        except OtherProjectError as error:
            return failed(_NAME, str(error))
    return passed(_NAME, "the API key is new to the state file, and its project is the same")
