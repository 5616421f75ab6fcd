"""One line of `--check`: ok, warning or FAILED, the name of the check, and what to do."""

from __future__ import annotations

from dataclasses import dataclass

from logger_config import redact


@dataclass(frozen=True, slots=True)
class CheckLine:
    """The result of one check. A warning is `ok`: a run works despite it."""

    name: str
    ok: bool
    text: str
    is_warning: bool = False

    def __str__(self) -> str:
        return f"{self.result:<8} {self.name:<14} {self.text}"

    @property
    def result(self) -> str:
        return "FAILED" if not self.ok else "warning" if self.is_warning else "ok"

    def to_json(self) -> dict[str, str]:
        """Return the line for `--json`, without secrets."""
        return {"result": self.result, "name": self.name, "text": redact(self.text)}


def passed(name: str, text: str) -> CheckLine:
    return CheckLine(name, True, text)


def warned(name: str, text: str) -> CheckLine:
    return CheckLine(name, True, text, is_warning=True)


def failed(name: str, text: str) -> CheckLine:
    return CheckLine(name, False, text)
