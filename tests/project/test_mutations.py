"""The mutation run's changes: each a true one, each once, and nothing that says nothing."""

from __future__ import annotations

import ast

import pytest

from tools.mutations import mutants_of


def changed(source: str) -> list[str]:
    """Return the mutants of a module in the layout of `ast.unparse`."""
    return sorted(mutant.source.strip() for mutant in mutants_of(source))


@pytest.mark.parametrize(
    ("source", "mutants"),
    [
        ("a < b", ["a <= b", "a >= b", "pass"]),
        ("x = a and b", ["pass", "x = a", "x = a or b", "x = b"]),
        ("x = 2", ["pass", "x = 1", "x = 3"]),
        ("x = 0.5", ["pass", "x = 0.25", "x = 1.0"]),
        ("x = 'a{2}'", ["pass", "x = 'XXa{2}XX'", "x = 'a{1}'", "x = 'a{3}'"]),
        ("x = not True", ["pass", "x = True", "x = not False"]),
        ("say(a.strip())", ["pass", "say(a)"]),
        ("x = min(a, b=c)", ["pass", "x = max(a, b=c)", "x = min(a)"]),
    ],
)  # fmt: skip
def test_a_statement_is_changed_in_one_place_at_a_time(source: str, mutants: list[str]) -> None:
    assert changed(source) == mutants


def test_what_says_nothing_at_run_time_is_left_alone() -> None:
    assert changed('"""What it owns."""\nimport a\n\ndef f(b: "int"=c) -> "int":\n    pass') == []


def test_every_mutant_compiles_and_is_another_module() -> None:
    source = (
        "def f(a):\n    for b in a:\n        if b:\n            continue\n    return f'{a:>3} b'\n"
    )
    mutants = changed(source)
    assert len(mutants) == len(set(mutants)) > 5
    assert ast.unparse(ast.parse(source)) not in mutants
    for mutant in mutants:
        compile(mutant, "mutant", "exec")
