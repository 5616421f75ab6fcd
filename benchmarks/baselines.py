"""Baselines: two simple loops that send the same rows, without rate limiter, retries or state.

One calls `requests.post` twice per row, the other uses a `requests.Session`. Each runs in its own
process (`python -m benchmarks.baselines`), both at once: they spend nearly all time waiting.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any

import requests

from benchmarks.processes import PROJECT_FOLDER, BenchmarkError, environment, sandbox
from benchmarks.users import customers, page_views


@dataclass(frozen=True)
class Loop:
    """Figures of one loop; the CPU time excludes the start of the process."""

    users_per_second: float
    cpu_seconds_per_user: float


def measure_baselines(rows: int, latency_ms: float) -> tuple[Loop, Loop]:
    """Run the plain loop and the loop with a session, against a separate sandbox."""
    with sandbox(latency_ms) as api:
        running = [
            subprocess.Popen(  # noqa: S603 - our own command
                [sys.executable, "-m", "benchmarks.baselines", kind, api.url, str(rows)],
                cwd=PROJECT_FOLDER,
                stdout=subprocess.PIPE,
                text=True,
                env=environment(),
            )
            for kind in ("plain", "session")
        ]
        try:
            outputs = [process.communicate()[0] for process in running]
        finally:
            for process in running:
                process.kill()  # no effect if it has ended
                process.wait()
        calls = sum(endpoint["received"] for endpoint in api.endpoints().values())
    if calls != 4 * rows:
        raise BenchmarkError(f"the baselines made {calls} calls instead of {4 * rows}")
    plain, session = (Loop(**json.loads(output)) for output in outputs)
    return plain, session


def _loop(post: Callable[..., Any], url: str, rows: int) -> None:
    headers = {"Api-Key": "benchmark-key"}
    for customer, view in zip(customers(rows), page_views(rows), strict=True):
        _number, email, first_name, last_name, plan_type, candidate = customer
        _view, user_id, page, device, _browser, location, event_time = view
        update = {
            "email": email,
            "dataFields": {
                "first_name": first_name,
                "last_name": last_name,
                "plan_type": plan_type,
                "recent_page_view": True,
                "candidate": candidate,
            },
        }
        post(f"{url}/api/users/update", json=update, headers=headers, timeout=30)
        seen_at = datetime.fromisoformat(str(event_time)).replace(tzinfo=timezone.utc)
        event = {
            "email": email,
            "eventName": "page_view",
            "id": f"page-view-{user_id}",
            "createdAt": int(seen_at.timestamp()),
            "dataFields": {
                "page": page,
                "browser": device,
                "location": location,
                "timestamp": event_time,
                "candidate": candidate,
            },
        }
        post(f"{url}/api/events/track", json=event, headers=headers, timeout=30)


def main(kind: str, url: str, rows: int) -> None:
    """Run one loop and print its figures as JSON."""
    post = requests.Session().post if kind == "session" else requests.post
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    _loop(post, url, rows)
    seconds, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_SELF)
    cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    sys.stdout.write(json.dumps(asdict(Loop(rows / seconds, cpu_seconds / rows))))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
