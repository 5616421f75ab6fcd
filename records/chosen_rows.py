"""The rows of the users that `--only` names. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from errors import ConfigError
from records.identity import to_comparable_email, to_stable_text
from records.mapping import RowMapping


class ChosenRows:
    """Finds the rows that have one of these ids or e-mails.

    An e-mail is compared as Iterable does, an id exactly, as `CAST(... AS CHAR)` writes it.
    """

    def __init__(self, names: Sequence[str], mapping: RowMapping) -> None:
        self._found: dict[str, list[int]] = {name.strip(): [] for name in names}
        self._name_of_email = {to_comparable_email(name): name for name in self._found}
        self._mapping = mapping

    def take(self, rows: Sequence[Sequence[Any]], first_seq: int) -> list[int]:
        """Return the positions of those of these rows that are chosen, and note them."""
        chosen = []
        for seq, row in enumerate(rows, first_seq):
            user_id, email = self._mapping.names_of(row)
            text = to_stable_text(user_id)
            names = {text} if text is not None and text in self._found else set()
            if isinstance(email, str):
                name = self._name_of_email.get(to_comparable_email(email))
                names |= {name} if name is not None else set()
            for name in names:
                self._found[name].append(seq)
            if names:
                chosen.append(seq)
        return chosen

    @property
    def seqs(self) -> list[int]:
        """The positions of all rows that were chosen so far, in order."""
        return sorted({seq for seqs in self._found.values() for seq in seqs})

    def require_all(self, duplicates: Mapping[int, str] | None = None) -> None:
        """Raise ConfigError that names whoever has no row, or only rows that are not used.

        `duplicates` are the positions of such rows, each with the reason.
        """
        duplicates = duplicates or {}
        problems = []
        for name, seqs in self._found.items():
            if not seqs:
                problems.append(f"--only {name}: no row of the query has this id or e-mail")
            elif all(seq in duplicates for seq in seqs):
                problems.append(f"--only {name}: its row is not used: {duplicates[seqs[0]]}")
        if problems:
            raise ConfigError(problems)
