"""Metrics file, read back by a strict parser of the format."""

from __future__ import annotations

import os
import re
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from reporting.metrics import write_metrics
from tests.support.run_summaries import SUMMARY

# The text format, version 0.0.4: each line is a comment or a sample.
_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_LABELS = r'\{[a-zA-Z_]\w*="(?:[^"\\\n]|\\[\\n"])*"(?:,[a-zA-Z_]\w*="(?:[^"\\\n]|\\[\\n"])*")*\}'
_SAMPLE = re.compile(rf"({_NAME})({_LABELS})? (-?\d+(?:\.\d+)?(?:e[+-]?\d+)?|NaN|[+-]Inf)")


def metrics_in(text: str) -> dict[str, float]:
    """Parse metrics strictly; return the samples by name and labels."""
    assert text.endswith("\n")
    found: dict[str, float] = {}
    family, announced = "", set()
    for line in text.splitlines():
        if line.startswith("# HELP "):
            family = line.split()[2]
            assert re.fullmatch(_NAME, family)
            assert family not in announced, "the lines of a family must not be interrupted"
            announced.add(family)
        elif line.startswith("# TYPE "):
            assert line == f"# TYPE {family} gauge"
        else:
            sample = _SAMPLE.fullmatch(line)
            assert sample, line
            assert sample[1] == family
            name = sample[1] + (sample[2] or "")
            assert name not in found
            found[name] = float(sample[3])
    return found


def test_the_metrics_describe_the_last_run(tmp_path: Path) -> None:
    path = tmp_path / "iterable_sync.prom"
    write_metrics(path, SUMMARY)
    metrics = metrics_in(path.read_text("utf-8"))
    last_run = "iterable_sync_last_run"
    assert metrics == {
        f"{last_run}_start_timestamp_seconds": 1768314645.0,
        f"{last_run}_end_timestamp_seconds": 1768314705.5,
        "iterable_sync_last_success_timestamp_seconds": 1768314705.5,
        f"{last_run}_duration_seconds": 60.5,
        f'{last_run}_status{{status="completed"}}': 1,
        f'{last_run}_status{{status="completed_with_failures"}}': 0,
        f'{last_run}_status{{status="interrupted"}}': 0,
        f'{last_run}_status{{status="aborted"}}': 0,
        f'{last_run}_users{{outcome="successful"}}': 1_000_001,
        f'{last_run}_users{{outcome="partial_failure"}}': 2,
        f'{last_run}_users{{outcome="total_failure"}}': 3,
        f'{last_run}_users{{outcome="unchanged"}}': 999_990,
        f'{last_run}_users{{outcome="invalid"}}': 1,
        f'{last_run}_users{{outcome="duplicate"}}': 2,
        f'{last_run}_users{{outcome="not_attempted"}}': 1,
        f'{last_run}_failures{{state="new"}}': 2,
        f'{last_run}_failures{{state="known"}}': 4,
        f'{last_run}_failures{{state="resolved"}}': 1,
        f"{last_run}_api_calls": 2_000_012,
        f"{last_run}_retries": 7,
    }


def samples_in(*texts: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Gather files as node_exporter's textfile collector does: names agree on help and type.

    Return the samples by name and labels.
    """
    families: dict[str, tuple[str, str]] = {}
    found: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    for text in texts:
        for family in text_string_to_metric_families(text):
            described = (family.documentation, family.type)
            assert families.setdefault(family.name, described) == described
            for sample in family.samples:
                key = (sample.name, frozenset(sample.labels.items()))
                assert key not in found, (
                    "node_exporter serves one of two, and logs that it was collected twice"
                )
                found[key] = sample.value
    return found


def test_the_files_of_several_projects_are_accepted_together(tmp_path: Path) -> None:
    """Of two files with the same samples, node_exporter served one and logged 17 errors."""
    names = ("shop-eu", "shop-us", None)
    texts: list[str] = []
    for name in names:
        path = tmp_path / f"{name}.prom"
        write_metrics(path, replace(SUMMARY, sync=name, api_calls=len(texts)))
        texts.append(path.read_text("utf-8"))
    samples = samples_in(*texts)
    assert len(samples) == sum(len(metrics_in(text)) for text in texts)
    for calls, name in enumerate(names):
        labels = frozenset({("sync", name)} if name else ())
        assert samples["iterable_sync_last_run_api_calls", labels] == calls
        status = ("status", "completed")
        assert samples["iterable_sync_last_run_status", labels | {status}] == 1


def test_two_projects_without_a_name_are_not_accepted_together(tmp_path: Path) -> None:
    write_metrics(tmp_path / "sync.prom", SUMMARY)
    text = (tmp_path / "sync.prom").read_text("utf-8")
    with pytest.raises(AssertionError, match="twice"):
        samples_in(text, text)


@pytest.mark.parametrize("name", ['K\u00f6ln "EU" \\ 1', "a b", "x{y}=,", "\\n"])
def test_any_name_of_a_sync_is_read_back_as_it_is(tmp_path: Path, name: str) -> None:
    path = tmp_path / "sync.prom"
    write_metrics(path, replace(SUMMARY, sync=name))
    text = path.read_text("utf-8")
    assert metrics_in(text)
    assert {dict(labels)["sync"] for _name, labels in samples_in(text)} == {name}
    write_metrics(path, replace(SUMMARY, sync=name, status="aborted"))
    success = ("iterable_sync_last_success_timestamp_seconds", frozenset({("sync", name)}))
    assert samples_in(path.read_text("utf-8"))[success] == 1768314705.5


def test_the_last_success_is_that_of_the_same_sync(tmp_path: Path) -> None:
    path = tmp_path / "sync.prom"
    success = "iterable_sync_last_success_timestamp_seconds"
    aborted = replace(SUMMARY, status="aborted")
    write_metrics(path, SUMMARY)
    write_metrics(path, replace(aborted, sync="shop-eu"))  # it got its name in the meantime
    assert f'{success}{{sync="shop-eu"}} 1768314705.5' in path.read_text("utf-8")
    write_metrics(path, replace(aborted, sync="shop-us"))
    assert success not in path.read_text("utf-8")


def test_the_metrics_of_a_sync_without_a_name_have_no_such_label(tmp_path: Path) -> None:
    path = tmp_path / "sync.prom"
    write_metrics(path, SUMMARY)
    assert "sync=" not in path.read_text("utf-8")
    assert "iterable_sync_last_run_retries 7\n" in path.read_text("utf-8")


@pytest.mark.parametrize("status", ["aborted", "interrupted"])
def test_an_incomplete_run_keeps_the_time_of_the_last_success(tmp_path: Path, status: str) -> None:
    path, name = tmp_path / "sync.prom", "iterable_sync_last_success_timestamp_seconds"
    incomplete = replace(SUMMARY, status=status, finished_at="2026-01-14T00:00:00.000+00:00")
    write_metrics(path, incomplete)
    assert name not in path.read_text("utf-8")  # there was none yet
    write_metrics(path, SUMMARY)
    for _ in range(2):
        write_metrics(path, incomplete)
        metrics = metrics_in(path.read_text("utf-8"))
        assert metrics[name] == 1768314705.5
        assert metrics[f'iterable_sync_last_run_status{{status="{status}"}}'] == 1


def test_a_success_time_in_the_future_does_not_hide_later_failures(
    tmp_path: Path,
) -> None:
    path, name = tmp_path / "sync.prom", "iterable_sync_last_success_timestamp_seconds"
    write_metrics(path, replace(SUMMARY, finished_at="2036-01-13T14:31:45.500+00:00"))
    for day in (14, 15):
        finished_at = f"2026-01-{day}T00:00:00.000+00:00"
        write_metrics(path, replace(SUMMARY, status="aborted", finished_at=finished_at))
        assert metrics_in(path.read_text("utf-8"))[name] == 1768348800.0  # the 14th


def test_a_run_with_rejected_rows_counts_as_a_success(tmp_path: Path) -> None:
    path = tmp_path / "sync.prom"
    write_metrics(path, replace(SUMMARY, status="completed_with_failures"))
    metrics = metrics_in(path.read_text("utf-8"))
    assert metrics["iterable_sync_last_success_timestamp_seconds"] == 1768314705.5


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00garbage",
        b"iterable_sync_last_success_timestamp_seconds soon\n",
        b"iterable_sync_last_success_timestamp_seconds NaN\n",
        b"iterable_sync_last_success_timestamp_seconds 1 2 3\n",
    ],
)
def test_a_damaged_file_is_replaced(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "sync.prom"
    path.write_bytes(content)
    write_metrics(path, replace(SUMMARY, status="aborted"))
    metrics = metrics_in(path.read_text("utf-8"))
    assert "iterable_sync_last_success_timestamp_seconds" not in metrics


def test_every_user_can_read_the_metrics_and_they_contain_only_numbers(tmp_path: Path) -> None:
    path = tmp_path / "sync.prom"
    previous = os.umask(0o077)
    try:
        write_metrics(path, replace(SUMMARY, reason="password of ann@example.com"))
    finally:
        os.umask(previous)
    assert path.stat().st_mode & 0o777 == 0o644
    assert "@" not in path.read_text("utf-8")
    assert os.listdir(tmp_path) == ["sync.prom"]


def test_a_dry_run_does_not_change_the_metrics(tmp_path: Path) -> None:
    path = tmp_path / "sync.prom"
    write_metrics(path, SUMMARY)
    before = path.read_bytes()
    write_metrics(path, replace(SUMMARY, dry_run=True, api_calls=0))
    assert path.read_bytes() == before


def test_metrics_that_cannot_be_written_are_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_metrics(tmp_path / "no such folder" / "sync.prom", SUMMARY)
    (tmp_path / "folder.prom").mkdir()
    write_metrics(tmp_path / "folder.prom", SUMMARY)
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "No such file or directory" in caplog.text
    assert os.listdir(tmp_path) == ["folder.prom"]


def test_a_reader_always_sees_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "sync.prom"
    write_metrics(path, SUMMARY)
    ended = threading.Event()
    files: set[tuple[Path, ...]] = set()
    texts: set[str] = set()

    def read() -> None:
        while not ended.is_set():
            files.add(tuple(tmp_path.glob("*.prom")))  # the pattern of node_exporter
            texts.add(path.read_text("utf-8"))

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(50):
        write_metrics(path, SUMMARY)
    ended.set()
    reader.join()
    assert files == {(path,)}
    assert texts == {path.read_text("utf-8")}
