"""Search the source code for a message that a document quotes."""

from __future__ import annotations

import ast
import re
from functools import cache

from config.settings import NAMES
from tests.support.program_files import program_files


@cache
def texts_of_the_program() -> tuple[str, ...]:
    """Return every string in the modules, with `{}` in place of what is filled in."""
    texts = []
    for path in program_files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [
                    part.value if isinstance(part, ast.Constant) else "{}" for part in node.values
                ]
                texts.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(re.sub(r"\{\w+\}|%s|%g", "{}", node.value))
    return tuple(texts)


def has_message(message: str) -> bool:
    """Return whether the program has this message.

    In the message `...` stands for any words, and each word may be a value that the program fills
    in. At least three consecutive words must come from the source code.
    """
    message = re.sub(rf"^({'|'.join(NAMES)}) ", "", message)  # put before the message
    words = []
    for word in message.split():
        inner = re.escape(word).replace(re.escape("..."), ".*")
        words.append(rf"(?:{inner}|\(?\{{\}}[:)]?)")
    return any(
        re.search(r"[A-Za-z0-9']+( [A-Za-z0-9']+){2}", found.group())
        for text in texts_of_the_program()
        if (found := re.search(r"\s?".join(words), text))
    )
