"""Servers of `python main.py --demo`: MySQL and the Iterable API on loopback, with a few faults.

The invalid rows of the demo are in `sql/sample_data.sql`.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from sandbox.iterable_api import IterableSandbox
from sandbox.mysql_server import MySQLSandbox

# Users of the sample data. A GDPR-forgotten user gets a 409, a malformed address a 400. The event
# of the third user gets a 502 once; the retry delivers it.
FORGOTTEN = "priya.forgotten@example.com"
MALFORMED_FOR_ITERABLE = "pat.morgan@example.con"
EVENT_FAILS_ONCE = {"email": "olivia.brown@example.com", "userid": "15"}  # by IDENTIFY_BY
# The identity that the demo uses in each type of project.
IDENTITIES = {"email": "email", "userid": "userid", "hybrid": "userid"}
LATENCY_SECONDS = 0.05


@contextmanager
def demo_servers(project_type: str = "email") -> Iterator[dict[str, str]]:
    """Run both servers on free ports; yield the settings, as in `.env`, to connect to them."""
    identity = IDENTITIES[project_type]
    fault = {
        "fault": "status",
        "status": 502,
        "endpoint": "events/track",
        "email": EVENT_FAILS_ONCE[identity],
        "times": 1,
    }
    api_key = secrets.token_hex(16)
    with (
        MySQLSandbox() as mysql,
        IterableSandbox(
            api_key=api_key,
            project_type=project_type,
            latency_seconds=LATENCY_SECONDS,
            forgotten=[FORGOTTEN],
            invalid_emails=[MALFORMED_FOR_ITERABLE],
            faults=[fault],
        ) as iterable,
    ):
        yield {
            **mysql.settings,
            "ITERABLE_API_KEY": api_key,
            "ITERABLE_API_BASE_URL": iterable.url,
            "IDENTIFY_BY": identity,
        }
