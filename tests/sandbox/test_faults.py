"""The sandbox's fault scripts, rate limits and windows, without a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sandbox.faults import CallFacts, FaultScript, load_fault_script
from sandbox.traffic import BusiestSecond, SlidingSecond, TokenBucket, to_rate_limit

SARAH = "sarah.johnson@email.com"

# Fault scripts


def fired(script: FaultScript, call_count: int, endpoint: str = "events/track") -> list[int]:
    """Give the ordinals of the calls (one each second) that some rule decided."""
    facts = CallFacts(endpoint, lambda: {SARAH})
    chosen = (script.choose(facts, float(second)) for second in range(call_count))
    return [number for number, (_, rule) in enumerate(chosen, start=1) if rule is not None]


@pytest.mark.parametrize(
    ("selectors", "expected"),
    [
        ({}, [1, 2, 3, 4, 5, 6]),
        ({"every": 3}, [3, 6]),
        ({"nth": [1, 4]}, [1, 4]),
        ({"nth": 2}, [2]),
        ({"times": 2}, [1, 2]),
        ({"every": 2, "times": 1}, [2]),
        ({"from_seconds": 2, "to_seconds": 4}, [3, 4]),
        ({"from_seconds": 2, "nth": [1]}, [3]),
        ({"endpoint": "events/track"}, [1, 2, 3, 4, 5, 6]),
        ({"endpoint": "users/update"}, []),
        ({"email": "Sarah.Johnson@email.com"}, [1, 2, 3, 4, 5, 6]),
        ({"email": "else@email.com"}, []),
        ({"probability": 0}, []),
        ({"probability": 1}, [1, 2, 3, 4, 5, 6]),
    ],
)
def test_selectors_choose_the_calls_of_a_rule(
    selectors: dict[str, Any], expected: list[int]
) -> None:
    assert fired(FaultScript([{"fault": "hang", **selectors}]), 6) == expected


def test_probability_is_repeatable_for_a_seed() -> None:
    rules = [{"fault": "hang", "probability": 0.5}]
    first, again, other = (fired(FaultScript(rules, seed=seed), 64) for seed in (1, 1, 2))
    assert first == again != other
    assert 16 < len(first) < 48


def test_delays_add_up_and_the_first_other_rule_decides() -> None:
    script = FaultScript(
        [
            {"fault": "delay", "seconds": 1},
            {"fault": "status", "status": 503, "nth": [2]},
            {"fault": "delay", "seconds": 0.5, "nth": [2]},
            {"fault": "hang", "times": 1},
        ]
    )
    facts = CallFacts("events/track", set)
    fates = [script.choose(facts, 0.0) for _ in range(3)]
    assert [(delay, rule and rule.fault) for delay, rule in fates] == [
        (1, "hang"),
        (1.5, "status"),
        (1, None),
    ]
    assert [each["fired"] for each in script.to_list()] == [3, 1, 1, 1]


def test_miscounts_choose_bulk_calls_only() -> None:
    rules = [{"fault": "miscount"}]
    assert fired(FaultScript(rules), 2) == []
    assert fired(FaultScript(rules), 2, "events/trackBulk") == [1, 2]


@pytest.mark.parametrize(
    ("rules", "complaint"),
    [
        ({"fault": "hang"}, "a fault script is a list of rules"),
        (["hang"], "fault rule 1: must be an object"),
        (
            [{"fault": "hang"}, {}],
            "fault rule 2: unknown fault None; the faults are compressed, delay, down,",
        ),
        ([{"fault": ["hang"]}], "fault rule 1: unknown fault"),
        ([{"fault": "hang", "nht": 1}], r"fault rule 1 \(hang\): unknown key `nht`"),
        ([{"fault": "delay"}], r"fault rule 1 \(delay\): needs `seconds`"),
        ([{"fault": "status", "status": 99}], "`status` must be an HTTP status.*, not 99"),
        ([{"fault": "hang", "nth": [0]}], "`nth` must be a list of ordinals"),
        ([{"fault": "hang", "probability": 2}], "`probability` must be a number from 0 to 1"),
        ([{"fault": "hang", "every": True}], "`every` must be a whole number"),
        ([{"fault": "down", "email": SARAH}], r"fault rule 1 \(down\): unknown key `email`"),
        ([{"fault": "echo_request", "status": 200}], "`status` must be 400 or 500"),
    ],
)
def test_a_bad_script_is_refused_naming_the_rule_and_the_problem(
    rules: Any, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        FaultScript(rules)


def test_every_problem_of_a_rule_is_named_at_once() -> None:
    with pytest.raises(ValueError, match=r"unknown key `a`.*`times` must be.*needs `status`"):
        FaultScript([{"fault": "status", "a": 1, "times": 0}])


def test_a_script_is_loaded_from_inline_json_or_a_file(tmp_path: Path) -> None:
    text = '[{"fault": "unavailable_listener"}]'
    (tmp_path / "faults.json").write_text(text, encoding="utf-8")
    from_file = load_fault_script(str(tmp_path / "faults.json"))
    assert load_fault_script(text) == from_file == [{"fault": "unavailable_listener"}]
    with pytest.raises(ValueError, match=r"missing\.json: No such file"):
        load_fault_script(str(tmp_path / "missing.json"))
    with pytest.raises(ValueError, match="not JSON"):
        load_fault_script("[nonsense")
    with pytest.raises(ValueError, match="fault rule 1"):
        load_fault_script("[{}]")


# Limits and windows


def test_a_bucket_gives_its_burst_then_its_rate() -> None:
    limit = to_rate_limit({"per_second": 10, "burst": 2})
    assert [limit.wait_seconds(100.0) for _ in range(3)] == [0, 0, pytest.approx(0.1)]
    assert limit.wait_seconds(100.05) == pytest.approx(0.05)
    assert limit.wait_seconds(100.11) == 0
    assert [limit.wait_seconds(200.0) > 0 for _ in range(3)] == [False, False, True]


def test_a_limit_alone_has_a_burst_of_one_second_and_at_least_one_call() -> None:
    assert TokenBucket(500).burst == 500
    assert TokenBucket(0.5).burst == 1


def test_a_sliding_limit_accepts_no_more_calls_in_any_second() -> None:
    limit = to_rate_limit({"per_second": 3, "window": "sliding"})
    arrivals = (0.0, 0.5, 0.9, 0.95, 0.99, 1.0, 1.4, 1.5, 1.6)
    accepted = [at for at in arrivals if not limit.wait_seconds(at)]
    assert accepted == [0.0, 0.5, 0.9, 1.0, 1.5]  # a refused call does not count


def test_a_sliding_limit_says_when_it_accepts_the_next_call() -> None:
    limit = SlidingSecond(2)
    assert [limit.wait_seconds(at) for at in (10.0, 10.25)] == [0.0, 0.0]
    assert limit.remaining == 0
    assert limit.wait_seconds(10.5) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "limit",
    [
        0,
        -1,
        True,
        {},
        {"per_second": 1, "brust": 2},
        {"burst": 1},
        {"per_second": 1, "window": "tumbling"},
        {"per_second": 1, "window": "sliding", "burst": 2},
        {"per_second": 2.5, "window": "sliding"},
        {"window": "sliding"},
    ],
)
def test_a_limit_that_makes_no_sense_is_refused(limit: Any) -> None:
    with pytest.raises(ValueError, match="limit"):
        to_rate_limit(limit)


def test_the_busiest_second_slides() -> None:
    window = BusiestSecond()
    for at in (0.0, 0.6, 0.9, 1.1, 1.5, 1.7, 3.0):
        window.arrive(at)
    assert window.most == 4  # 0.9, 1.1, 1.5 and 1.7; 0.6 left at 1.6
