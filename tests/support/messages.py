"""The program's own words, read from its modules: does it ever say this?

Owns the comparison of a message, as a document quotes it, with the texts in the code.
"""

from __future__ import annotations

import ast
import re
from functools import cache

from config.settings import NAMES
from tests.support.program_files import program_files


@cache
def words_of_the_program() -> tuple[str, ...]:
    """Return every text in the modules, with `{}` for what is filled in."""
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


def says(message: str) -> bool:
    """Say whether the program has this message.

    A word of it may be a value that the program fills in, `...` any number of words; but three
    words in a row are the program's own.
    """
    message = re.sub(rf"^({'|'.join(NAMES)}) ", "", message)  # a setting's name, put before
    words = []
    for word in message.split():
        inner = re.escape(word).replace(re.escape("..."), ".*")
        words.append(rf"(?:{inner}|\(?\{{\}}[:)]?)")
    return any(
        re.search(r"[A-Za-z0-9']+( [A-Za-z0-9']+){2}", found.group())
        for text in words_of_the_program()
        if (found := re.search(r"\s?".join(words), text))
    )
