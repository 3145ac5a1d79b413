"""Fields of requests, each replaced by one that takes more."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Final

from tests.mutants.mutant import Module, Mutant

ANY_TEXT: Final = "free(MAX_FILE_NAME)"
# By the name of the field, or of the function that makes it; a field that is missing here ends the run.
LAXER: Final = {
    "no": "flag",
    "flag": "a_number",
    "a_mode": "a_number",
    "whole": "a_number",
    "capped_at": "a_number",
    "like": ANY_TEXT,
    "free": "free(1 << 62)",
    "many": f"many(MAX_PATHS, {ANY_TEXT})",
    "settings": "a_list(free(MAX_TEXT), free(MAX_TEXT))",
    "archive": "trusted_archive",
}
LAXER_CONTENTS: Final = "any_bytes"


def laxer(module: Module) -> Iterator[Mutant]:
    for function in module.tree.body:
        if isinstance(function, ast.FunctionDef) and function.name == "operations":
            yield from _of_operations(module, function)
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "archive":
            yield module.replaced(node.func, LAXER["archive"])


def _of_operations(module: Module, function: ast.FunctionDef) -> Iterator[Mutant]:
    named = _assigned(function)
    for call in ast.walk(function):
        match call:
            case ast.Call(func=ast.Name(id="Operation"), args=[_, request, *_]):
                for field in _leaves(request, named):
                    yield module.replaced(field, _laxer(field, named))
            case ast.Call(func=ast.Name(id="many"), args=[_, *fields]):
                for field in (leaf for each in fields for leaf in _leaves(each, named)):
                    yield module.replaced(field, _laxer(field, named))
        if isinstance(call, ast.keyword) and call.arg == "contents":
            yield module.replaced(call.value, LAXER_CONTENTS)


def _assigned(function: ast.FunctionDef) -> dict[str, ast.expr]:
    found: dict[str, ast.expr] = {}
    for statement in function.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                found[name] = value
            case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)):
                found |= {
                    each.id: value for each, value in zip(names, values, strict=True) if isinstance(each, ast.Name)
                }
    return found


def _leaves(field: ast.expr, named: dict[str, ast.expr]) -> Iterator[ast.expr]:
    """Each field of this one, and itself where it is one."""
    match field:
        case ast.Tuple(elts=elements):
            for element in elements:
                yield from _leaves(element, named)
        case ast.Starred(value=inner) | ast.BinOp(left=inner, op=ast.Mult()):
            yield from _leaves(inner, named)
        case ast.Call(func=ast.Name(id="asked"), args=[inner, *_]):
            yield from _leaves(inner, named)
        case ast.Name(id=name) if isinstance(named.get(name), ast.Tuple):
            yield from _leaves(named[name], named)
        case ast.Call(func=ast.Name(id="many"), args=[_, *inner]):
            yield field
            for each in inner:
                yield from _leaves(each, named)
        case _:
            yield field


def _laxer(field: ast.expr, named: dict[str, ast.expr]) -> str:
    match field:
        case ast.Name(id=name) if name in named:
            return _laxer(named[name], named)
        case ast.Name(id=name) | ast.Call(func=ast.Name(id=name)) if name in LAXER:
            return LAXER[name]
    raise LookupError(f"{ast.unparse(field)} has nothing laxer: name it in tests/mutants/fields.py")
