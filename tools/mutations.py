"""The small changes that a mutation run makes to a module, one at a time: from tree to source.

Operators, comparisons, conditions, constants, arguments, exceptions caught, statements left out.
Leaves alone what says nothing at run time: docstrings, annotations, imports.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

OTHER_OPERATORS: dict[type[ast.AST], tuple[type[ast.AST], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Mult,),
    ast.Mod: (ast.Mult,),
    ast.Pow: (ast.Mult,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
    ast.LShift: (ast.RShift,),
    ast.RShift: (ast.LShift,),
}
OTHER_NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}


class Mutant(NamedTuple):
    """A module with one thing changed, and the line where it was."""

    line: int
    source: str


class Place(NamedTuple):
    """Where a node hangs in the tree, so that another can take its place."""

    parent: ast.AST
    field: str
    position: int | None

    def put(self, node: ast.AST) -> None:
        """Hang `node` here."""
        if self.position is None:
            setattr(self.parent, self.field, node)
        else:
            getattr(self.parent, self.field)[self.position] = node


def unparsed(source: str) -> str:
    """Return a module's source as mutants are written: without comments, in one layout."""
    return ast.unparse(ast.parse(source)) + "\n"


def mutants_of(source: str) -> Iterator[Mutant]:
    """Yield every mutant of a module, each once."""
    tree = ast.parse(source)
    seen = {unparsed(source)}
    for place, node, line in list(_places(tree)):
        for other in _others(node, place):
            place.put(other)
            mutated = ast.unparse(ast.fix_missing_locations(tree)) + "\n"
            place.put(node)
            if mutated not in seen and _compiles(mutated):
                seen.add(mutated)
                yield Mutant(line, mutated)


def _compiles(source: str) -> bool:
    try:
        compile(source, "mutant", "exec")
    except (SyntaxError, ValueError):
        return False
    return True


def _places(tree: ast.AST, line: int = 0) -> Iterator[tuple[Place, ast.AST, int]]:
    for field, value in ast.iter_fields(tree):
        if field in ("annotation", "returns", "decorator_list", "ctx", "type_comment"):
            continue
        several = isinstance(value, list)
        for index, node in enumerate(value if several else [value]):
            if not isinstance(node, ast.AST) or isinstance(node, (ast.Import, ast.ImportFrom)):
                continue
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                continue  # a docstring
            here = getattr(node, "lineno", line)
            yield Place(tree, field, index if several else None), node, here
            yield from _places(node, here)


def _others(node: ast.AST, place: Place) -> Iterator[ast.AST]:
    for operator in OTHER_OPERATORS.get(type(node), ()):
        yield operator()
    for kind, change in CHANGES.items():
        if isinstance(node, kind):
            yield from change(node, place)
    if place.field == "test" or place.field == "ifs":
        yield ast.Constant(True)
        if not isinstance(place.parent, ast.Assert):
            yield ast.Constant(False)


def _constant(node: ast.Constant, place: Place) -> Iterator[ast.AST]:
    value = node.value
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int):
        yield ast.Constant(value + 1)
        yield ast.Constant(value - 1)
    elif isinstance(value, float):
        yield from map(ast.Constant, (value * 2, value / 2) if value else (1.0, -1.0))
    elif isinstance(value, str):
        yield ast.Constant(f"XX{value}XX" if value else "XX")
        if isinstance(place.parent, ast.JoinedStr):
            return
        for number in re.finditer(r"\d+", value):  # as in a pattern's {1,64}
            for other in (int(number[0]) + 1, int(number[0]) - 1):
                yield ast.Constant(value[: number.start()] + str(other) + value[number.end() :])
    elif isinstance(value, bytes):
        yield ast.Constant(b"XX" + value)


def _unary(node: ast.UnaryOp, _place: Place) -> Iterator[ast.AST]:
    yield node.operand


def _boolean(node: ast.BoolOp, _place: Place) -> Iterator[ast.AST]:
    for left_out in node.values:
        values = [value for value in node.values if value is not left_out]
        yield values[0] if len(values) == 1 else ast.BoolOp(node.op, values)


def _name(node: ast.Name, _place: Place) -> Iterator[ast.AST]:
    if node.id in OTHER_NAMES:
        yield ast.Name(OTHER_NAMES[node.id], node.ctx)


def _call(node: ast.Call, _place: Place) -> Iterator[ast.AST]:
    for left_out in node.keywords:
        keywords = [keyword for keyword in node.keywords if keyword is not left_out]
        yield ast.Call(node.func, node.args, keywords)
    if len(node.args) > 1:
        yield ast.Call(node.func, node.args[:-1], node.keywords)
    if isinstance(node.func, ast.Attribute):  # text.strip() -> text
        yield node.func.value


def _return(node: ast.Return, _place: Place) -> Iterator[ast.AST]:
    if node.value is not None:
        yield ast.Return(ast.Constant(None))


def _statement(_node: ast.AST, _place: Place) -> Iterator[ast.AST]:
    yield ast.Pass()


def _break(_node: ast.AST, _place: Place) -> Iterator[ast.AST]:
    yield ast.Continue()
    yield ast.Pass()


def _continue(_node: ast.AST, _place: Place) -> Iterator[ast.AST]:
    yield ast.Break()
    yield ast.Pass()


def _handler(node: ast.ExceptHandler, _place: Place) -> Iterator[ast.AST]:
    caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
    for left_out in caught:
        kinds = [kind for kind in caught if kind is not left_out and kind is not None]
        yield ast.ExceptHandler(ast.Tuple(kinds, ast.Load()), node.name, node.body)


def _tuple_or_list(node: ast.Tuple | ast.List, place: Place) -> Iterator[ast.AST]:
    if isinstance(node.ctx, ast.Load) and place.field not in ("type", "slice"):
        for index in range(len(node.elts)):
            yield type(node)(node.elts[:index] + node.elts[index + 1 :], node.ctx)


# Read by kind; what each yields takes the node's place.
CHANGES: dict[type[ast.AST] | tuple[type[ast.AST], ...], Callable[..., Iterator[ast.AST]]] = {
    ast.Constant: _constant,
    ast.UnaryOp: _unary,
    ast.BoolOp: _boolean,
    ast.Name: _name,
    ast.Call: _call,
    ast.Return: _return,
    ast.Break: _break,
    ast.Continue: _continue,
    ast.ExceptHandler: _handler,
    (ast.Tuple, ast.List): _tuple_or_list,
    (ast.Expr, ast.Assign, ast.AugAssign, ast.Raise): _statement,
}
