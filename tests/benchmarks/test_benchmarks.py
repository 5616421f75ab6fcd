"""Benchmarks: each mode runs with a few rows and prints its figures; no time is asserted."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from benchmarks.__main__ import MODES, main
from benchmarks.delivery import recovery_seconds, sustained_per_second
from benchmarks.disk import used_bytes
from benchmarks.figures import Line, Section, beside, console_lines, markdown
from benchmarks.processes import BenchmarkError, Program, environment
from benchmarks.required import REQUIREMENTS, deviating, required, summary
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
        ("per-user", ("users/update", "events/track"), "81"),
        ("bulk", ("users/bulkUpdate", "events/trackBulk"), "3"),  # one batch
    ],
)
def test_delivery_figures_come_from_the_program_and_the_sandbox(
    capsys: pytest.CaptureFixture[str], mode: str, endpoints: tuple[str, str], calls: str
) -> None:
    output = bench(capsys, "--mode", mode, *FEW)
    assert f"{mode}: 40 rows at 5 ms per call, the embedded server, over TLS" in output
    assert "load" in output.splitlines()[0]
    assert "requests 2." in output.splitlines()[1]
    assert cells(output, "calls") == [calls]
    for endpoint in endpoints:
        assert int(cells(output, f"requests in the busiest second, {endpoint}")[0][:-1]) >= 1
    connections = cells(output, "connections opened")
    assert cells(output, "TLS handshakes, resumed")[0] == f"{connections[0]},"


def test_tls_and_plain_http_can_be_measured_side_by_side(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = bench(capsys, "--mode", "bulk", "--scheme", "both", *FEW)
    assert "bulk: 40 rows at 5 ms per call, the embedded server, over TLS and plain http" in output
    assert cells(output, "calls") == ["3", "3"]  # users/getFields, too
    assert cells(output, "TLS handshakes, resumed")[2:] == ["0,", "0"]


def test_a_re_run_makes_no_call_and_then_only_those_for_changed_users(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = bench(capsys, "--mode", "rerun", *FEW)
    assert "rerun: 40 unchanged rows" in output
    # Not "met": the required figure is that of a million rows.
    assert cells(output, "re-run: calls") == ["0", "(40", "rows,", "5", "ms)", "<=", "0"]
    assert cells(output, "calls after 1 profiles changed") == ["1", "exactly", "1", "met"]
    assert "commands: 40 rows delivered before" in output


def test_a_stopped_run_leaves_a_complete_results_file(capsys: pytest.CaptureFixture[str]) -> None:
    # So many rows, and such a latency, that no run can be over when the signal comes.
    flags = ("--source", "embedded", "--rows", "2000", "--latency-ms", "2000", "--scheme", "http")
    output = bench(capsys, "--mode", "stop", *flags)
    for what in ("bulk, waiting", "bulk, half", "per-user, waiting", "per-user, half"):
        assert cells(output, f"{what}: results file") == ["complete", "complete", "met"]


def test_projects_side_by_side_have_a_figure_each(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--source", "embedded", "--rows", "10", "--latency-ms", "5", "--scheme", "http")
    output = bench(capsys, "--mode", "side-by-side", *flags)
    assert len(cells(output, "two projects: users/s each, start to exit")) == 2
    assert len(cells(output, "three projects: users/s each, start to exit")) == 3


def test_startup_is_measured_until_the_first_request(capsys: pytest.CaptureFixture[str]) -> None:
    output = bench(capsys, "--mode", "startup", "--source", "embedded")
    assert 0 < float(cells(output, "start to first request, 20 rows")[0]) < 60
    assert 0 < float(cells(output, "--help")[0]) < 60


@pytest.mark.slow
def test_peers_are_judged_by_what_the_sandbox_received(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = bench(capsys, "--mode", "peers", "--slow-rows", "3", "--without-pip", *FEW)
    for peer, rows in (("this program, per-user", "40"), ("plain loop", "3")):
        found = cells(output, peer)
        assert found[0] == found[6] == rows  # rows, users
        assert found[-1] == "0"
    assert "drt, batches of 1,000: skipped, --without-pip" in output


@pytest.mark.slow
@pytest.mark.usefixtures("mariadb_server")  # skipped if MariaDB is missing
def test_growth_is_measured_with_generated_rows(capsys: pytest.CaptureFixture[str]) -> None:
    output = bench(capsys, "--mode", "growth", "--rows", "2000", "--source", "generated")
    assert cells(output, "2,000")[1] == "s"


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


def test_the_sustained_figure_of_batches_in_bursts_counts_whole_seconds() -> None:
    bursts = settled_at(lambda row: row // 5_000 + row % 5_000 // 1_000 / 50, 60_000)
    assert sustained_per_second(bursts) == pytest.approx(5_298, rel=0.001)
    assert sustained_per_second(bursts, calls_per_second=5) == pytest.approx(5_000, rel=0.001)


def test_a_short_run_has_no_sustained_figure() -> None:
    assert sustained_per_second(settled_at(lambda row: row / 500, 2_000)) is None
    assert sustained_per_second(settled_at(lambda _row: 0, 2_000)) is None
    assert sustained_per_second(Counter()) is None


def test_a_figure_shows_whether_it_is_met() -> None:
    lines = [
        required("per-user sustained", 474.9),
        required("bulk CPU", 90.0),
        required("per-user recovery", None, "no 429"),
        Line("calls", "7"),
    ]
    section = Section("per-user", "7 rows", lines, scheme="TLS")
    title, _header, slow, cpu, recovery, calls, _end = console_lines(section)
    assert title == "per-user: 7 rows, over TLS"
    assert slow.split()[-4:] == ["474.9", ">=", "475", "MISSED"]
    assert cpu.split()[-6:] == ["90.0", "microseconds", "<=", "90", "microseconds", "met"]
    assert recovery.split()[-5:] == ["no", "429", "<=", "5", "s"]
    assert calls.split() == ["calls", "7"]
    record = markdown("2026-01-13, abc1234", ["a machine"], [section])
    assert record.startswith("## 2026-01-13, abc1234\n\n- a machine\n")
    assert "| 90.0 microseconds | <= 90 microseconds | met |" in record


def test_figures_over_tls_and_http_stand_side_by_side() -> None:
    over_tls = Section("bulk", "7 rows", [Line("calls", "7"), Line("handshakes", "3")])
    over_http = Section("bulk", "7 rows", [Line("calls", "8")])
    title, header, calls, handshakes, _end = console_lines(beside(over_tls, over_http))
    assert title == "bulk: 7 rows, over TLS and plain http"
    assert header.split() == ["TLS", "plain", "http"]
    assert calls.split() == ["calls", "7", "8"]
    assert handshakes.split() == ["handshakes", "3"]


def test_the_table_of_required_figures_names_what_was_not_measured() -> None:
    section = Section("bulk", "7 rows", [required("bulk exit", 91.2)])
    rows = {row[0]: row[1:] for row in summary([section]).rows}
    assert len(rows) == len(REQUIREMENTS)
    assert rows[REQUIREMENTS["bulk exit"].what] == ("91.2 %", ">= 85 %", "met")
    not_measured = rows[REQUIREMENTS["history"].what]
    assert not_measured == ("not measured (--mode commands)", "<= 1 s", "")


def test_a_figure_of_fewer_rows_does_not_meet_the_requirement() -> None:
    section = Section("rerun", "400 rows", [required("bulk memory", 52.5), Line("calls", "7")])
    memory, calls = deviating(section, "400 rows").lines
    assert (memory.measured, memory.verdict) == ("52.5 MB (400 rows)", "")
    assert calls.measured == "7"


def test_every_requirement_names_a_mode() -> None:
    assert {requirement.mode for requirement in REQUIREMENTS.values()} <= set(MODES)


def test_the_rate_is_back_when_a_second_has_95_percent_of_the_limit() -> None:
    before = [(at / 100, 200) for at in range(300)]
    slow = [(3 + at / 50, 200) for at in range(100)]
    after = [(5 + at / 100, 200) for at in range(300)]
    limited = sorted([*before, (3.0, 429), *slow, *after])
    assert recovery_seconds(limited, 100) == pytest.approx(1.9, abs=0.1)
    assert recovery_seconds([*before, (3.0, 429), *slow], 100) == pytest.approx(1.98, abs=0.01)
    assert recovery_seconds([*before, *after], 100) is None
    assert recovery_seconds([*before, (2.999, 429)], 100) is None  # the run was over


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_disk_space_counts_links_once_and_unlinked_files_that_are_open(tmp_path: Path) -> None:
    before = used_bytes(os.getpid(), tmp_path)
    (tmp_path / "log").write_bytes(b"x" * 100_000)
    (tmp_path / "state").write_bytes(b"x" * 100_000)
    (tmp_path / "same").hardlink_to(tmp_path / "state")
    with (tmp_path / "outbox").open("wb") as outbox:
        outbox.write(b"x" * 200_000)
        outbox.flush()
        (tmp_path / "outbox").unlink()
        assert 300_000 <= used_bytes(os.getpid(), tmp_path) - before < 350_000


def test_a_results_file_that_was_cut_is_not_complete(tmp_path: Path) -> None:
    counts = dict.fromkeys(
        ("partial_failures", "total_failures", "unchanged", "invalid", "duplicates"), 0
    )
    head = json.dumps({"total_users": 2, "successful": 1, "not_attempted": 1, **counts}, indent=2)
    record = json.dumps({"timestamp": "2026-01-13T14:30:45.000Z"})
    lines = [head.rstrip("\n}") + ",", '  "records": [', f"    {record},", f"    {record}"]
    whole = "\n".join([*lines, "  ]", "}", ""])
    path = tmp_path / "integration_results_1.json"
    for text, is_complete in (
        (whole, True),
        (whole.removesuffix("  ]\n}\n"), False),
        (whole.replace(f"    {record},\n", ""), False),
        (whole.replace('"successful": 1', '"successful": 2'), False),
    ):
        path.write_text(text, encoding="utf-8")
        assert Program(tmp_path, {}).results().is_complete == is_complete
