"""Simple scripts to compare with, without rate limiter, retries or state.

`python -m benchmarks.baselines KIND URL ROWS` sends each row's two requests: one row after another
with `requests.post` (plain), the same with a `requests.Session` (session), or with that session in
250 threads (pool). It prints a line for each response that is not 2xx, and how many there were.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from benchmarks.users import customers, page_views

KINDS = ("plain", "session", "pool")
POOL_THREADS = 250
TOLD = "requests failed: "

Post = Callable[..., requests.Response]


def payloads(rows: int) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield the two bodies of each row."""
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
        yield update, event


def main(kind: str, url: str, rows: int) -> None:
    """Send all rows in one of the three ways."""
    session = requests.Session()
    session.mount("https://", HTTPAdapter(pool_maxsize=POOL_THREADS))
    session.mount("http://", HTTPAdapter(pool_maxsize=POOL_THREADS))
    post: Post = requests.post if kind == "plain" else session.post

    def send(bodies: tuple[dict[str, Any], dict[str, Any]]) -> int:
        return sum(
            not _is_ok(post, f"{url}/api/{endpoint}", body)
            for endpoint, body in zip(("users/update", "events/track"), bodies, strict=True)
        )

    if kind == "pool":
        with ThreadPoolExecutor(POOL_THREADS) as pool:
            failed = sum(pool.map(send, payloads(rows)))
    else:
        failed = sum(map(send, payloads(rows)))
    sys.stdout.write(f"{TOLD}{failed}\n")


def _is_ok(post: Post, url: str, body: dict[str, Any]) -> bool:
    try:
        response = post(url, json=body, headers={"Api-Key": "benchmark-key"}, timeout=30)
    except requests.RequestException as error:
        sys.stdout.write(f"{body['email']}: {error}\n")
        return False
    if not response.ok:
        sys.stdout.write(f"{body['email']}: {response.status_code} {response.text}\n")
    return response.ok


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
