"""One line of `--check`: what was looked at, how it is, and what to do about it.

Owns the three ways a line can end. Knows nothing of what is checked.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CheckLine:
    """What was found of one thing. A warning is `ok`: a run would work all the same."""

    name: str
    ok: bool
    text: str
    is_warning: bool = False

    def __str__(self) -> str:
        ending = "FAILED" if not self.ok else "warning" if self.is_warning else "ok"
        return f"{ending:<8} {self.name:<14} {self.text}"


def passed(name: str, text: str) -> CheckLine:
    return CheckLine(name, True, text)


def warned(name: str, text: str) -> CheckLine:
    return CheckLine(name, True, text, is_warning=True)


def failed(name: str, text: str) -> CheckLine:
    return CheckLine(name, False, text)
