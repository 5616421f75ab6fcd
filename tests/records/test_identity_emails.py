"""E-mail of a row: syntax, the form that is sent, and the user key."""

from __future__ import annotations

from decimal import Decimal

import pytest

from records.identity import is_email, to_user_key
from tests.support.golden import event_of, mapping_for, profile_of, reason_of, record_of, sarah


@pytest.mark.parametrize(
    "address",
    [
        "a@b.co",
        "Ann.O'Hara+news@sub.example.com",
        "x" * 64 + "@example.com",
        "a@" + "b" * 63 + ".com",
        "müller@münchen.de",
        "用户@例子.公司",
        "a@xn--mnchen-3ya.de",
        "a@b.xn--p1ai",
    ],
)
def test_a_valid_address_is_accepted(address: str) -> None:
    assert is_email(address) is True


@pytest.mark.parametrize(
    "address",
    [
        *("", "a", "a@", "@b.com", "a@b", "a@localhost", "a@b@c.com", "a b@c.com", "a@b..com"),
        *("a..b@c.com", ".a@c.com", "a.@c.com", "a@-b.com", "a@b_c.com", "a@b.com.", "a@1.2.3.4"),
        *("a@[127.0.0.1]", "Ann <a@b.com>", "a@b.com,c@d.com", "a@example.123", "a@b.com\n"),
        *("a\n@b.com", "a\x00@b.com", "a\u200b@b.com", "x" * 65 + "@example.com"),
        *("a@" + "b" * 64 + ".com", "a@" + "b." * 125 + "com", "ä@" + "b" * 260 + ".com"),
        *("\ud800@b.com", "a@b-.com", "a@b." + "c" * 64),
    ],
)  # fmt: skip
def test_an_invalid_address_is_not_accepted(address: str) -> None:
    assert is_email(address) is False


def test_an_address_is_trimmed_and_keeps_its_letter_case() -> None:
    row = sarah(email=" \tSarah.Johnson@Email.com\n")
    assert profile_of(row)["email"] == "Sarah.Johnson@Email.com"
    assert event_of(row)["email"] == "Sarah.Johnson@Email.com"
    assert record_of(row).email == "Sarah.Johnson@Email.com"


@pytest.mark.parametrize(
    ("email", "why"),
    [
        (None, "no e-mail address"),
        ("", "no e-mail address"),
        ("  ", "no e-mail address"),
        ("sarah.johnson@", "malformed e-mail address"),
        (
            b"sarah@example.com",
            "the e-mail address is binary: select CONVERT(... USING utf8mb4)",
        ),
        (7, "the e-mail address is not text"),
    ],
)
def test_a_row_without_a_usable_address_is_invalid(email: object, why: str) -> None:
    assert reason_of(sarah(email=email)) == why


def test_an_invalid_row_keeps_its_user_id_and_email() -> None:
    row = sarah(id=9, email="  nobody at home \ud800" + "x" * 300)
    invalid = mapping_for(row).to_record(tuple(row.values()))
    assert invalid.user_id == 9
    assert invalid.email is not None
    assert invalid.email.startswith("  nobody at home ?xxx")
    assert len(invalid.email) == 254


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ann@example.com", " Ann@Example.COM\t"),
        ("ÅNN@example.com", "ånn@example.com"),
    ],
)
def test_addresses_that_differ_in_case_or_outer_spaces_have_one_user_key(
    one: str, other: str
) -> None:
    assert to_user_key(one) == to_user_key(other)


def test_different_addresses_have_different_user_keys() -> None:
    names = ("strasse", "straße", "ann", "anne", "a.nn", "an-n", "ann+1", "\ud800", "\ud801")
    addresses = [f"{name}@example.com" for name in names]
    assert len({to_user_key(address) for address in addresses}) == len(addresses)


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        (None, None),
        (1, 1),
        ("A-7 ü", "A-7 ü"),
        ("A-\ud800", "A-\\ud800"),
        (2**63 - 1, 2**63 - 1),
        (2**63, str(2**63)),
        (-(2**63), -(2**63)),
        (-(2**63) - 1, str(-(2**63) - 1)),
        (Decimal(5), "5"),
        (b"\x00\xab", "00AB"),  # as HEX() writes it
        (bytearray(b"\x02"), "02"),
    ],
)
def test_a_user_id_can_be_any_number_or_text(stored: object, shown: object) -> None:
    assert record_of(sarah(id=stored)).user_id == shown
