"""Benchmarks: each mode runs with a few rows and prints its figures; no time is asserted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.delivery import sustained_per_second
from benchmarks.figures import Line, Section, at_least, at_most, console_lines, markdown
from benchmarks.processes import BenchmarkError, Program, environment
from benchmarks.users import customers, generating_query, page_views
from tests.conftest import SourceDatabase

NOW = datetime(2026, 1, 13, 14, 30, 45, tzinfo=timezone.utc)
FEW = ["--rows", "40", "--latency-ms", "5", "--source", "embedded"]


def bench(capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    """Run the benchmarks and return what they print."""
    status = main(flags)
    printed = capsys.readouterr()
    assert (status, printed.err) == (0, "")
    return printed.out


def cells(output: str, what: str) -> list[str]:
    """Return the words after the name of a figure."""
    (line,) = (line for line in output.splitlines() if line.strip().startswith(what))
    return line.strip().removeprefix(what).split()


@pytest.mark.parametrize(
    ("mode", "endpoints", "calls"),
    [
        ("per-user", ("users/update", "events/track"), "80"),
        ("bulk", ("users/bulkUpdate", "events/trackBulk"), "2"),  # one batch
    ],
)
def test_delivery_figures_come_from_the_program_and_the_sandbox(
    capsys: pytest.CaptureFixture[str], mode: str, endpoints: tuple[str, str], calls: str
) -> None:
    output = bench(capsys, "--mode", mode, "--baseline-rows", "2", *FEW)
    assert f"{mode}: 40 rows at 5 ms per call" in output
    assert "load" in output.splitlines()[0]
    assert "requests 2." in output.splitlines()[1]
    assert cells(output, "calls") == [calls]
    for endpoint in endpoints:
        assert int(cells(output, f"requests in the busiest second, {endpoint}")[0]) >= 1
    assert len([word for word in cells(output, "CPU per user") if word == "ms"]) == 4
    assert "loop with session" in output


def test_a_re_run_makes_no_call_and_then_only_those_for_changed_users(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = bench(capsys, "--mode", "rerun", *FEW)
    assert "rerun: 40 unchanged rows" in output
    assert cells(output, "calls  ") == ["0", "0", "met"]
    assert cells(output, "calls after 1 profiles changed") == ["1", "exactly", "1", "met"]


def test_startup_is_measured_until_the_first_request(capsys: pytest.CaptureFixture[str]) -> None:
    output = bench(capsys, "--mode", "startup", "--source", "embedded")
    assert 0 < float(cells(output, "start to first request")[0]) < 60
    assert 0 < float(cells(output, "--help")[0]) < 60


@pytest.mark.slow
@pytest.mark.usefixtures("mariadb_server")  # skipped if MariaDB is missing
@pytest.mark.parametrize("source", ["mariadb", "generated"])
def test_the_rows_can_come_from_a_private_mariadb(
    capsys: pytest.CaptureFixture[str], source: str
) -> None:
    flags = ("--mode", "rerun", "--rows", "2000", "--source", source)
    output = bench(capsys, *flags)
    assert cells(output, "calls after 2 profiles changed") == ["2", "exactly", "2", "met"]


def test_a_failed_run_gives_no_figure(tmp_path: Path) -> None:
    program = Program(tmp_path, {"DB_HOST": "127.0.0.1"})
    with pytest.raises(BenchmarkError, match=r"exit status 2:\n(?s:.*)DB_NAME is missing"):
        program.run()


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "USERS_UPDATE_RPS"])
def test_proxies_and_settings_of_the_environment_do_not_reach_the_program(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "1")
    assert name not in environment()


def test_tables_and_generating_query_give_the_same_users(
    mariadb: SourceDatabase,
) -> None:
    query = generating_query(50, changed_every=10, now=NOW).replace("%(window_start)s", "1")
    with mariadb.connection() as database:
        generated = database.execute_query(query)
    views = list(page_views(50, NOW))
    for row, customer, view in zip(generated, customers(50), views, strict=True):
        number = int(str(customer[0]))
        expected_name = f"{customer[2]} II" if number % 10 == 0 else customer[2]
        assert list(row.values())[:6] == [
            *customer[:2],
            expected_name,
            *customer[3:],
        ]
        assert [row["page"], row["device"], row["browser"], row["location"]] == list(view[2:6])
    assert {type(row["event_time"]) for row in generated} == {datetime}


def test_every_view_is_in_the_window_and_is_the_same_in_each_run() -> None:
    times = [datetime.fromisoformat(str(view[6])) for view in page_views(5_000, NOW)]
    latest = NOW.replace(tzinfo=None)
    assert all(latest - timedelta(days=6) < time < latest for time in times)
    assert list(page_views(5_000, NOW)) == list(page_views(5_000, NOW))


def settled_at(seconds: Callable[[int], float], rows: int) -> Counter[str]:
    """Count rows by the moment that they were settled."""
    moments = (NOW + timedelta(seconds=seconds(row)) for row in range(rows))
    return Counter(moment.isoformat(timespec="milliseconds") for moment in moments)


def test_the_sustained_figure_excludes_start_and_tail() -> None:
    # 100 rows a second from the tenth second on; the last row comes a minute late.
    late = settled_at(lambda row: 10 + row / 100 if row < 2_999 else 100, 3_000)
    assert sustained_per_second(late) == pytest.approx(100, rel=0.01)


def test_the_sustained_figure_counts_whole_batches() -> None:
    batches = settled_at(lambda row: row // 1_000 * 0.2, 100_000)
    assert sustained_per_second(batches) == pytest.approx(5_000, rel=0.001)


def test_a_short_run_has_no_sustained_figure() -> None:
    assert sustained_per_second(settled_at(lambda row: row / 500, 2_000)) is None
    assert sustained_per_second(settled_at(lambda _row: 0, 2_000)) is None
    assert sustained_per_second(Counter()) is None


def test_a_figure_shows_whether_it_is_met() -> None:
    lines = [
        at_least("users/s", 474.9, 475),
        at_most("CPU", 0.12, 0.12, " ms", digits=3),
        Line("calls", "7", plain="9"),
    ]
    section = Section("per-user", "7 rows", lines)
    output = console_lines(section)
    assert output[0] == "per-user: 7 rows"
    assert output[2].split() == ["users/s", "474.9", ">=", "475", "MISSED"]
    assert output[3].split() == ["CPU", "0.120", "ms", "<=", "0.12", "ms", "met"]
    assert output[4].split() == ["calls", "7", "9"]
    record = markdown("2026-01-13, abc1234", ["a machine"], [section])
    assert record.startswith("## 2026-01-13, abc1234\n\n- a machine\n")
    assert "| CPU | 0.120 ms | <= 0.12 ms | met |  |  |" in record
