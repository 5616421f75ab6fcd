"""A summary of a run, for tests to vary."""

from __future__ import annotations

from reporting.results_file import RunSummary

SUMMARY = RunSummary(
    schema_version=1,
    run_id="20260113T143045Z-3fa2c1",
    status="completed",
    reason=None,
    dry_run=False,
    mode="per-user",
    started_at="2026-01-13T14:30:45.000+00:00",
    finished_at="2026-01-13T14:31:45.500+00:00",
    total_users=2_000_000,
    successful=1_000_001,
    partial_failures=2,
    total_failures=3,
    unchanged=999_990,
    invalid=1,
    duplicates=2,
    not_attempted=1,
    api_calls=2_000_012,
    retries=7,
    duration_seconds=60.5,
    users_per_second=33_057.8,
)
