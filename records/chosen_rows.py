"""The rows of the users that `--only` names. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from errors import ConfigError
from records.identity import to_comparable_email, to_stable_text


class ChosenRows:
    """Finds the rows that have one of these ids or e-mails.

    An e-mail is compared as Iterable does, an id exactly, as `CAST(... AS CHAR)` writes it.
    """

    def __init__(
        self, names: Sequence[str], names_of: Callable[[Sequence[Any]], tuple[Any, Any]]
    ) -> None:
        self._found: dict[str, list[int]] = {name.strip(): [] for name in names}
        self._names_of_email: dict[str, set[str]] = {}
        for name in self._found:
            self._names_of_email.setdefault(to_comparable_email(name), set()).add(name)
        self._names_of = names_of  # the values of user id and e-mail in a row

    def take(self, rows: Sequence[Sequence[Any]], first_seq: int) -> list[int]:
        """Return the positions of those of these rows that are chosen, and note them."""
        chosen = []
        for seq, row in enumerate(rows, first_seq):
            user_id, email = self._names_of(row)
            text = to_stable_text(user_id)
            names = {text} if text is not None and text in self._found else set()
            if isinstance(email, str):
                names |= self._names_of_email.get(to_comparable_email(email), set())
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
