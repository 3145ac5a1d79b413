"""Inventories in Ansible's INI grammar.

Source: Ansible inventory guide and the `ini` inventory plugin's documentation. One pass over the lines, as if the
first one were `[ungrouped]`. Knows neither the origin of the text nor the meaning of variables.
"""

from __future__ import annotations

import ast
import re
import shlex
import warnings
from dataclasses import dataclass, field
from typing import Final

from provisioner.inventory import addresses
from provisioner.inventory.origin import Where, nearest
from provisioner.inventory.tree import UNGROUPED, Group, Tree

_SECTION: Final = re.compile(r"\[(?P<group>[^:\]\s]+)(?::(?P<kind>\w+))?\]\s*(?:#.*)?")
_CHILD: Final = re.compile(r"(?P<group>[^:\]\s]+)\s*(?:#.*)?")
_KINDS: Final = ("hosts", "children", "vars")
_BLANKS: Final = re.compile(r"[ \t\r]+")


def read(text: str, file: str, tree: Tree) -> None:
    """Add the text's declarations to the tree. Raises InventoryError with the line."""
    reader = _IniReader(tree, Where(file), tree.groups[UNGROUPED])
    for number, line in enumerate(text.splitlines(), start=1):
        reader.where = Where(file, number)
        reader.line(line.strip())
    reader.finish()


@dataclass(slots=True)
class _Pending:
    """A group that was mentioned and still has to be declared."""

    where: Where
    section: str
    parents: list[tuple[Group, Where]] = field(default_factory=list)


@dataclass(slots=True)
class _IniReader:
    tree: Tree
    where: Where
    group: Group
    kind: str = "hosts"
    pending: dict[str, _Pending] = field(default_factory=dict)

    def line(self, line: str) -> None:
        if not line or line[0] in "#;":
            return
        if line[0] == "[" and ((section := _SECTION.fullmatch(line)) or line[-1] == "]"):
            self._section(section, line)
        elif self.kind == "hosts":
            self._hosts(line)
        elif self.kind == "vars":
            self._variable(line)
        else:
            self._child(line)

    def finish(self) -> None:
        for name, pending in self.pending.items():
            raise pending.where.error(
                f"[{pending.section}] names the group {name}, which is declared nowhere",
                hint=nearest(name, self.tree.groups.keys() - self.pending.keys()) or f"add a line [{name}]",
            )

    def _section(self, section: re.Match[str] | None, line: str) -> None:
        if section is None:
            raise self.where.error(f"{line} is no section", hint="write [group], [group:vars] or [group:children]")
        name, self.kind = section["group"], section["kind"] or "hosts"
        if self.kind not in _KINDS:
            hint = nearest(self.kind, _KINDS) or f"the kinds are {', '.join(_KINDS)}"
            raise self.where.error(f"[{name}:{self.kind}] is no kind of section", hint=hint)
        if self.kind == "vars":
            if name not in self.tree.groups and name not in self.pending:
                self.pending[name] = _Pending(self.where, f"{name}:vars")
            self.group = self.tree.add_group(name, self.where)
        else:
            self.group = self.tree.add_group(name, self.where)
            declared = self.pending.pop(name, None)
            for parent, where in declared.parents if declared else ():
                self.tree.add_child(parent, self.group, where)

    def _child(self, line: str) -> None:
        match = _CHILD.fullmatch(line)
        if match is None:
            raise self.where.error(f"expected the name of a group, got {line!r}")
        name = match["group"]
        if name in self.tree.groups:
            self.tree.add_child(self.group, self.tree.groups[name], self.where)
        else:
            pending = self.pending.setdefault(name, _Pending(self.where, f"{self.group.name}:children"))
            pending.parents.append((self.group, self.where))

    def _variable(self, line: str) -> None:
        key, equals, value = line.partition("=")
        if not equals:
            raise self.where.error(f"expected key=value, got {_first_word(line)}")
        if not key.strip().isidentifier():
            self.tree.notices.warn(
                f"{_first_word(line)} begins no variable's name; is the line in its section?", self.where
            )
        self.group.set(key.strip(), self._value(value.strip()), self.where)

    def _hosts(self, line: str) -> None:
        tokens = self._split(line)
        if tokens[0].startswith("---"):
            raise self.where.error("--- begins a YAML document, and this is read as INI", hint="name the file *.yml")
        try:
            names, port = addresses.expand(tokens[0])
        except ValueError as error:
            raise self.where.error(str(error)) from error
        if tokens[0].endswith(":") and port is None:
            raise self.where.error(f"{tokens[0]} ends in a colon, which begins a port")
        variables = [self._assignment(token) for token in tokens[1:]]
        for name in names:
            host = self.tree.add_host(name, self.group, self.where, port)
            for key, value in variables:
                host.set(key, value, self.where)

    def _split(self, line: str) -> list[str]:
        # shlex is slow, and most lines do not need it
        if line.isascii() and not any(special in line for special in "\"'\\#\x1f"):
            return _BLANKS.split(line)
        try:
            return shlex.split(line, comments=True) or [""]
        except ValueError as error:
            raise self.where.error(f"cannot be split into words: {str(error).lower()}") from error

    def _assignment(self, token: str) -> tuple[str, object]:
        key, equals, value = token.partition("=")
        if not equals:
            raise self.where.error(f"expected key=value, got {token!r}", hint="quote a value that has blanks")
        return key, self._value(value)

    def _value(self, text: str) -> object:
        """A Python literal if it is one, else the string itself."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return _plain(ast.literal_eval(text))
        except (ValueError, SyntaxError):
            return text
        except (TypeError, MemoryError, RecursionError) as error:
            raise self.where.error("the value looks like a Python literal and is none", hint="quote it") from error


def _plain(value: object) -> object:
    """Narrow a literal to a variable's types: tuples and sets become lists, the exotic becomes text."""
    if isinstance(value, list | tuple | set):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {_plain(key) if isinstance(key, bytes) else key: _plain(item) for key, item in value.items()}
    if isinstance(value, bytes):
        return value.decode()
    if value is ...:
        return "..."
    return str(value) if isinstance(value, complex) else value


def _first_word(line: str) -> str:
    """Enough of a line to find it, not so much that a secret is shown."""
    return repr(line.split(maxsplit=1)[0])
