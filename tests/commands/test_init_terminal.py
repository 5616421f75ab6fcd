"""What an answer to a numbered list means."""

from __future__ import annotations

import pytest

from commands.init.terminal import name_of


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        *(("1", "users"), ("2", "Orders"), ("users", "users"), ("orders", "Orders")),
        *(("more", "more"), ("7", "7"), ("0", None), ("3", None), ("", None), ("no", None)),
        *(("\u0662", "Orders"), ("1" * 5_000, None), ("log", None), ("LOG", "LOG")),
    ],
)
def test_an_answer_is_a_number_of_the_list_or_a_name(answer: str, name: str | None) -> None:
    assert name_of(answer, ["users", "Orders"], ["users", "Orders", "more", "7", "LOG", "Log"]) == (
        name
    )
