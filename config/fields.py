"""Syntax, defaults and reserved names of `USER_FIELDS` and `EVENT_FIELDS`.

The two settings say which column of a row is sent as which field.
"""

from __future__ import annotations

from typing import NamedTuple

DEFAULT_USER_FIELDS = "first_name,last_name,plan_type,candidate"
DEFAULT_EVENT_FIELDS = "page,browser=device,location,candidate"

# Profile fields that Iterable sets (support.iterable.com, "User profile fields used by Iterable")
# or that this program sets.
RESERVED_USER_FIELDS = frozenset(
    {
        *("email", "emailListIds", "itblInternal", "itblDS", "itblUserId", "devices"),
        *("profileUpdatedAt", "signupDate", "signupSource", "phoneNumberDetails"),
        *("subscribedMessageTypeIds", "unsubscribedMessageTypeIds", "unsubscribedChannelIds"),
        "recent_page_view",
    }
)
RESERVED_EVENT_FIELDS = frozenset(
    {"email", "userId", "eventName", "createdAt", "itblInternal", "timestamp"}
)


USER_ID_FIELD = "userId"  # allowed among the profile fields with IDENTIFY_BY=email


class Field(NamedTuple):
    """One entry of `USER_FIELDS` or `EVENT_FIELDS`: `target=column:cast`."""

    target: str
    column: str
    cast: str = ""  # "", "bool", "json" or "utc"


def parse_fields(text: str, reserved: frozenset[str]) -> tuple[Field, ...]:
    """Parse a list such as `name,target=column,target=column:bool`.

    Raises ValueError with all problems, one on each line.
    """
    fields: list[Field] = []
    problems: list[str] = []
    for entry in (part.strip() for part in text.split(",")):
        if not entry:
            continue
        target, has_column, column = (part.strip() for part in entry.partition("="))
        column, _, cast = (
            part.strip() for part in (column if has_column else target).partition(":")
        )
        if not has_column:
            target = column
        if not target or not column or "." in target:
            problems.append(f"{entry!r} is not field=column (a field name cannot contain a dot)")
        elif cast not in ("", "bool", "json", "utc"):
            problems.append(
                f"{entry!r} has the unknown conversion ':{cast}': use :bool, :json or :utc"
            )
        elif target in reserved:
            problems.append(
                f"cannot contain the field {target!r}: Iterable or this program sets it"
            )
        elif any(field.target == target for field in fields):
            problems.append(f"names the field {target!r} twice")
        else:
            fields.append(Field(target, column, cast))
    if problems:
        raise ValueError("\n".join(problems))
    return tuple(fields)


USER_FIELDS = parse_fields(DEFAULT_USER_FIELDS, RESERVED_USER_FIELDS)
EVENT_FIELDS = parse_fields(DEFAULT_EVENT_FIELDS, RESERVED_EVENT_FIELDS)
