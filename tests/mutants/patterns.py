"""Patterns, each replaced by one that takes more: any length, any character, any word, or all."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Final

from tests.mutants.mutant import Module, Mutant

ALL: Final = 'rb"(?s:.*)"'
LITERAL: Final = re.compile(rb'(rb?)"(.*)"')
CLASS: Final = re.compile(rb"\[(?:\\.|[^\]\\])*\]")
COUNT: Final = re.compile(rb"\{\d+(?:,\d+)?\}")
TOKEN: Final = re.compile(rb"\\.|" + CLASS.pattern + rb"|\(\?:|[()|]", re.DOTALL)


def laxer(module: Module) -> Iterator[Mutant]:
    for statement in module.tree.body:
        if isinstance(statement, ast.Assign) and _is_pattern(module, statement.value):
            yield module.replaced(statement.value, ALL)
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, bytes | str):
            start, end = module.span(node)
            literal = LITERAL.fullmatch(module.source[start:end])
            if literal:
                yield from _parts(module, start + literal.start(2), literal[2])


def _is_pattern(module: Module, value: ast.expr) -> bool:
    return module.text(value).startswith('rb"')


def _parts(module: Module, at: int, pattern: bytes) -> Iterator[Mutant]:
    for found in CLASS.finditer(pattern):
        yield module.cut(at + found.start(), at + found.end(), "(?s:.)")
    for found in COUNT.finditer(pattern):
        yield module.cut(at + found.start(), at + found.end(), "*")
    for choices in _choices(pattern):
        for start, end in choices:
            # With the bar on one side of it.
            first = start == choices[0][0]
            yield module.cut(at + start - (not first), at + end + first, "")
        if len(choices) > 1:
            yield module.cut(at + choices[-1][1], at + choices[-1][1], "|[ -~]+")


def _choices(pattern: bytes) -> Iterator[list[tuple[int, int]]]:
    """The places of the alternatives of each group that has several."""
    open_groups: list[list[int]] = []
    for token in TOKEN.finditer(pattern):
        match token[0]:
            case b"(?:" | b"(":
                open_groups.append([token.end()])
            case b"|":
                open_groups[-1].append(token.end())
            case b")":
                starts = open_groups.pop()
                ends = [*(start - 1 for start in starts[1:]), token.start()]
                if len(starts) > 1:
                    yield list(zip(starts, ends, strict=True))
