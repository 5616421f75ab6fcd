"""Proposals: which table probably has the users, which one their events, and in which columns.

Pure functions: they look at names, types and keys only. A score is a sum of evidence; its size has
no meaning but the order. Each list has everything that can be chosen, the most probable first.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import TypeVar

from commands.init.schema import (
    BINARY_TYPES,
    INTEGER_TYPES,
    NUMBER_TYPES,
    SHORT_TEXT_TYPES,
    TEXT_TYPES,
    TIME_TYPES,
    Column,
    Reference,
    Table,
    Users,
    names_of,
)
from sync.source_rows import USUAL_NAMES

Thing = TypeVar("Thing")

_EMAIL_NAMES = ("email", *USUAL_NAMES["email"])
_EMAIL_TYPES = TEXT_TYPES - {"enum", "set", "uuid"} | {"varbinary"}
_ID_TYPES = NUMBER_TYPES | SHORT_TEXT_TYPES | BINARY_TYPES
_TIME_NAMES = ("event_time", *USUAL_NAMES["event_time"], "ordered_at", "visited_at", "date")
# Columns about an e-mail address that do not hold one.
_NOT_AN_EMAIL = re.compile(r"verif|confirm|status|type|template|subject|hash|token|body|text|sent")
# Times that change after the event, or lie in the future.
_NOT_THE_EVENT = re.compile(r"upd|modif|chang|delet|birth|geburt|expir|valid|due|until|cancel")
_USER_WORDS = frozenset(
    (
        *("user", "customer", "account", "member", "contact", "subscriber", "client", "person"),
        *("people", "kunde", "kunden", "benutzer", "nutzer", "mitglied", "mitglieder", "konto"),
        *("utilisateur", "usuario", "cliente", "utente"),
    )
)
_EVENT_WORDS = frozenset(
    (
        *("event", "view", "order", "visit", "click", "purchase", "login", "session", "activity"),
        *("booking", "pageview", "bestellung", "bestellungen", "aufruf", "aufrufe", "buchung"),
        *("buchungen", "ereignis", "ereignisse"),
    )
)
_ASIDE_WORDS = frozenset(
    (
        *("backup", "bak", "old", "tmp", "temp", "archive", "copy", "test", "invite"),
        *("invitation", "token", "reset", "queue", "migration", "audit"),
    )
)
_OTHER_PEOPLE = frozenset(
    (
        *("by", "agent", "author", "assignee", "creator", "owner", "editor", "operator", "seller"),
        *("handler", "approver", "reviewer", "manager", "employee", "staff", "admin"),
    )
)
_TIME_WORDS = frozenset(
    ("at", "on", "am", "time", "date", "datetime", "timestamp", "created", "datum", "zeit")
)
_USER_ID_NAMES = ("user_id", "customer_id", "account_id", "member_id", "uid")
_ID_ENDINGS = ("id", "nr", "no", "num", "nummer", "number", "uuid", "key", "ref", "fk")
_SECRET_PARTS = re.compile(
    r"passw|passphrase|passcode|kennwort|mot_?de_?passe|contrase|wachtwoord|userpass|secret|token"
    r"|(api|private|secure|activation|access|auth|session|signing|encryption)_?key"
    r"|(recovery|verification|reset|login|sms|activation|confirmation|unlock|backup)_?codes?"
    r"|security_?(answer|question)|magic_?link|credential|session_?id"
    r"|credit_?card|card_?n(o|um)|cc_?num"
)
_SECRET_WORDS = frozenset(
    (
        *("hash", "salt", "pass", "pwd", "pin", "otp", "totp", "mfa", "cvv", "cvc", "iban", "ssn"),
        *("pw", "pword", "jwt", "cookie", "nonce", "senha", "clave", "mdp"),
    )
)


@lru_cache(maxsize=100_000)
def words_of(name: str) -> tuple[str, ...]:
    """Return the words of a name in snake_case, kebab-case or camelCase, in lower case."""
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return tuple(word for word in re.split(r"[\W_]+", split.lower()) if word)


def singular(word: str) -> str:
    """Return an English plural's singular; other words as they are."""
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("sses", "xes", "ches", "shes")):
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3:
        return word[:-1]
    return word


def event_name_for(table: str) -> str:
    """Return a table's name in snake_case and the singular, as the name of its events."""
    words = words_of(table)
    return "_".join([*words[:-1], singular(words[-1])])[:64] if words else "event"


def looks_secret(column: Column) -> bool:
    """Return whether a column's name is that of a password, a token or the like."""
    words = words_of(column.name)
    return bool(_SECRET_PARTS.search("_".join(words)) or _SECRET_WORDS & set(words))


def email_columns(table: Table) -> list[Column]:
    """Return the columns of text, those that look like e-mail addresses first."""
    texts = [
        column
        for column in table.columns
        if column.type in _EMAIL_TYPES and not looks_secret(column)
    ]
    return sorted(texts, key=_email_score, reverse=True)


def is_email_column(column: Column) -> bool:
    """Return whether a column's name is that of an e-mail address."""
    return _email_score(column) > 0


def _email_score(column: Column) -> int:
    name = "_".join(words_of(column.name))
    if column.type not in _EMAIL_TYPES:
        return 0
    if name in _EMAIL_NAMES:
        return 50 - 2 * _EMAIL_NAMES.index(name)
    if "mail" in name and not _NOT_AN_EMAIL.search(name):
        return 30
    return 0


def user_tables(tables: Sequence[Table]) -> list[Table]:
    """Return all tables, those that look like a table of users first."""
    references = Counter(
        name
        for table in tables
        for name in {key.table for key in table.foreign_keys} - {table.name}
    )

    def score(table: Table) -> float:
        email = max(map(_email_score, table.columns), default=0)
        evidence = (
            email,
            25 * bool(_USER_WORDS & _nouns_of(table)),
            5 * (len(table.primary_key) == 1),
            2 * min(references[table.name], 5),
            5 * any(map(looks_secret, table.columns)),
            -30 * bool(_ASIDE_WORDS & _nouns_of(table)),
            _size_score(table),
        )
        return sum(evidence)

    return _by_score(tables, score)


def is_user_table(table: Table) -> bool:
    """Return whether there is reason to propose a table as that of the users."""
    return any(map(is_email_column, table.columns)) or bool(_USER_WORDS & _nouns_of(table))


def id_columns(table: Table, email: str) -> list[Column]:
    """Return the columns that can be an id, those that look like the user's id first."""

    def score(column: Column) -> int:
        words = words_of(column.name)
        is_key = column.is_primary and len(table.primary_key) == 1
        names_an_id = bool(words) and words[-1] in _ID_ENDINGS
        names_the_table = bool(words) and _begins_like(column.name, table.name)
        return (
            50 * is_key
            + 20 * (words == ("id",))
            + 15 * column.is_unique
            + (10 * column.is_primary + 8 * (names_an_id and names_the_table) + 4 * names_an_id)
        )

    columns = [
        column
        for column in table.columns
        if column.name != email and column.type in _ID_TYPES and not looks_secret(column)
    ]
    return _by_score(columns, score)


def proposed_id(table: Table, email: str) -> str:
    """Return the most probable id, "" for none; some tables have the e-mail as their key."""
    ids = id_columns(table, email)
    if ids and _looks_like_id(table, ids[0]):
        return ids[0].name
    return email if _looks_like_id(table, table.column(email)) else ""


def _looks_like_id(table: Table, column: Column) -> bool:
    is_part = column.is_primary and len(table.primary_key) > 1 and not column.is_unique
    if is_part and words_of(column.name) != ("id",):
        return False  # several users may have the same value
    is_key = column.is_unique or (column.is_primary and len(table.primary_key) == 1)
    words = words_of(column.name)
    return is_key or words == ("id",) or (bool(words) and words[-1] in _ID_ENDINGS)


def event_tables(tables: Iterable[Table], users: Users) -> list[Table]:
    """Return the other tables with a time column, those that look like users' events first."""
    others = [each for each in tables if each.name != users.table.name and time_columns(each)]

    def score(table: Table) -> float:
        evidence = (
            _reference_score(table, users),
            max((_time_score(column) for column in table.columns), default=0),
            12 * bool(_EVENT_WORDS & _nouns_of(table)),
            -30 * bool(_ASIDE_WORDS & _nouns_of(table)),
            3 * bool(table.primary_key),
            _size_score(table),
        )
        return sum(evidence)

    return _by_score(others, score)


def is_event_table(table: Table, users: Users) -> bool:
    """Return whether a table has a column that refers to the users, and the time of an event."""
    has_time = any(_time_score(column) > 0 for column in table.columns)
    return has_time and bool(references_to(users, table))


def _reference_score(table: Table, users: Users) -> int:
    references = references_to(users, table)
    if not references:
        return 0
    if references[0] in table.foreign_keys:
        return 40
    return 20 if references[0].pairs[0][1] == users.email else 30


def references_to(users: Users, table: Table) -> list[Reference]:
    """Return what in a table refers to the users.

    Foreign keys come first, then columns that are named like the user's id, then e-mail addresses.
    """
    columns = {column.name: column for column in table.columns}
    found = [key for key in table.foreign_keys if _leads_to(key, users.table)]
    found.sort(
        key=lambda key: any(_refers_to_id(columns[name], users) for name, _other in key.pairs),
        reverse=True,
    )
    key_names = names_of(users.table.primary_key)
    # Another table's `id` is its own.
    if len(key_names) > 1 and {*key_names} <= {*columns} - {"id", "ID"}:
        found.append(Reference(users.table.name, tuple((name, name) for name in key_names)))
    ids = [column for column in table.columns if _refers_to_id(column, users)]
    ids.sort(key=lambda column: _begins_like(column.name, users.table.name), reverse=True)
    emails = [column for column in email_columns(table) if is_email_column(column)]
    found += [_reference(column, users, users.id) for column in ids]
    found += [_reference(column, users, users.email) for column in emails]
    by_label: dict[str, Reference] = {}
    for reference in found:
        by_label.setdefault(reference.label, reference)
    return sorted(by_label.values(), key=_names_somebody_else)


def _names_somebody_else(reference: Reference) -> bool:
    """Return whether a column names who made or handled the event, such as created_by or agent."""
    words = {word for name, _other in reference.pairs for word in words_of(name)}
    return bool(words & _OTHER_PEOPLE)


def _leads_to(key: Reference, table: Table) -> bool:
    """Return whether a foreign key leads to columns of a table that the user can read."""
    return key.table == table.name and {other for _name, other in key.pairs} <= {
        *names_of(table.columns)
    }


def reference_by(column: Column, users: Users) -> Reference:
    """Return the reference of a column that was chosen: to the id, or by its type to the e-mail."""
    table = users.table
    is_id = _same_family(column, table.column(users.id))
    is_email = not is_id and _same_family(column, table.column(users.email))
    return _reference(column, users, users.email if is_email else users.id)


def _reference(column: Column, users: Users, other: str) -> Reference:
    return Reference(users.table.name, ((column.name, other),))


def _refers_to_id(column: Column, users: Users) -> bool:
    words, table = words_of(column.name), users.table.name
    name = "".join(words)
    if not _same_family(column, users.table.column(users.id)):
        return False
    if "_".join(words) in _USER_ID_NAMES:
        return True
    if column.name.lower() == users.id.lower() and words != ("id",) and not column.is_primary:
        return True
    if name.endswith(_ID_ENDINGS) and _begins_like(column.name, table):
        return name != "".join(words_of(table))
    return len(words) > 1 and words[0] in ("id", "fk") and _begins_like("_".join(words[1:]), table)


def _begins_like(name: str, table: str) -> bool:
    """Return whether a name begins like a table's last word: kunde_id for kunden."""
    words = words_of(table)
    if not words:
        return False
    stems = {"".join(words), words[-1]}
    text = "".join(words_of(name))
    return any(text.startswith(stem[: max(4, len(stem) - 2)]) for stem in stems if len(stem) > 2)


def _same_family(one: Column, other: Column) -> bool:
    return _family_of(one) == _family_of(other)


def _family_of(column: Column) -> str:
    if column.type in INTEGER_TYPES:
        return "integer"
    return "text" if column.type in TEXT_TYPES | BINARY_TYPES else "other"


def time_columns(table: Table) -> list[Column]:
    """Return the columns of dates and times, those that look like an event's time first."""
    times = [column for column in table.columns if column.type in TIME_TYPES]
    return sorted(times, key=_time_score, reverse=True)


def _time_score(column: Column) -> int:
    if column.type not in TIME_TYPES:
        return 0
    name = "_".join(words_of(column.name))
    score = 10 - 3 * (column.type == "date")
    if name in _TIME_NAMES:
        return score + 20 - _TIME_NAMES.index(name)
    if _NOT_THE_EVENT.search(name):
        return score - 10
    return score + 3 * bool(_TIME_WORDS & set(words_of(column.name)))


def _nouns_of(table: Table) -> set[str]:
    return {form for word in words_of(table.name) for form in (word, singular(word))}


def _size_score(table: Table) -> float:
    """Return up to 8 points for the number of rows, and 5 for what is no view."""
    return min(math.log10(table.row_count + 1), 8) + 5 * (not table.is_view)


def _by_score(things: Sequence[Thing], score: Callable[[Thing], float]) -> list[Thing]:
    return sorted(things, key=score, reverse=True)
