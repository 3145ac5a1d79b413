"""The place of a statement, and notices about it.

Owns: positions in files, values with their position, the collected warnings. Knows nothing of grammars.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final, NamedTuple

from typing_extensions import override

from provisioner.errors import InventoryError


def one_line(text: str) -> str:
    """The text of files and programs on one line; report/foreign.py spells it for the screen."""
    return " ".join(text.split())


class Where(NamedTuple):
    """A place in an operator's file; line 0 is the file as a whole."""

    file: str = ""
    line: int = 0

    def error(self, message: str, *, hint: str = "") -> InventoryError:
        return InventoryError(one_line(message), file=self.file, line=self.line, hint=hint)

    @override
    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


class Located(dict[object, object]):
    """A mapping that remembers the line of itself and of each key (0 where it is not known)."""

    __slots__ = ("line", "lines")

    def __init__(self, line: int = 0) -> None:
        super().__init__()
        self.line = line
        self.lines: dict[object, int] = {}


def line_of(mapping: Mapping[Any, object], key: object) -> int:
    return mapping.lines.get(key, mapping.line) if isinstance(mapping, Located) else 0


@dataclass(frozen=True, slots=True)
class Var:
    """A variable's value and the place that gave it."""

    value: object
    where: Where


_TYPE_NAMES: Final = {
    bool: "a boolean",
    dict: "a mapping",
    float: "a number",
    int: "a number",
    list: "a list",
    str: "a string",
}


def kind_of(value: object) -> str:
    """Name a value's type for people; never the value, which may be a secret."""
    if value is None:
        return "nothing"
    return next((name for kind, name in _TYPE_NAMES.items() if isinstance(value, kind)), f"a {type(value).__name__}")


def nearest(name: object, valid: Iterable[str]) -> str:
    """`did you mean x?` for the nearest valid name, or nothing."""
    found = get_close_matches(str(name), list(valid), n=1, cutoff=0.5)
    return f"did you mean {found[0]}?" if found else ""


class Notices:
    """The warnings of one load: each said once, kept in order, handed on as they come."""

    def __init__(self, on_warning: Callable[[str], None] | None = None) -> None:
        self._on_warning = on_warning
        self._said: dict[str, None] = {}

    @property
    def said(self) -> tuple[str, ...]:
        return tuple(self._said)

    def warn(self, message: str, where: Where | None = None) -> None:
        text = one_line(f"{where}: {message}" if where and where.file else message)
        if text in self._said:
            return
        self._said[text] = None
        if self._on_warning:
            self._on_warning(text)
