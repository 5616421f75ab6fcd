"""Fault script: rules that choose which calls fail, and how.

A script is a JSON list of rules. A rule is an object with `fault`, the parameters of that fault
(`PARAMETERS`) and selectors (`SELECTORS`). A rule counts the calls that match its endpoint, e-mail
and time window; `nth` and `every` refer to this count. The delays of all rules that fire are added
up; of the other rules the first one that fires decides the response (see `fault_effects`).
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Check = tuple[Callable[[Any], bool], str]


def _is_number(value: object) -> bool:
    return type(value) in (int, float)


_SECONDS: Check = (lambda v: _is_number(v) and v >= 0, "a number of seconds, 0 or more")
_POSITIVE: Check = (lambda v: type(v) is int and v >= 1, "a whole number, 1 or more")
_TEXT: Check = (lambda v: isinstance(v, str) and v != "", "a text")
_FLAG: Check = (lambda v: isinstance(v, bool), "true or false")
_STATUS: Check = (lambda v: type(v) is int and 200 <= v <= 599, "an HTTP status, 200-599")

SELECTORS: dict[str, Check] = {
    "endpoint": _TEXT,
    "email": _TEXT,
    "every": _POSITIVE,
    "nth": (
        lambda v: isinstance(v, list) and v != [] and all(_POSITIVE[0](n) for n in v),
        "a list of ordinals like [1, 2]",
    ),
    "probability": (lambda v: _is_number(v) and 0 <= v <= 1, "a number from 0 to 1"),
    "from_seconds": _SECONDS,
    "to_seconds": _SECONDS,
    "times": _POSITIVE,
}
PARAMETERS: dict[str, dict[str, Check]] = {
    "delay": {"seconds": _SECONDS},
    "status": {
        "status": (lambda v: v == "any" or _STATUS[0](v), 'an HTTP status, or "any" (500-504)'),
        "code": _TEXT,
        "msg": _TEXT,
        "retry_after": (lambda v: _SECONDS[0](v) or _TEXT[0](v), "seconds, or an HTTP date"),
        "applied": _FLAG,
    },
    "rate_limited": {
        "retry_after": (lambda v: _SECONDS[0](v) or _TEXT[0](v), "seconds, or an HTTP date"),
        "reset": (lambda v: v is None or _SECONDS[0](v), "a number of seconds, or null"),
    },
    "malformed_json": {"status": _STATUS, "applied": _FLAG},
    "html_body": {"status": _STATUS, "applied": _FLAG},
    "half_body": {"status": _STATUS, "applied": _FLAG},
    "empty_body": {"status": _STATUS, "applied": _FLAG},
    "hang": {"applied": _FLAG},
    "drop_before": {},
    "drop_after": {},
    "redirect": {
        "status": (lambda v: v in (301, 302, 303, 307, 308), "301, 302, 303, 307 or 308"),
        "location": _TEXT,
    },
    "miscount": {"by": (lambda v: type(v) is int and v != 0, "a whole number, not 0")},
    "success_code_on_error": {"status": _STATUS, "applied": _FLAG},
    "error_code_on_200": {"code": _TEXT, "msg": _TEXT, "applied": _FLAG},
    "echo_request": {"status": (lambda v: v in (400, 500), "400 or 500")},
    "huge_body": {"bytes": _POSITIVE, "status": _STATUS, "applied": _FLAG},
    "early_hints": {"count": _POSITIVE},
    "compressed": {},
    "down": {},
}
_REQUIRED = {"delay": "seconds", "status": "status"}
_OTHER_NAMES = {"unavailable_listener": "down"}
# These apply the call before they corrupt the response, unless the rule has `"applied": false`.
APPLIES_FIRST = frozenset(
    {
        *("drop_after", "half_body", "malformed_json", "html_body", "huge_body", "miscount"),
        *("early_hints", "compressed"),
    }
)
BULK_ENDPOINTS = frozenset({"users/bulkUpdate", "events/trackBulk"})
# A connection that is reset at once has no endpoint and no e-mail yet.
_NOT_WHEN_DOWN = ("endpoint", "email")


@dataclass(frozen=True, slots=True)
class CallFacts:
    """The part of a call that selectors match. `identifiers` returns them in lower case, lazily."""

    endpoint: str
    identifiers: Callable[[], Collection[str]]


@dataclass(slots=True)
class FaultRule:
    """A validated rule and its counters."""

    fault: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    selectors: Mapping[str, Any] = field(default_factory=dict)
    matched_count: int = 0
    fired_count: int = 0

    @property
    def applies_first(self) -> bool:
        """Whether the call is applied before its response is corrupted."""
        applied: bool = self.parameters.get("applied", self.fault in APPLIES_FIRST)
        return applied

    def selects(self, call: CallFacts | None, age_seconds: float) -> bool:
        """Return whether this rule counts the call; None is a connection without a call yet."""
        chosen = self.selectors
        if not chosen.get("from_seconds", 0) <= age_seconds < chosen.get("to_seconds", 1e99):
            return False
        if call is None:
            return True
        if chosen.get("endpoint", call.endpoint) != call.endpoint:
            return False
        if self.fault == "miscount" and call.endpoint not in BULK_ENDPOINTS:
            return False
        return "email" not in chosen or chosen["email"].lower() in call.identifiers()

    def is_due(self, rng: random.Random) -> bool:
        """Return whether the rule fires for the call that it counted last."""
        chosen = self.selectors
        return (
            self.fired_count < chosen.get("times", 1e99)
            and self.matched_count % chosen.get("every", 1) == 0
            and ("nth" not in chosen or self.matched_count in chosen["nth"])
            and ("probability" not in chosen or rng.random() < chosen["probability"])
        )


class FaultScript:
    """Rules in force since `installed_at` (monotonic seconds); not thread-safe."""

    def __init__(
        self, rules: Sequence[Mapping[str, Any]] = (), *, seed: int = 1, installed_at: float = 0.0
    ) -> None:
        """Validate the rules; ValueError names the rule (counted from 1) and the problem."""
        if not isinstance(rules, Sequence) or isinstance(rules, (str, bytes)):
            raise ValueError("a fault script is a list of rules")
        self.rules = [_to_rule(number, rule) for number, rule in enumerate(rules, start=1)]
        self._call_rules = [rule for rule in self.rules if rule.fault != "down"]
        self._down_rules = [rule for rule in self.rules if rule.fault == "down"]
        self._installed_at = installed_at
        # Repeatable randomness, not a secret.
        self.rng = random.Random(seed)  # noqa: S311

    @property
    def has_call_rules(self) -> bool:
        """Whether any rule applies to calls; if not, `choose` need not be called."""
        return bool(self._call_rules)

    @property
    def has_down_rules(self) -> bool:
        """Whether any `down` rule exists; if not, `is_down` need not be called."""
        return bool(self._down_rules)

    def choose(self, call: CallFacts, now: float) -> tuple[float, FaultRule | None]:
        """Count the call; return its delay in seconds and the rule that decides its response."""
        delay_seconds = 0.0
        deciding: FaultRule | None = None
        for rule in self._call_rules:
            if not rule.selects(call, now - self._installed_at):
                continue
            rule.matched_count += 1
            is_delay = rule.fault == "delay"
            if (not is_delay and deciding is not None) or not rule.is_due(self.rng):
                continue
            rule.fired_count += 1
            if is_delay:
                delay_seconds += rule.parameters["seconds"]
            else:
                deciding = rule
        return delay_seconds, deciding

    def is_down(self, now: float) -> bool:
        """Count a connection's attempt to send a request; return whether it is reset at once."""
        for rule in self._down_rules:
            if rule.selects(None, now - self._installed_at):
                rule.matched_count += 1
                if rule.is_due(self.rng):
                    rule.fired_count += 1
                    return True
        return False

    def to_list(self) -> list[dict[str, object]]:
        """Return the counters of each rule, in the form of GET /sandbox/state."""
        return [
            {"fault": rule.fault, "matched": rule.matched_count, "fired": rule.fired_count}
            for rule in self.rules
        ]


def load_fault_script(text: str) -> list[dict[str, Any]]:
    """Read a script from inline JSON (starting with `[`) or from a file with that name."""
    source = text
    if not text.lstrip().startswith("["):
        try:
            source = Path(text).read_text(encoding="utf-8")
        except OSError as error:
            raise ValueError(f"fault script {text}: {error.strerror}") from error
    try:
        rules = json.loads(source)
    except ValueError as error:
        raise ValueError(f"fault script is not JSON: {error}") from error
    FaultScript(rules)
    checked: list[dict[str, Any]] = rules
    return checked


def _to_rule(number: int, rule: object) -> FaultRule:
    if not isinstance(rule, Mapping):
        raise ValueError(f"fault rule {number}: must be an object with a `fault`")
    name = rule.get("fault")
    name = _OTHER_NAMES.get(name, name) if isinstance(name, str) else name
    if not isinstance(name, str) or name not in PARAMETERS:
        known = ", ".join(sorted(PARAMETERS))
        raise ValueError(f"fault rule {number}: unknown fault {name!r}; the faults are {known}")
    problems: list[str] = []
    parameters: dict[str, Any] = {}
    selectors: dict[str, Any] = {}
    for key, value in rule.items():
        if key == "fault":
            continue
        if key == "nth" and type(value) is int:
            value = [value]
        check = PARAMETERS[name].get(key) or SELECTORS.get(key)
        if check is None or (name == "down" and key in _NOT_WHEN_DOWN):
            problems.append(f"unknown key `{key}`")
        elif not check[0](value):
            problems.append(f"`{key}` must be {check[1]}, not {value!r}")
        elif key in PARAMETERS[name]:
            parameters[key] = value
        else:
            selectors[key] = value
    if name in _REQUIRED and _REQUIRED[name] not in rule:
        problems.append(f"needs `{_REQUIRED[name]}`")
    if problems:
        raise ValueError(f"fault rule {number} ({name}): {'; '.join(problems)}")
    return FaultRule(name, parameters, selectors)
