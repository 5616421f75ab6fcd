"""Slow steps in the plans of MySQL and MariaDB."""

from __future__ import annotations

from typing import Any

import pytest

from source.query_plan import is_table_form, slow_steps

TYPES = {
    **{"page_views.page": "tinytext", "page_views.event_time": "timestamp"},
    **{"page_views.user_id": "int", "Accounts.id": "int", "customers.id": "int"},
}


def step(**changed: Any) -> dict[str, Any]:
    """Return a step of a plan of MySQL 8, a fast one unless changed."""
    return {
        **{"id": 2, "select_type": "DERIVED", "table": "page_views", "partitions": None},
        **{"type": "range", "possible_keys": "page_views_recent", "key": "page_views_recent"},
        **{"key_len": "262", "ref": None, "rows": 3_000_000, "filtered": 33.3, "Extra": ""},
        **changed,
    }


@pytest.mark.parametrize(
    "good",
    [
        step(),
        step(type="ALL", table="<derived2>", select_type="PRIMARY", possible_keys=None),
        step(type="eq_ref", select_type="PRIMARY"),
        step(type="ALL", rows=None, table=None),
        step(type="ALL", select_type="PRIMARY", table="customers", rows=9_999, possible_keys=None),
        step(type="ALL", rows=9_999),
        step(type="ALL", select_type="SIMPLE", table="own", rows="9999", possible_keys=None),
    ],
)
def test_a_good_plan_or_a_small_table_has_no_slow_steps(good: dict[str, Any]) -> None:
    assert slow_steps([good]) == []


@pytest.mark.parametrize("kind", ["ALL", "index"])
@pytest.mark.parametrize("rows", [1, 3_000_000, "3000000"])
def test_views_that_are_ranked_without_an_index_are_slow(kind: str, rows: object) -> None:
    [(what, cure)] = slow_steps([step(type=kind, possible_keys=None, rows=rows)])
    assert "the whole of page_views is read" in what
    assert cure == "CREATE INDEX page_views_recent ON page_views (page, event_time, user_id)"


def test_a_share_behind_the_number_of_rows_was_a_bug_of_check() -> None:
    """MariaDB writes it where an index filters the row ids of another one; exit status was 70."""
    assert slow_steps([step(type="ref|filter", rows="1 (67%)")]) == []
    [(what, _)] = slow_steps([step(type="ALL", rows="20000 (5%)", possible_keys=None)])
    assert "about 20,000 rows" in what


def test_an_index_on_a_text_column_has_a_length() -> None:
    [(_, cure)] = slow_steps([step(type="ALL", possible_keys=None)], "", TYPES)
    assert "(page(64), event_time, user_id)" in cure


def test_a_full_scan_of_customers_recommends_its_own_index() -> None:
    whole = step(type="ALL", select_type="PRIMARY", table="customers", possible_keys=None)
    [(_, cure)] = slow_steps([whole])
    assert cure == "CREATE INDEX customers_plan ON customers (plan_type, id)"


def test_an_index_that_exists_but_is_not_used_recommends_analyze_table() -> None:
    [(what, cure)] = slow_steps([step(type="ALL", key=None)])
    assert "although an index is available (page_views_recent)" in what
    assert cure.startswith("ANALYZE TABLE page_views")


def test_for_an_unknown_table_the_advice_names_no_columns() -> None:
    [(what, cure)] = slow_steps([step(type="ALL", table="v", possible_keys=None)])
    assert "the whole of v is read" in what
    assert cure == "add an index to v on the columns that the query filters by"


def test_ranking_again_for_each_customer_is_slow_with_any_index() -> None:
    [(what, _)] = slow_steps([step(select_type="LATERAL DERIVED", type="ref", rows=5)])
    assert "LATERAL DERIVED" in what


@pytest.mark.parametrize("steps", [[{"EXPLAIN": "-> Sort"}], [{"id": 3, "detail": "SCAN x"}]])
def test_a_plan_in_another_format_is_not_table_form(steps: list[dict[str, Any]]) -> None:
    assert not is_table_form(steps)
    assert is_table_form([step()])


@pytest.mark.parametrize(
    "query",
    [
        "SELECT a.id FROM Accounts a",
        "SELECT a.id FROM customers c JOIN shop.`Accounts` AS `a` ON a.id = c.id",
        "SELECT a.id FROM customers, accounts\n  as A WHERE a.id = customers.id",
    ],
)
def test_the_advice_named_an_alias(query: str) -> None:
    scan = step(type="ALL", select_type="SIMPLE", table="a", possible_keys="PRIMARY")
    [(what, fix)] = slow_steps([scan], query, TYPES)
    assert what.startswith("the whole of Accounts is read")
    assert fix.startswith("ANALYZE TABLE Accounts ")


def test_the_advice_named_the_alias_of_a_table_in_another_database() -> None:
    scan = step(type="ALL", select_type="SIMPLE", table="v", possible_keys="PRIMARY")
    query = "SELECT v.id FROM customers c JOIN `shop`.visits AS v ON v.id = c.id"
    [(what, fix)] = slow_steps([scan], query, TYPES)
    assert what.startswith("the whole of shop.visits is read")
    assert fix.startswith("ANALYZE TABLE shop.visits ")


def test_a_name_for_two_tables_stays_as_it_is_in_the_plan() -> None:
    scan = step(type="ALL", table="a", possible_keys=None)
    query = "SELECT 1 FROM (SELECT id FROM Accounts a) x, (SELECT id FROM customers a) y"
    [(what, _)] = slow_steps([scan], query, TYPES)
    assert what.startswith("the whole of a is read")


def test_the_index_of_our_table_was_recommended_for_another_of_its_name() -> None:
    whole = step(type="ALL", select_type="PRIMARY", table="customers", possible_keys=None)
    [(_, fix)] = slow_steps([whole], "SELECT id FROM customers", TYPES)  # it has no plan_type
    assert fix == "add an index to customers on the columns that the query filters by"
