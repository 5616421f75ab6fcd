"""Reverse ETL with drt: the files of a project that sends profiles, then events.

drt has no Iterable destination, so its generic `rest_api` one is used: with a request per row, or
with a template for bulk bodies (`body_mode: batch`). `on_error: skip` and rate limits are set as
its documentation recommends; syncs run one after the other, since an event needs its user.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from benchmarks.sources import query_text

_PROFILE = """{
"email": {{ row.email | tojson_safe }}, "dataFields": {
"first_name": {{ row.first_name | tojson_safe }}, "last_name": {{ row.last_name | tojson_safe }},
"plan_type": {{ row.plan_type | tojson_safe }}, "recent_page_view": true,
"candidate": {{ row.candidate | tojson_safe }}}}"""
_EVENT = """{
"email": {{ row.email | tojson_safe }}, "eventName": "page_view", "id": "page-view-{{ row.id }}",
"createdAt": {{ row.created_at }}, "dataFields": {
"page": {{ row.page | tojson_safe }}, "browser": {{ row.device | tojson_safe }},
"location": {{ row.location | tojson_safe }}, "timestamp": {{ row.event_time_text | tojson_safe }},
"candidate": {{ row.candidate | tojson_safe }}}}"""
_SYNCS = {
    "record": (
        ("1_profiles", "users/update", _PROFILE, 500),
        ("2_events", "events/track", _EVENT, 2_000),
    ),
    "batch": (
        ("1_profiles", "users/bulkUpdate", ("users", _PROFILE), 5),
        ("2_events", "events/trackBulk", ("events", _EVENT), 10),
    ),
}
_ROWS_PER_REQUEST = 1_000


def write_project(folder: Path, kind: str, url: str, settings: dict[str, str]) -> None:
    """Write the project and, in `.drt` of the same folder (its HOME), the database's profile."""
    query = (
        "SELECT q.*, UNIX_TIMESTAMP(q.event_time) AS created_at,"  # noqa: S608 - our own query
        " DATE_FORMAT(q.event_time, '%Y-%m-%d %H:%i:%s') AS event_time_text"
        f" FROM ({query_text(settings)}) AS q"
    )
    _write(folder / "drt_project.yml", {"name": "benchmark", "profile": "benchmark"})
    profile = {
        "type": "mysql",
        "host": settings["DB_HOST"],
        "port": int(settings["DB_PORT"]),
        "dbname": settings["DB_NAME"],
        "user": settings["DB_USER"],
        "password": settings["DB_PASSWORD"],
    }
    _write(folder / ".drt" / "profiles.yml", {"benchmark": profile})
    for name, endpoint, template, per_second in _SYNCS[kind]:
        destination: dict[str, object] = {
            "type": "rest_api",
            "url": f"{url}/api/{endpoint}",
            "method": "POST",
            "headers": {"Content-Type": "application/json", "Api-Key": "benchmark-key"},
        }
        if isinstance(template, str):
            destination["body_template"] = template
        else:
            key, row = template
            body = f'{{"{key}": [{{% for row in rows %}}{row}{{{{ "," if not loop.last }}}}'
            destination |= {
                "body_mode": "batch",
                "batch_template": body + "{% endfor %}]}",
                "max_records_per_request": _ROWS_PER_REQUEST,
            }
        sync = {
            "mode": "full",
            "batch_size": _ROWS_PER_REQUEST,
            "rate_limit": {"requests_per_second": per_second},
            "retry": {"max_attempts": 5},
            "on_error": "skip",
        }
        _write(
            folder / "syncs" / f"{name}.yml",
            {"name": name, "model": query, "destination": destination, "sync": sync},
        )


def told_failures(output: str) -> int:
    """Return the failed rows of both syncs, from the output of `drt run --output json`."""
    return sum(map(int, re.findall(r'"rows_failed": (\d+)', output)))


def _write(path: Path, content: object) -> None:
    """Write JSON, which is YAML."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
