"""tools/fuzzing.py: its table of targets is complete, and findings are reported once."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from tools.fuzzing import TARGETS, Report, reporting

NEEDS_A_SERVER = {"test_any_query_returns_rows_or_an_error_of_one_line"}


def test_every_property_that_needs_no_server_is_a_target() -> None:
    properties = set()
    for path in (Path(__file__).parent.parent / "properties").glob("test_*.py"):
        module = importlib.import_module(f"tests.properties.{path.stem}")
        found = {name for name, each in vars(module).items() if hasattr(each, "hypothesis")}
        properties |= {f"{path.stem}:{name}" for name in found - NEEDS_A_SERVER}
    assert set(TARGETS.values()) == properties


def test_a_finding_is_reported_once_for_each_place_with_its_shortest_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(text: str) -> None:
        assert not text

    report = Report(tmp_path, seconds=60)
    for given in ("long enough", "x", "", "longer"):
        reporting(fail, report)(text=given)
    report.close()
    executions, _seconds, findings = json.loads(report.path.read_text())
    assert executions == 4
    ((place, text),) = findings.items()
    assert place.startswith("AssertionError at test_fuzzing.py:")
    assert text.endswith("input: {'text': 'x'}")
    assert capsys.readouterr().out.count("FINDING") == 1
