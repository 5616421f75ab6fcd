"""Which tables and columns `--init` proposes, for the tables of well-known programs."""

from __future__ import annotations

import pytest

from commands.init.proposals import (
    email_columns,
    event_name_for,
    event_tables,
    is_email_column,
    is_event_table,
    is_user_table,
    looks_secret,
    proposed_id,
    reference_by,
    references_to,
    time_columns,
    user_tables,
)
from commands.init.schema import Column, Reference, Table, Users

# A table: its columns with their types; `*` marks the primary key, `>table.column` a foreign key.
SCHEMAS = {
    "this program": (
        "customers: *id int, email varchar, first_name varchar, plan_type varchar",
        "page_views: *id int, user_id int >customers.id, page varchar, event_time timestamp",
    ),
    "Laravel": (
        "failed_jobs: *id bigint, payload longtext, failed_at timestamp",
        "orders: *id bigint, user_id bigint, total decimal, created_at timestamp,"
        " updated_at timestamp",
        "password_resets: email varchar, token varchar, created_at timestamp",
        "users: *id bigint, name varchar, email varchar, email_verified_at timestamp,"
        " password varchar, remember_token varchar, created_at timestamp",
    ),
    "WordPress": (
        "wp_comments: *comment_ID bigint, comment_author_email varchar, comment_date datetime,"
        " user_id bigint",
        "wp_options: *option_id bigint, option_name varchar",
        "wp_usermeta: *umeta_id bigint, user_id bigint, meta_key varchar",
        "wp_users: *ID bigint, user_login varchar, user_pass varchar, user_email varchar,"
        " user_registered datetime, user_activation_key varchar",
    ),
    "PrestaShop": (
        "ps_customer: *id_customer int, id_shop int, email varchar, passwd varchar,"
        " secure_key varchar, date_add datetime, date_upd datetime",
        "ps_orders: *id_order int, reference varchar, id_customer int, date_upd datetime,"
        " date_add datetime, total_paid decimal",
    ),
    "Django": (
        "auth_user: *id int, password varchar, last_login datetime, email varchar,"
        " is_staff tinyint, date_joined datetime",
        "django_session: *session_key varchar, session_data longtext, expire_date datetime",
        "shop_order: *id int, user_id int >auth_user.id, placed_on datetime, updated datetime",
    ),
    "German": (
        "artikel: *artikelnr int, titel varchar",
        "bestellungen: *bestellnr int, kundennr int, bestellt_am datetime, summe decimal",
        "kunden: *kundennr int, mailadresse varchar, vorname varchar",
    ),
    "events by e-mail": (
        "contacts: *email varchar, name varchar",
        "opens: *id int, email varchar, opened_at timestamp",
    ),
    "profiles only": ("members: *member_no int, e_mail varchar, birth_date date",),
}
EXPECTED = {
    "this program": ("customers", "email", "id", "page_views", "user_id", "event_time"),
    "Laravel": ("users", "email", "id", "orders", "user_id", "created_at"),
    "WordPress": ("wp_users", "user_email", "ID", "wp_comments", "user_id", "comment_date"),
    "PrestaShop": ("ps_customer", "email", "id_customer", "ps_orders", "id_customer", "date_add"),
    "Django": ("auth_user", "email", "id", "shop_order", "user_id", "placed_on"),
    "German": ("kunden", "mailadresse", "kundennr", "bestellungen", "kundennr", "bestellt_am"),
    "events by e-mail": ("contacts", "email", "email", "opens", "email", "opened_at"),
    "profiles only": ("members", "e_mail", "member_no", None, None, None),
}


def table(text: str) -> Table:
    name, _, rest = text.partition(": ")
    columns, keys = [], []
    for part in rest.split(", "):
        definition, _, target = part.partition(" >")
        column, kind = definition.lstrip("*").split(" ")
        columns.append(Column(column, kind, kind, is_primary=definition.startswith("*")))
        if target:
            other, other_column = target.split(".")
            keys.append(Reference(other, ((column, other_column),)))
    return Table(name, tuple(columns), tuple(keys))


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_proposals_for_the_tables_of_a_program(name: str) -> None:
    tables = [table(text) for text in SCHEMAS[name]]
    users = user_tables(tables)[0]
    assert is_user_table(users)
    email = email_columns(users)[0]
    assert is_email_column(email)
    chosen = Users(users, proposed_id(users, email.name), email.name)
    found: tuple[str | None, ...] = (users.name, email.name, chosen.id)
    ranked = event_tables(tables, chosen)
    if ranked and is_event_table(ranked[0], chosen):
        reference = references_to(chosen, ranked[0])[0]
        found += (ranked[0].name, reference.label, time_columns(ranked[0])[0].name)
    else:
        found += (None, None, None)
    assert found == EXPECTED[name]


def test_nothing_is_proposed_where_nothing_looks_like_users() -> None:
    tables = [table("t1: c1 int, c2 varchar"), table("t2: c3 int, c4 datetime")]
    ranked = user_tables(tables)
    assert len(ranked) == 2
    assert not is_user_table(ranked[0])
    assert not is_email_column(email_columns(tables[0])[0])
    assert proposed_id(tables[0], "c2") == ""
    assert not is_event_table(tables[1], Users(tables[0], "c1", "c2"))


def test_both_columns_of_a_composite_key_refer_to_the_users() -> None:
    users = Users(table("users: *tenant int, *no int, email varchar"), "no", "email")
    by_name = table("logins: *id int, tenant int, no int, at datetime")
    assert references_to(users, by_name)[0].pairs == (("tenant", "tenant"), ("no", "no"))
    key = Reference("users", (("t", "tenant"), ("n", "no")))
    by_key = table("logins: *id int, t int, n int, at datetime")._replace(foreign_keys=(key,))
    assert references_to(users, by_key) == [key]


def test_the_id_of_another_table_is_not_that_of_the_user() -> None:
    users = Users(table("users: *id int, *version int, email varchar"), "id", "email")
    visits = table("visits: *id int, *version int, user_id int, at datetime")
    assert [each.label for each in references_to(users, visits)] == ["user_id"]


def test_the_user_who_made_a_row_is_not_the_one_it_is_about() -> None:
    users = Users(table("users: *id int, email varchar"), "id", "email")
    orders = table("orders: *id int, created_by int >users.id, user_id int >users.id, at datetime")
    assert [each.label for each in references_to(users, orders)] == ["user_id", "created_by"]


def test_a_key_to_a_column_that_cannot_be_read_is_no_reference() -> None:
    users = Users(table("users: *id int, email varchar"), "id", "email")
    assert references_to(users, table("visits: who int >users.uuid, at datetime")) == []


def test_a_reference_has_the_type_of_the_id() -> None:
    users = Users(table("users: *id int, email varchar"), "id", "email")
    assert references_to(users, table("visits: user_id varchar, at datetime")) == []


def test_events_that_name_the_user_by_e_mail_are_joined_by_it() -> None:
    users = Users(table("users: *id int, email varchar"), "id", "email")
    events = table("clicks: user_email varchar, at datetime, who varchar, num int")
    assert is_event_table(events, users)
    assert references_to(users, events)[0].pairs == (("user_email", "email"),)
    pairs = [reference_by(events.column(name), users).pairs for name in ("who", "num", "at")]
    assert pairs == [(("who", "email"),), (("num", "id"),), (("at", "id"),)]


def test_a_part_of_a_composite_key_is_not_proposed_as_the_id() -> None:
    """Two users with the same number became one, without a word."""
    users = table("users: *tenant_id int, *user_no int, email varchar")
    assert proposed_id(users, "email") == ""
    assert proposed_id(table("users: *tenant_id int, *id int, email varchar"), "email") == "id"


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("calls: *id int, agent int >users.id, user_id int, at datetime", "user_id"),
        (
            "orders: *id int, created_by int >users.id, customer int >users.id, at datetime",
            "customer",
        ),
        ("orders: *id int, created_by int >users.id", "created_by"),
    ],
)
def test_who_made_or_handled_an_event_is_proposed_last(text: str, label: str) -> None:
    users = Users(table("users: *id int, email varchar"), "id", "email")
    assert references_to(users, table(text))[0].label == label


@pytest.mark.parametrize(
    ("name", "is_secret"),
    [
        *(("password", True), ("passwordHash", True), ("user_pass", True), ("apiKey", True)),
        *(("remember_token", True), ("passwort", True), ("salt", True), ("pwd", True)),
        *(("two_factor_recovery_codes", True), ("security_answer", True), ("reset_code", True)),
        *(("session_id", True), ("jwt", True), ("card_number", True), ("signing_key", True)),
        *(("senha", True), ("USERPASS", True), ("postal_code", False), ("country_code", False)),
        *(("name", False), ("hashtag", False), ("passenger", False), ("spin", False)),
        *(("license_key", False), ("compass", False), ("pinned", False)),
    ],
)
def test_columns_that_look_like_secrets(name: str, is_secret: bool) -> None:
    assert looks_secret(Column(name, "varchar")) is is_secret


@pytest.mark.parametrize(
    ("table_name", "event"),
    [
        *(("page_views", "page_view"), ("PageViews", "page_view"), ("orders", "order")),
        *(("activities", "activity"), ("order-status", "order_status"), ("boxes", "box")),
        *(
            ("Bestellungen", "bestellungen"),
            ("ereignisse größe", "ereignisse_größe"),
            ("%", "event"),
        ),
    ],
)
def test_the_name_of_the_events_is_that_of_the_table(table_name: str, event: str) -> None:
    assert event_name_for(table_name) == event
