"""Users of the soak: changed between runs, and compared with Iterable at the end."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from benchmarks.processes import PROJECT_FOLDER
from tests.support.mariadb import PrivateMariaDB

_DATABASE = "soak"
_SCHEMA = PROJECT_FOLDER / "sql" / "schema.sql"


class SoakUsers:
    """Customers with page views in a private MariaDB; each view is a second after the previous."""

    def __init__(self, server: PrivateMariaDB, count: int) -> None:
        self._server = server
        self._count = 0
        self._round = 0
        now = datetime.now(timezone.utc).replace(microsecond=0, tzinfo=None)
        self._next_view_at = now - timedelta(days=2)
        server.create_database(_DATABASE, _SCHEMA)
        self._add_users(count)

    @property
    def settings(self) -> dict[str, str]:
        """Settings with which the program reads these users."""
        return {
            "DB_HOST": self._server.host,
            "DB_PORT": str(self._server.port),
            "DB_USER": self._server.user,
            "DB_PASSWORD": self._server.password,
            "DB_NAME": _DATABASE,
        }

    def change(self, rng: random.Random) -> None:
        """Rename ten users, add a page view for ten, and sometimes add new users."""
        self._round += 1
        renamed_ids = rng.sample(range(1, self._count + 1), 10)
        self._run(
            f"UPDATE customers SET first_name = 'Round {self._round}'"  # noqa: S608 - numbers
            f" WHERE id IN ({', '.join(map(str, renamed_ids))})"
        )
        self._add_views(
            rng.sample(range(1, self._count + 1), 10), rng.choice(("pricing", "settings"))
        )
        if rng.random() < 0.1:
            self._add_users(rng.randint(1, 2))

    @contextlib.contextmanager
    def killed_after(self, seconds: float) -> Iterator[None]:
        """Kill the server this long after the block starts; restart it when the block ends."""
        timer = threading.Timer(seconds, os.kill, (self._server.pid, signal.SIGKILL))
        timer.start()
        try:
            yield
        finally:
            timer.join()
            self._server.stop()
            self._server.start()

    def differences(
        self, users: Sequence[Mapping[str, Any]], events: Sequence[Mapping[str, Any]]
    ) -> list[str]:
        """Return the differences between Iterable's data and the database."""
        profiles, latest, views = self.expected()
        found = {user["email"]: user["dataFields"] for user in users}
        wrong = [email for email in profiles if found.get(email) != profiles[email]]
        tracked = Counter(
            (event["email"], event["createdAt"], event["dataFields"]["page"]) for event in events
        )
        differences = {
            "wrong profiles": wrong,
            "unknown profiles": sorted(set(found) - set(profiles)),
            "latest events missing": sorted(latest - set(tracked)),
            "unknown events": sorted(set(tracked) - views),
            "duplicate events": [event for event, times in tracked.items() if times > 1],
        }
        return [
            f"{len(found_list)} {what}: {found_list[:5]}"
            for what, found_list in differences.items()
            if found_list
        ]

    def expected(
        self,
    ) -> tuple[dict[str, dict[str, Any]], set[tuple[str, int, str]], set[tuple[str, int, str]]]:
        """Return the profiles by e-mail, the latest view of each user, and all views."""
        connection = self._server.root_connection(_DATABASE)
        try:
            cursor = connection.cursor()
            cursor.execute("SET time_zone = '+00:00'")
            cursor.execute("SELECT email, first_name, last_name, candidate FROM customers")
            profiles = {
                email: {
                    "first_name": first_name,
                    "last_name": last_name,
                    "plan_type": "pro",
                    "candidate": candidate,
                    "recent_page_view": True,
                }
                for email, first_name, last_name, candidate in cursor.fetchall()
            }
            cursor.execute(
                "SELECT email, UNIX_TIMESTAMP(event_time), page FROM page_views"
                " JOIN customers ON customers.id = user_id ORDER BY event_time"
            )
            views = [(email, int(at), page) for email, at, page in cursor.fetchall()]
        finally:
            connection.close()
        latest = {email: (email, at, page) for email, at, page in views}
        return profiles, set(latest.values()), set(views)

    def _add_users(self, count: int) -> None:
        numbers = range(self._count + 1, self._count + count + 1)
        self._count += count
        rows = ", ".join(
            f"({n}, 'soak{n}@example.com', 'First{n}', 'Last{n}', 'pro', 'yes')" for n in numbers
        )
        columns = "id, email, first_name, last_name, plan_type, candidate"
        self._run(f"INSERT INTO customers ({columns}) VALUES {rows}")  # noqa: S608 - our own
        self._add_views(numbers, "pricing")

    def _add_views(self, numbers: Sequence[int], page: str) -> None:
        rows = []
        for number in numbers:
            self._next_view_at += timedelta(seconds=1)
            rows.append(f"({number}, '{page}', 'desktop', 'Chrome', 'X', '{self._next_view_at}')")
        columns = "user_id, page, device, browser, location, event_time"
        insert = f"INSERT INTO page_views ({columns}) VALUES {', '.join(rows)}"  # noqa: S608
        self._run(f"SET time_zone = '+00:00'; {insert}")

    def _run(self, script: str) -> None:
        self._server.run_sql(script, _DATABASE)
