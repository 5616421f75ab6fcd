"""Which flags go with which action; what to say of the others."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

# What the program does instead of a sync, and the flags that it uses. Without one of these it runs
# a sync, which uses all the other flags.
FLAGS_OF_ACTION: Mapping[str, str] = {
    "--check": "--env-file --quiet --json",
    "--demo": "--mode --verbose --project-type",
    "--export": "--env-file --limit --only --quiet --verbose",
    "--failures": "--env-file --verbose",
    "--listen": "--env-file --quiet --verbose",
    "--help-settings": "",
    "--init": "--env-file",
    "--history": "--env-file --json",
    "--verify": "--env-file --quiet --verbose --json",
    # Last, because the others do not go with --dry-run either.
    "--dry-run": "--env-file --limit --only --mode --full-refresh --quiet --verbose --json",
}


# Flags of one action that a sync does not use.
_ONLY_WITH: Mapping[str, str] = {"--project-type": "--demo"}
_EXCLUDED_BY_ONLY: Mapping[str, str] = {
    "--limit": "all rows are read to settle duplicates",
    "--full-refresh": "it sends whatever is remembered anyway",
}


def problem_with_flags(
    given: argparse.Namespace, unknown: Sequence[str], known: Sequence[str]
) -> str | None:
    """Return why the flags are refused, None if they are not.

    `unknown` are the arguments that the parser did not recognize, `known` the names of all flags.
    """
    if unknown:
        return _explain_unknown(unknown[0], known)
    names = [_name_of(key) for key, value in vars(given).items() if value not in (None, False)]
    if "--only" in names:
        if not all(text.strip() for text in given.only):
            return "--only needs the id or the e-mail of a user"
        for name, reason in _EXCLUDED_BY_ONLY.items():
            if name in names:
                return f"--only does not go with {name}: {reason}"
    action = next((each for each in FLAGS_OF_ACTION if each in names), None)
    if action is None:
        return next(
            (f"{name} goes with {_ONLY_WITH[name]} only" for name in names if name in _ONLY_WITH),
            None,
        )
    used = FLAGS_OF_ACTION[action].split()
    unused = [name for name in names if name != action and name not in used]
    if not unused:
        return None
    return f"{action} does not use {' and '.join(unused)}: leave {_it_or_them(unused)} out"


def _explain_unknown(argument: str, known: Sequence[str]) -> str:
    """Name the nearest flag, but not the value behind `=`, which may be a password."""
    if not argument.strip("-") or not argument.startswith("-"):
        return f"unexpected argument {argument!r}"
    from difflib import get_close_matches  # only here: `--help` takes less than 0.1 s

    name = argument.partition("=")[0]
    texts = {flag.lstrip("-"): flag for flag in known}
    word = name.strip("-").replace("_", "-").lower()
    starting = [text for text in texts if text.startswith(word)]
    nearest = get_close_matches(word, starting or list(texts), 1, cutoff=0.0)
    return f"unknown flag {name}: did you mean {texts[nearest[0]]}?"


def _name_of(key: str) -> str:
    """Return the flag of an attribute of argparse's namespace."""
    return f"--{key.replace('_', '-')}"


def _it_or_them(names: Sequence[str]) -> str:
    return "it" if len(names) == 1 else "them"
