"""Crash recovery after `kill -9` at random moments: nothing is lost, and few requests are repeated.

`--log-cli-level=INFO` shows how many requests each kill caused to be repeated.
"""

from __future__ import annotations

import json
import logging
import random
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sandbox.calls import CallRecord
from sandbox.iterable_api import IterableSandbox
from sandbox.project import Project
from tests.conftest import SourceDatabase
from tests.support.program import Program, counts_of, wait_until
from tests.support.users import add_users, check_project, sent_calls

logger = logging.getLogger(__name__)

SEED = 20260113
LATENCY_SECONDS = 0.05
# A crash may repeat the calls in flight and one second of finished ones.
AT_RISK_SECONDS = 1.0
# From the signal to the end of the process, on a busy machine.
SLACK_SECONDS = 0.1

Request = tuple[str, str]  # endpoint of the single call, e-mail


class Kill(NamedTuple):
    """One killed run, counted in requests."""

    sent: int
    at_risk: int  # sent by calls that the next run may repeat
    repeated: int  # applied by Iterable, and sent again by the next run


class Killer:
    """Starts runs, kills them at random moments, and counts the repeated requests."""

    def __init__(self, program: Program, iterable: IterableSandbox) -> None:
        self._program = program
        self._iterable = iterable
        self._random = random.Random(SEED)

    def kill_one(self, latest_seconds: float, *, in_delivery: bool = False) -> Kill:
        """Start a run, kill it, and learn from a dry run what the next one would send.

        The kill comes up to `latest_seconds` after the start, or after the first call.
        """
        calls_before = len(sent_calls(self._iterable))
        running = self._program.start()
        if in_delivery:
            wait_until(lambda: len(sent_calls(self._iterable)) > calls_before)
        time.sleep(self._random.uniform(0.0, latest_seconds))
        killed_at = time.time()
        status = running.killed().status
        assert status == 137, "the run ended before it was killed"
        calls = sent_calls(self._iterable)[calls_before:]
        oldest = killed_at - AT_RISK_SECONDS - LATENCY_SECONDS - SLACK_SECONDS
        # A call whose response was lost is in flight until it was repeated.
        at_risk = [call for call in calls if call.at >= oldest or call.fault == "drop_after"]
        sent = [request for call in calls for request in _requests(call)]
        forgotten = set(sent) & set(self._to_be_sent())
        kill = Kill(len(sent), sum(len(_requests(call)) for call in at_risk), len(forgotten))
        logger.info("%s", kill)
        return kill

    def _to_be_sent(self) -> list[Request | None]:
        """List the requests of the next run; None stands for one that Iterable has not applied."""
        dry = self._program.run("--dry-run", "--limit", "1000000", settings={"RESULTS_KEEP": "1"})
        assert dry.status == 0, dry.output
        lines = [line.partition(" ") for line in dry.stdout.splitlines()]
        return [
            _already_there(self._iterable.project, endpoint, json.loads(body))
            for endpoint, _, body in lines
            if endpoint in ("users/update", "events/track")
        ]


def _requests(call: CallRecord) -> list[Request]:
    """List the requests in a call, single or bulk."""
    is_event = call.endpoint.startswith("events/")
    rows = call.body.get("users") or call.body.get("events") or [call.body]
    return [("events/track" if is_event else "users/update", row["email"]) for row in rows]


def _already_there(project: Project, endpoint: str, body: dict[str, Any]) -> Request | None:
    email = body["email"]
    if endpoint == "events/track":
        is_there = body["id"] in project.events
    else:
        user = project.users.get(email)
        is_there = user is not None and user.data_fields == body["dataFields"]
    return (endpoint, email) if is_there else None


def check_kills(kills: list[Kill]) -> None:
    """Check that the next run repeats only calls in flight and the last second's results."""
    assert all(kill.repeated <= kill.at_risk for kill in kills), kills
    assert sum(kill.sent for kill in kills) > 0, kills


def test_after_two_kills_every_user_has_one_event_and_the_right_profile(
    embedded: SourceDatabase, tmp_path: Path
) -> None:
    add_users(embedded.run_sql, range(1, 121))
    with IterableSandbox(latency_seconds=LATENCY_SECONDS) as iterable:
        program = Program.between(tmp_path, embedded, iterable, USERS_UPDATE_RPS="100")
        killer = Killer(program, iterable)
        check_kills([killer.kill_one(0.5, in_delivery=True) for _ in range(2)])
        assert program.run(settings={"USERS_UPDATE_RPS": "500"}).status == 0
        check_project(iterable.project, range(1, 121))


@pytest.mark.parametrize(
    ("mode", "rows", "kill_count"), [("per-user", 2_400, 8), ("bulk", 2_000, 6)]
)
def test_kills_and_lost_responses_lose_nothing_and_duplicate_nothing(
    mariadb: SourceDatabase,
    tmp_path: Path,
    mode: str,
    rows: int,
    kill_count: int,
) -> None:
    add_users(mariadb.run_sql, range(1, rows + 1))
    mariadb.run_sql("UPDATE customers SET last_name = 'Before' WHERE id % 7 = 0")
    with IterableSandbox(
        latency_seconds=LATENCY_SECONDS,
        faults=[{"fault": "drop_after", "probability": 0.02}],
        keep_calls=100_000,
    ) as iterable:
        program = Program.between(
            tmp_path,
            mariadb,
            iterable,
            SYNC_MODE=mode,
            USERS_UPDATE_RPS="180",
            BULK_UPDATE_RPS="15",
            TRACK_BULK_RPS="15",
            BULK_BATCH_SIZE="10",
        )
        killer = Killer(program, iterable)
        # Every other kill comes in the delivery, also where the machine is slow to start.
        kills = [killer.kill_one(2.4, in_delivery=n % 2 == 1) for n in range(kill_count // 2)]
        # Between the runs some names change: the newest values have to win.
        mariadb.run_sql("UPDATE customers SET last_name = CONCAT('Last', id) WHERE id % 7 = 0")
        kills += [killer.kill_one(2.4, in_delivery=n % 2 == 1) for n in range(kill_count // 2)]
        check_kills(kills)
        fast = {"USERS_UPDATE_RPS": "500", "BULK_BATCH_SIZE": "1000"}
        ending = program.run(settings=fast)
        assert ending.status == 0, ending.output
        check_project(iterable.project, range(1, rows + 1))
        assert program.run().status == 0
        assert counts_of(program.results) == {"unchanged": rows}
