"""`kill -9` at random moments while users leave, come back and change their addresses.

With EMAIL_CHANGES=move and ON_LEAVE=clear. In the end everybody has the right profile, address and
flag; nobody was created by a clearing, and nobody present was cleared.
`--log-cli-level=INFO` shows what each run was doing when it was killed.
"""

from __future__ import annotations

import logging
import os
import random
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from sandbox.iterable_api import IterableSandbox
from tests.conftest import SourceDatabase
from tests.support.program import wait_until
from tests.support.program_files import PROJECT_FOLDER
from tests.support.rows import API_KEY
from tests.support.runs import FAST
from tests.support.users import WINDOW, add_users, email_of, profile_of

logger = logging.getLogger(__name__)

SEED = int(os.environ.get("KILL_SEED", "20261127"))
KILLS = int(os.environ.get("KILLS", "10"))
USERS = range(1, 81)
SETTLE_SECONDS = 0.3
LATENCY_SECONDS = 0.02


class World:
    """The customers in MySQL, and what they should be in Iterable."""

    def __init__(self, source: SourceDatabase) -> None:
        self._source = source
        self._random = random.Random(SEED)
        self.emails = {number: email_of(number) for number in USERS}
        self.away: set[int] = set()
        self.last_names: dict[int, str] = {}
        self._fresh = 0
        self._givers: set[int] = set()

    def change(self) -> None:
        """Let some users leave, come back, change their address or their name."""
        # Who gave an address away stays: Iterable has it until the row says what the new one is.
        present = sorted(set(USERS) - self.away)
        for number in self._random.sample(sorted(set(present) - self._givers), 4):
            self.away.add(number)
        for number in self._random.sample(sorted(self.away), min(3, len(self.away))):
            self.away.discard(number)
        present = sorted(set(USERS) - self.away)
        for number in self._random.sample(present, 4):
            self.emails[number] = self._new_email()
        first, second, third = self._random.sample(present, 3)  # a chain
        self.emails[first], self.emails[second] = self.emails[second], self.emails[third]
        self.emails[third] = self._new_email()
        self._givers |= {second, third}
        for number in self._random.sample(present, 4):
            self._fresh += 1
            self.last_names[number] = f"New{self._fresh}"
        self._write()

    def return_some(self) -> None:
        """Let some of those who are away come back with another address."""
        for number in sorted(self.away)[:2]:
            self.away.discard(number)
            self.emails[number] = self._new_email()
        self._write()

    def _new_email(self) -> str:
        self._fresh += 1
        return f"fresh{self._fresh}@example.com"

    def _write(self) -> None:
        self._source.run_sql(
            "; ".join(
                f"UPDATE customers SET email = '{self.emails[number]}',"
                f" plan_type = '{'free' if number in self.away else 'pro'}',"
                f" last_name = '{self.last_names.get(number, f'Last{number}')}'"
                f" WHERE id = {number}"
                for number in USERS
            )
        )

    def check(self, iterable: IterableSandbox, ever_present: set[int]) -> None:
        """Check every user that Iterable has."""
        project = iterable.project
        users = {str(user.email): user for user in project.users.values()}
        present = {self.emails[number]: number for number in USERS if number not in self.away}
        assert set(present) <= set(users)
        for email, number in present.items():
            expected = {
                **profile_of(number),
                "last_name": self.last_names.get(number, f"Last{number}"),
            }
            assert users[email].data_fields == expected, number
        others = {email: user for email, user in users.items() if email not in present}
        # Each of them was delivered once, and has a whole profile: none was made by a clearing.
        assert len(others) == len(ever_present & self.away)
        for email, user in others.items():
            assert user.data_fields["recent_page_view"] is False, email
            assert "first_name" in user.data_fields, email
        events = Counter(event.user.key for event in project.events.values() if event.user)
        assert len(project.events) == len(events) == len(users), "an event is double or lost"


@pytest.mark.parametrize("mode", ["per-user", "bulk"])
def test_in_the_end_everybody_has_the_right_profile_address_and_flag(
    mariadb: SourceDatabase, tmp_path: Path, mode: str
) -> None:
    add_users(mariadb.run_sql, USERS)
    world = World(mariadb)
    chance = random.Random(SEED + 1)
    with IterableSandbox(latency_seconds=LATENCY_SECONDS, keep_calls=100_000) as iterable:
        environment = {
            **os.environ,
            **mariadb.settings(),
            **WINDOW,
            **FAST,
            "USERS_UPDATE_RPS": "200",
            "BULK_BATCH_SIZE": "10",
            "MAX_ATTEMPTS": "5",
            "ITERABLE_API_KEY": API_KEY,
            "ITERABLE_API_BASE_URL": iterable.url,
            "STATE_FILE": str(tmp_path / "state.sqlite3"),
            "RESULTS_DIR": str(tmp_path),
            "SYNC_MODE": mode,
            "EMAIL_CHANGES": "move",
            "ON_LEAVE": "clear",
        }

        def start() -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.support.run_once", str(SETTLE_SECONDS)],
                cwd=PROJECT_FOLDER,
                env=environment,
            )

        assert start().wait(60) == 0
        make_deliveries_old(tmp_path)
        for _kill in range(KILLS):
            world.change()
            count = len(iterable.calls)
            running = start()
            wait_for_calls(iterable, count, running)
            time.sleep(chance.uniform(0.0, 1.2))
            running.kill()
            running.wait()
            calls = Counter(call.endpoint for call in list(iterable.calls)[count:])
            logger.info("killed after %s", dict(calls))
        world.return_some()
        assert start().wait(120) == 0
        world.check(iterable, set(USERS))
        count = len(iterable.calls)
        assert start().wait(60) == 0
        assert len(iterable.calls) == count, "a run with nothing new makes no call"


def wait_for_calls(iterable: IterableSandbox, count: int, running: subprocess.Popen[bytes]) -> None:
    wait_until(lambda: len(iterable.calls) > count or running.poll() is not None)


def make_deliveries_old(folder: Path) -> None:
    """Let an unknown user count as gone at once, and not after an hour."""
    with sqlite3.connect(folder / "state.sqlite3") as database:
        database.execute("UPDATE delivered SET profile_at = profile_at - 86400")
    database.close()
