"""The syntax of USER_FIELDS and EVENT_FIELDS."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.fields import (
    EVENT_FIELDS,
    RESERVED_EVENT_FIELDS,
    RESERVED_USER_FIELDS,
    USER_FIELDS,
    Constant,
    Field,
    parse_fields,
)

NOTHING_RESERVED: frozenset[str] = frozenset()


def problems_of(text: str, reserved: frozenset[str] = NOTHING_RESERVED) -> list[str]:
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - the text is what is tested
        parse_fields(text, reserved)
    return str(raised.value).splitlines()


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("first_name", [Field("first_name", "first_name")]),
        ("browser=device", [Field("browser", "device")]),
        ("vip:bool", [Field("vip", "vip", "bool")]),
        ("is_vip=vip:bool", [Field("is_vip", "vip", "bool")]),
        ("tags=tags_json:json", [Field("tags", "tags_json", "json")]),
        ("a,b", [Field("a", "a"), Field("b", "b")]),
        ("  a , b = c : bool ,, ", [Field("a", "a"), Field("b", "c", "bool")]),
        ("one=x,two=x", [Field("one", "x"), Field("two", "x")]),
        ("", []),
        (" , ", []),
    ],
)
def test_a_field_list_is_parsed(text: str, fields: list[Field]) -> None:
    assert parse_fields(text, NOTHING_RESERVED) == tuple(fields)


@pytest.mark.parametrize("entry", ["=", "a=", "=b", "a.b", "a.b=c", ":bool", "a=:bool"])
def test_an_invalid_entry_is_quoted(entry: str) -> None:
    assert problems_of(entry) == [
        f"{entry!r} is not field=column (a field name cannot contain a dot)"
    ]  # fmt: skip


@pytest.mark.parametrize("cast", ["int", "BOOL", "bool:json", "date"])
def test_an_unknown_conversion_is_reported(cast: str) -> None:
    assert problems_of(f"a=b:{cast}") == [
        f"'a=b:{cast}' has the unknown conversion ':{cast}': use :bool, :json or :utc"
    ]


def test_a_field_can_be_listed_only_once() -> None:
    assert problems_of("a,b,a=c") == ["names the field 'a' twice"]


def test_all_problems_are_reported_one_on_each_line() -> None:
    assert problems_of("=,a,a,email", RESERVED_USER_FIELDS) == [
        "'=' is not field=column (a field name cannot contain a dot)",
        "names the field 'a' twice",
        "cannot contain the field 'email': Iterable or this program sets it",
    ]


@pytest.mark.parametrize(
    "target",
    [
        *("email", "emailListIds", "itblInternal", "itblDS", "itblUserId", "devices"),
        *("profileUpdatedAt", "signupDate", "signupSource", "phoneNumberDetails"),
        *("subscribedMessageTypeIds", "unsubscribedMessageTypeIds", "unsubscribedChannelIds"),
    ],
)
def test_a_profile_field_that_iterable_sets_cannot_be_a_target(target: str) -> None:
    problems = [f"cannot contain the field {target!r}: Iterable or this program sets it"]
    assert problems_of(target, RESERVED_USER_FIELDS) == problems
    assert problems_of(f"{target}=some_column", RESERVED_USER_FIELDS) == problems
    # It is allowed as a column.
    assert parse_fields(f"mine={target}", RESERVED_USER_FIELDS) == (Field("mine", target),)


@pytest.mark.parametrize(
    "target", ["email", "userId", "eventName", "createdAt", "itblInternal", "timestamp"]
)
def test_an_event_field_that_the_program_sets_cannot_be_a_target(target: str) -> None:
    assert problems_of(target, RESERVED_EVENT_FIELDS) == [
        f"cannot contain the field {target!r}: Iterable or this program sets it"
    ]


def test_the_defaults_are_the_documented_ones() -> None:
    assert (
        tuple(Field(name, name) for name in ("first_name", "last_name", "plan_type", "candidate"))
        == USER_FIELDS
    )
    assert (
        Field("page", "page"),
        Field("browser", "device"),
        Field("location", "location"),
        Field("candidate", "candidate"),
    ) == EVENT_FIELDS


NAMES = st.text("abcxyz_019", min_size=1, max_size=10)

ENTRIES = st.tuples(NAMES, NAMES, st.sampled_from(["", "bool", "json"]))


@given(st.lists(ENTRIES, unique_by=lambda entry: entry[0]))
def test_a_written_field_list_parses_to_the_same_fields(
    entries: list[tuple[str, str, str]],
) -> None:
    text = ",".join(f"{target}={column}:{cast}".rstrip(":") for target, column, cast in entries)
    assert parse_fields(text, NOTHING_RESERVED) == tuple(Field(*entry) for entry in entries)


@given(st.text(alphabet='ab=:,. ü\n"[]{}1'))
def test_any_text_gives_fields_or_a_list_of_problems(text: str) -> None:
    try:
        fields = parse_fields(text, frozenset({"a"}))
    except ValueError:
        assert problems_of(text, frozenset({"a"})) != []
        return
    assert len({field.target for field in fields}) == len(fields)
    assert all(field.target for field in fields)
    assert all(field.column for field in fields if isinstance(field, Field))
    assert all("." not in field.target and field.target != "a" for field in fields)


# Constants


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ('source:="mysql"', [Constant("source", "mysql")]),
        (' source := "my sql" ', [Constant("source", "my sql")]),
        (
            'tags:=["a","b, c"],plan=plan_type,n:=1.5',
            [Constant("tags", ["a", "b, c"]), Field("plan", "plan_type"), Constant("n", 1.5)],
        ),
        (
            'o:={"a":{"b":[1,2]},"c":"}"},x',
            [Constant("o", {"a": {"b": [1, 2]}, "c": "}"}), Field("x", "x")],
        ),
        (
            "a:=true,b:=false,c:=null",
            [Constant("a", True), Constant("b", False), Constant("c", None)],
        ),
        ('quote:="a\\"b,c"', [Constant("quote", 'a"b,c')]),
        ("a=b,c:=2", [Field("a", "b"), Constant("c", 2)]),
    ],
)
def test_a_constant_is_json_behind_a_colon_and_an_equals_sign(
    text: str, fields: list[Field | Constant]
) -> None:
    assert parse_fields(text, NOTHING_RESERVED) == tuple(fields)


@pytest.mark.parametrize(
    "text",
    [
        *("a:=", "a:=mysql", "a:='mysql'", "a:=[1", 'a:="x', "a:=1 2", "a:=NaN", "a:=-Infinity"),
        *("a:=1e999", "a:=123456789012345678901", 'a:="\\ud800"', "a:=" + "[" * 5_000),
    ],
)
def test_what_is_no_json_is_a_problem_that_shows_how_to_write_a_text(text: str) -> None:
    (problem,) = problems_of(text)
    assert 'is not field:=JSON: a text stands in double quotes, as in source:="mysql"' in problem
    assert len(problem) < 200


def test_a_constant_has_the_name_of_a_field_that_may_be_sent() -> None:
    assert problems_of(':=1,a.b:=1,email:="a",x:=1,x=y', RESERVED_USER_FIELDS) == [
        "':=1' is not field:=JSON (a field name cannot contain a dot)",
        "'a.b:=1' is not field:=JSON (a field name cannot contain a dot)",
        "cannot contain the field 'email': Iterable or this program sets it",
        "names the field 'x' twice",
    ]


def test_a_user_id_is_a_column_without_a_conversion() -> None:
    """A conversion was ignored."""
    assert problems_of('userId=id:bool,userId:="7"') == [
        "'userId=id:bool' cannot convert the userId, which is always a text",
        "'userId:=\"7\"' would give every user the same userId",
    ]
