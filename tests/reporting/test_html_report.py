"""HTML report: its content, its escaping, and its file."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.settings import Settings
from logger_config import register_secret
from records.outcomes import CallResult, Outcome, Verdict
from records.rows import Failure
from reporting.html_report import MAX_SHOWN_FAILURES, to_page, write_report
from reporting.measurements import LatencyBucket, Measurements, Sample
from reporting.summary import RunSummary
from sync.progress import Progress
from tests.support.pages import Reader, as_xml
from tests.support.rows import run_python
from tests.support.run_summaries import SUMMARY, counts_of

SETTINGS = Settings.from_environment(
    {
        "DB_HOST": "db.internal",
        "DB_USER": "sync_reader",
        "DB_PASSWORD": "correct-horse",
        "DB_NAME": "shop",
        "ITERABLE_API_KEY": "a1b2c3d4e5f6",
        "HEALTHCHECK_URL": "https://checks.example/0f4d",
        "USER_FIELDS": "first_name,plan=plan_type,vip=is_vip:bool",
    }
)
NOTHING_SENT = Measurements(500)
NO_ROWS = replace(
    SUMMARY,
    counts=counts_of(),
    api_calls=0,
    retries=0,
    users_per_second=0.0,
)
FAILURES = [
    Failure("users/update", "rejected", "InvalidEmailAddressError", 2, 14),
    Failure("events/track", "unavailable", None, 1, 31),
    Failure("row", "invalid", "no e-mail address", 1, None),
]


def made(
    summary: RunSummary = SUMMARY,
    failures: Sequence[Failure] = (),
    measured: Measurements = NOTHING_SENT,
    settings: Settings = SETTINGS,
) -> str:
    return to_page(
        summary, failures, measured, settings, "integration_results_20260113_143045.json"
    )


def measured_run(rows: int, rows_per_second: int) -> Measurements:
    """Return the measurements of a run at a steady rate, with some retries midway."""
    now = [0.0]
    progress = Progress(rows, 500, clock=lambda: now[0])
    done = 0
    while done < rows:
        now[0] += 0.5
        done = min(rows, done + max(1, rows_per_second // 2))
        attempts = 3 if 0.4 < done / rows < 0.5 else 1
        seconds = 0.3 + 0.001 * (done % 97)
        progress.advance(
            [(CallResult(Verdict.DELIVERED, 200, "Success", "", None, attempts, seconds), [])],
            done,
        )
    return progress.measurements


@pytest.mark.parametrize("rows", [0, 1, 25, 1_000_000])
@pytest.mark.parametrize(
    "status", ["completed", "completed_with_failures", "interrupted", "aborted"]
)
def test_the_page_is_well_formed_for_every_kind_of_run(rows: int, status: str) -> None:
    summary = replace(NO_ROWS, status=status, counts={**counts_of(), Outcome.SUCCESSFUL: rows})
    text = made(summary, FAILURES, measured_run(rows, 475) if rows else NOTHING_SENT)
    as_xml(text)
    read = Reader(text)
    expected = f"{rows:,} of {rows:,} users are up to date" if rows else "query returned no rows"
    assert expected in read.text


@pytest.mark.parametrize("rows", [1_000_000, 10_000_000])
def test_the_page_does_not_grow_with_the_rows(rows: int) -> None:
    summary = replace(NO_ROWS, counts={**counts_of(), Outcome.SUCCESSFUL: rows})
    assert len(made(summary, FAILURES, measured_run(rows, 475))) < 80_000


def test_only_the_most_frequent_reasons_are_listed_and_the_rest_is_counted() -> None:
    failures = [Failure("users/update", "rejected", f"Code{n}", 1000 - n, n) for n in range(1, 501)]
    read = Reader(made(failures=failures))
    assert f"Code{MAX_SHOWN_FAILURES}" in read.text
    assert f"Code{MAX_SHOWN_FAILURES + 1}" not in read.text
    rest = sum(failure.rows for failure in failures[MAX_SHOWN_FAILURES:])
    assert (
        f"{500 - MAX_SHOWN_FAILURES} less frequent reasons are not shown ({rest:,} users)"
        in read.text
    )


def test_the_page_shows_counts_reasons_and_examples() -> None:
    summary = replace(SUMMARY, status="completed_with_failures")
    text = Reader(made(summary, FAILURES, measured_run(5_000, 475))).text
    for expected in (
        "completed with failures",
        "1,999,991 of 2,000,000 users are up to date in Iterable",
        "successful 1,000,001 50 %",
        "unchanged 999,990 50 %",
        "partial failures 2 < 0.1 %",
        "InvalidEmailAddressError users/update Iterable does not accept this e-mail address",
        "2 user 14",
        "unavailable events/track",
        "no e-mail address the row itself Never sent",
        "1 no id",
        "limit from the settings: 500",
        "50 % within",
        "integration_results_20260113_143045.json",
        "2026-01-13 14:30:45 UTC",
    ):
        assert expected in text


def test_no_percentile_is_above_the_slowest_call() -> None:
    measured = Measurements(500, latencies=[LatencyBucket(0.215, 0.256, 1)], slowest_seconds=0.218)
    text = made(measured=measured)
    read = Reader(text)
    assert "99 % within 218 ms" in read.text
    assert "slowest 218 ms" in read.text
    assert "215 ms to 256 ms: 1 call<" in text.replace("\u00a0", " ")


def test_a_single_reason_beyond_the_limit_is_in_the_singular() -> None:
    failures = [Failure("row", "invalid", f"r{n}", 1, n) for n in range(MAX_SHOWN_FAILURES + 1)]
    assert "1 less frequent reason is not shown" in Reader(made(failures=failures)).text


def test_a_very_short_run_has_no_throughput_chart() -> None:
    text = Reader(made(SUMMARY, measured=measured_run(25, 475))).text
    assert "Everything was sent in 500 ms: too short to measure a rate." in text
    assert "limit from the settings" not in text


def test_the_page_shows_why_a_run_was_aborted() -> None:
    summary = replace(SUMMARY, status="aborted", reason="MySQL at db.internal is unreachable")
    assert "MySQL at db.internal is unreachable" in Reader(made(summary)).text


def test_the_page_of_a_dry_run_says_what_would_be_sent() -> None:
    summary = replace(
        NO_ROWS,
        dry_run=True,
        counts={**counts_of(), Outcome.NOT_ATTEMPTED: 23, Outcome.INVALID: 2},
    )
    text = Reader(made(summary)).text
    assert "Dry run: 23 of 25 users would be sent" in text
    assert "up to date in Iterable" not in text
    assert "Nothing was sent." in text


def test_settings_are_shown_as_in_env_without_the_secrets() -> None:
    text = made()
    read = Reader(text)
    for setting in (
        "DB_HOST db.internal",
        "USER_FIELDS first_name,plan=plan_type,vip=is_vip:bool",
        "USERS_UPDATE_RPS 500",
        "LOG_PAYLOADS true",
        "DB_TIMEZONE UTC",
    ):
        assert setting in read.text
    for secret in ("correct-horse", "a1b2c3d4e5f6", "checks.example", "API_KEY", "DB_PASSWORD"):
        assert secret not in text


def test_a_registered_secret_in_any_text_is_redacted() -> None:
    register_secret("key-of-the-report", "api key")
    text = made(
        replace(SUMMARY, status="aborted", reason="Api-Key: key-of-the-report was refused"),
        [Failure("users/update", "rejected", "key-of-the-report", 1, "x/key-of-the-report")],
    )
    assert "key-of-the-report" not in text
    assert "Api-Key: [api key] was refused" in Reader(text).text


def test_jinja2_is_loaded_only_for_a_report() -> None:
    """It would cost every run without one 30 ms."""
    program = "import sys, main, sync.run, reporting.html_report; sys.exit('jinja2' in sys.modules)"
    assert run_python(program) == 0


def test_the_page_loads_no_resource_and_runs_no_script() -> None:
    text = made(replace(SUMMARY, status="aborted", reason="x"), FAILURES, measured_run(100, 475))
    for tag, attributes in Reader(text).elements:
        assert tag not in {"script", "iframe", "object", "embed", "img", "form", "base", "use"}
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name not in {"src", "srcset", "action", "xlink:href", "ping", "poster"}
            if name == "href":
                assert value == "data:,"
    outside_settings = text.replace(SETTINGS.iterable_api_base_url, "")
    assert not re.search(r"(?:https?:|//[a-z]|@import|url\()", outside_settings)
    assert "default-src 'none'" in text


def test_tables_charts_and_sections_have_names_for_screen_readers() -> None:
    text = made(SUMMARY, FAILURES, measured_run(5_000, 475))
    root = as_xml(text)
    assert root.get("lang") == "en"
    assert len(list(root.iter("h1"))) == 1
    for table in root.iter("table"):
        assert table[0].tag == "caption"
        assert all(cell.get("scope") in ("col", "row") for cell in table.iter("th"))
    for drawing in root.iter("svg"):
        assert drawing.get("aria-hidden") == "true" or (
            drawing.get("role") == "img" and drawing.get("aria-label")
        )
    ids = {element.get("id") for element in root.iter() if element.get("id")}
    assert {section.get("aria-labelledby") for section in root.iter("section")} <= ids


HOSTILE = st.text(
    st.one_of(st.characters(), st.sampled_from("<>&\"'\x00\x1b\u202e\ud800]]>")), max_size=60
)


@given(HOSTILE, HOSTILE, HOSTILE, HOSTILE)
def test_no_text_from_outside_becomes_markup(
    reason: str, code: str, endpoint: str, user_id: str
) -> None:
    text = made(
        replace(SUMMARY, status="aborted", reason=f"x{reason}"),
        [Failure(f"x{endpoint}", "rejected", f"x{code}", 1, user_id)],
    )
    harmless = made(
        replace(SUMMARY, status="aborted", reason="x"),
        [Failure("x", "rejected", "x", 1, "")],
    )
    text.encode()
    as_xml(text)
    assert [tag for tag, _ in Reader(text).elements] == [
        tag for tag, _ in Reader(harmless).elements
    ]


def test_a_text_with_markup_is_shown_literally() -> None:
    text = made(
        replace(SUMMARY, status="aborted", reason="</p><script>alert('1')</script> & 5 < 6"),
        [Failure("row", "invalid", "\x1b[31m\u202egnp.exe", 1, '"><img src=x onerror=y>')],
    )
    read = Reader(text)
    assert "</p><script>alert('1')</script> & 5 < 6" in read.text
    assert "\\x1b[31m\\u202egnp.exe" in read.text
    assert 'user "><img src=x onerror=y>' in read.text


@given(
    st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e4)), min_size=1, max_size=30),
    st.floats(0.01, 1e9),
    st.lists(st.integers(0, 10**9), min_size=1, max_size=20).filter(any),
    st.floats(1e-6, 1e5),
)
def test_charts_stay_inside_their_frame_for_any_measurements(
    counts: list[tuple[float, float]], ceiling: float, calls: list[int], shortest: float
) -> None:
    samples = [
        Sample(2.0 * index, 2.0, rows, retries) for index, (rows, retries) in enumerate(counts)
    ]
    buckets = [
        LatencyBucket(shortest * 1.19**index, shortest * 1.19 ** (index + 1), count)
        for index, count in enumerate(calls)
    ]
    text = made(measured=Measurements(ceiling, samples, buckets, buckets[-1].to_seconds))
    root = as_xml(text)
    for drawn in root.iter("rect"):
        for at, length in (("x", "width"), ("y", "height")):
            begins = float((drawn.get(at) or "0").rstrip("%"))
            long = float((drawn.get(length) or "0").rstrip("%"))
            assert begins >= -0.01
            assert long >= 0
            assert begins + long <= 100.5


def test_the_file_is_private_and_beside_the_results(tmp_path: Path) -> None:
    path = tmp_path / "integration_results_20260113_143045.html"
    previous = os.umask(0)
    try:
        assert write_report(path, SUMMARY, FAILURES, measured_run(25, 475), SETTINGS)
    finally:
        os.umask(previous)
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == [path.name]
    assert "integration_results_20260113_143045.json" in path.read_text("utf-8")


def test_a_report_that_cannot_be_written_is_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "no such folder" / "integration_results_20260113_143045.html"
    assert not write_report(path, SUMMARY, FAILURES, NOTHING_SENT, SETTINGS)
    assert [record.levelname for record in caplog.records][:1] == ["WARNING"]
    assert "No such file or directory" in caplog.text


def test_a_page_that_cannot_be_rendered_is_one_warning_and_leaves_no_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "integration_results_20260113_143045.html"
    unknown = replace(SUMMARY, status="a status of the future")
    assert not write_report(path, unknown, [], NOTHING_SENT, SETTINGS)
    assert "cannot be written: KeyError" in caplog.text
    assert os.listdir(tmp_path) == []
