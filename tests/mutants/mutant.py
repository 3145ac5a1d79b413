"""A place of the filter's source, and what stands there instead in one mutant of it."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

TEMPLATES: Final = Path(__file__).parents[2] / "templates" / "core"
FILES: Final = ("wire.py", "archive.py", "grammar.py", "session.py", "filter.py")


@dataclass(frozen=True)
class Mutant:
    """Bytes `start` to `end` of a file are replaced by `after`."""

    file: str
    function: str
    line: int
    start: int
    end: int
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {' '.join(self.before.split())}  ->  {self.after or 'nothing'}"

    @property
    def key(self) -> tuple[str, str, str, str]:
        """The same where lines were added above it."""
        return self.file, self.function, " ".join(self.before.split()), self.after

    def applied(self, source: bytes) -> bytes:
        return source[: self.start] + self.after.encode() + source[self.end :]


@dataclass(frozen=True)
class Module:
    """One file of the filter. Positions are offsets in bytes, as the syntax tree's columns are."""

    file: str
    source: bytes = field(repr=False)

    @classmethod
    def read(cls, file: str) -> Module:
        return cls(file, (TEMPLATES / file).read_bytes())

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.source)

    @cached_property
    def _named(self) -> list[ast.ClassDef | ast.FunctionDef]:
        return [node for node in ast.walk(self.tree) if isinstance(node, ast.ClassDef | ast.FunctionDef)]

    @cached_property
    def _lines(self) -> list[int]:
        """Where each line begins."""
        starts = [0]
        for line in self.source.splitlines(keepends=True):
            starts.append(starts[-1] + len(line))
        return starts

    def span(self, node: ast.expr | ast.stmt | ast.keyword) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._lines[node.lineno - 1] + node.col_offset, self._lines[node.end_lineno - 1] + node.end_col_offset

    def text(self, node: ast.expr | ast.stmt) -> str:
        start, end = self.span(node)
        return self.source[start:end].decode()

    def replaced(self, node: ast.expr | ast.stmt, after: str) -> Mutant:
        return self.cut(*self.span(node), after)

    def cut(self, start: int, end: int, after: str) -> Mutant:
        line = self.source.count(b"\n", 0, start) + 1
        return Mutant(self.file, self._function(line), line, start, end, self.source[start:end].decode(), after)

    def _function(self, line: int) -> str:
        """The classes and functions around it, as `Class.function`."""
        around = [node for node in self._named if node.lineno <= line <= (node.end_lineno or 0)]
        return ".".join(node.name for node in sorted(around, key=lambda node: node.lineno))

    def without(self, start: int, end: int) -> Mutant:
        """Of one member of a list, with the comma behind it."""
        rest = self.source[end:]
        if rest.lstrip().startswith(b","):
            end += rest.index(b",") + 1
        return self.cut(start, end, "")
