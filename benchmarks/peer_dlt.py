"""Reverse ETL with dlt, as its documentation describes it: a sink function as destination.

`python -m benchmarks.peer_dlt URL`, in the environment of `peers`. The database and the query are
in environment variables (BENCHMARK_...). The sink uses dlt's own requests client, which retries
429 and 5xx, and `load.workers` threads: as many as the thread pool of `baselines`.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from datetime import timezone
from typing import Any

import dlt
import pymysql
import pymysql.cursors
from dlt.sources.helpers import requests

from benchmarks.baselines import POOL_THREADS, TOLD


def users() -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of the query in chunks."""
    database = json.loads(os.environ["BENCHMARK_DATABASE"])
    with (
        pymysql.connect(**database, cursorclass=pymysql.cursors.SSDictCursor) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(os.environ["BENCHMARK_QUERY"])
        while rows := cursor.fetchmany(1_000):
            yield list(rows)


def main(url: str) -> None:
    """Run the pipeline once and print the number of requests that failed for good."""
    client = requests.Client(max_connections=POOL_THREADS)
    headers = {"Api-Key": "benchmark-key"}
    lock, failed = threading.Lock(), 0

    def post(endpoint: str, body: dict[str, Any]) -> None:
        nonlocal failed
        try:
            client.post(f"{url}/api/{endpoint}", json=body, headers=headers)
        except requests.RequestException as error:
            sys.stdout.write(f"{body['email']}: {error}\n")
            with lock:
                failed += 1

    def sink(items: list[dict[str, Any]], table: Any) -> None:  # noqa: ARG001 - dlt's signature
        for row in items:
            post(
                "users/update",
                {
                    "email": row["email"],
                    "dataFields": {
                        "first_name": row["first_name"],
                        "last_name": row["last_name"],
                        "plan_type": row["plan_type"],
                        "recent_page_view": True,
                        "candidate": row["candidate"],
                    },
                },
            )
            seen_at = row["event_time"].replace(tzinfo=timezone.utc)
            post(
                "events/track",
                {
                    "email": row["email"],
                    "eventName": "page_view",
                    "id": f"page-view-{row['id']}",
                    "createdAt": int(seen_at.timestamp()),
                    "dataFields": {
                        "page": row["page"],
                        "browser": row["device"],
                        "location": row["location"],
                        "timestamp": f"{seen_at:%Y-%m-%d %H:%M:%S}",
                        "candidate": row["candidate"],
                    },
                },
            )

    iterable = dlt.destination(sink, batch_size=100, loader_parallelism_strategy="parallel")
    pipeline = dlt.pipeline("benchmark", destination=iterable, dataset_name="benchmark")
    pipeline.run(dlt.resource(users, name="users"))
    sys.stdout.write(f"{TOLD}{failed}\n")


if __name__ == "__main__":
    main(sys.argv[1])
