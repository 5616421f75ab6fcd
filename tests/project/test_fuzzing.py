"""The fuzzer's table of targets: every property test of what comes from outside, and no other."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from tools.fuzzing import TARGETS, Account, watched

NEEDS_A_SERVER = {"test_any_query_gives_rows_or_an_error_in_a_line"}


def test_every_property_of_what_comes_from_outside_is_a_target() -> None:
    properties = set()
    for path in (Path(__file__).parent.parent / "properties").glob("test_*.py"):
        module = importlib.import_module(f"tests.properties.{path.stem}")
        found = {name for name, each in vars(module).items() if hasattr(each, "hypothesis")}
        properties |= {f"{path.stem}:{name}" for name in found - NEEDS_A_SERVER}
    assert set(TARGETS.values()) == properties


def test_what_fails_is_told_once_a_place_with_its_shortest_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(text: str) -> None:
        assert not text

    account = Account(tmp_path, seconds=60)
    for text in ("long enough", "x", "", "longer"):
        watched(fail, account)(text=text)
    account.close()
    executions, _seconds, findings = json.loads(account.path.read_text())
    assert executions == 4
    ((place, described),) = findings.items()
    assert place.startswith("AssertionError at test_fuzzing.py:")
    assert described.endswith("input: {'text': 'x'}")
    assert capsys.readouterr().out.count("FINDING") == 1
