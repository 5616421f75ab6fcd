"""The two neighbours of `python main.py --demo`: a MySQL server and an Iterable API on loopback.

Owns what goes wrong in the demo, and the settings that point the program at it. Everything that
is invalid stands in `sql/sample_data.sql`. Refuses to know the program.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from sandbox.iterable_api import IterableSandbox
from sandbox.mysql_server import MySQLSandbox

# People of the sample data. Iterable answers a forgotten (GDPR) user with a 409 and a malformed
# address with a 400; the third's event is answered 502 once, and delivered by the retry.
FORGOTTEN = "priya.forgotten@example.com"
MALFORMED_FOR_ITERABLE = "pat.morgan@example.con"
EVENT_FAILS_ONCE = "olivia.brown@example.com"
LATENCY_SECONDS = 0.05


@contextmanager
def neighbours() -> Iterator[dict[str, str]]:
    """Run both servers on free ports; give the settings, as `.env` would, that lead to them."""
    fault = {
        "fault": "status",
        "status": 502,
        "endpoint": "events/track",
        "email": EVENT_FAILS_ONCE,
        "times": 1,
    }
    api_key = secrets.token_hex(16)
    with (
        MySQLSandbox() as mysql,
        IterableSandbox(
            api_key=api_key,
            latency_seconds=LATENCY_SECONDS,
            forgotten=[FORGOTTEN],
            invalid_emails=[MALFORMED_FOR_ITERABLE],
            faults=[fault],
        ) as iterable,
    ):
        yield {
            "DB_HOST": mysql.host,
            "DB_PORT": str(mysql.port),
            "DB_USER": mysql.user,
            "DB_PASSWORD": mysql.password,
            "DB_NAME": mysql.database,
            "ITERABLE_API_KEY": api_key,
            "ITERABLE_API_BASE_URL": iterable.url,
        }
