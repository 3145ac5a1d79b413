"""The sources that `-i` takes: a file, a directory, an executable, or host names with a comma.

Owns: the choice of a reader for each file. Source: Ansible inventory guide, "Passing multiple inventory sources" and
"Organizing inventory in a directory". Unlike Ansible, a source that cannot be read is an error.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from provisioner.errors import InventoryError
from provisioner.inventory import addresses, ini, script, yaml_source
from provisioner.inventory.document import Reader, read_bytes
from provisioner.inventory.origin import Where
from provisioner.inventory.tree import UNGROUPED, Tree
from provisioner.paths import expanded

YAML_EXTENSIONS: Final = (".yml", ".yaml", ".json")
_IGNORED_NAMES: Final = frozenset({"host_vars", "group_vars", "vars_plugins"})
_IGNORED_ENDS: Final = (
    *(".pyc", ".pyo", ".swp", ".bak", "~", ".rpm", ".md", ".txt", ".rst"),
    *(".orig", ".cfg", ".retry"),
)
_YAML_START: Final = re.compile(r"(?:---|%YAML|\{|[^=\[\]{}]+:(?:\s|$))")


def read_all(sources: Iterable[str], tree: Tree, reader: Reader) -> None:
    """Read every source into the tree, later ones over earlier ones. Raises InventoryError."""
    for source in sources:
        if is_host_list(source):
            _read_host_list(source, tree)
        else:
            _read_path(expand_user(source), tree, reader)
    tree.settle()


def is_host_list(source: str) -> bool:
    return "," in source and not Path(source).exists()


def expand_user(source: str) -> str:
    return str(expanded(source)) if source.startswith("~") else source


def vars_roots(sources: Iterable[str]) -> list[str]:
    """The directories beside the sources: group_vars and host_vars are looked for there."""
    paths = [Path(expand_user(source)) for source in sources if not is_host_list(source)]
    return [str(path if path.is_dir() else path.parent) for path in paths]


def _read_host_list(source: str, tree: Tree) -> None:
    where = Where(source)
    for item in filter(None, map(str.strip, source.split(","))):
        try:
            names, port = addresses.expand(item)
        except ValueError as error:
            raise where.error(str(error)) from error
        for name in names:
            if name not in tree.hosts:
                tree.add_host(name, tree.groups[UNGROUPED], where, port)


def _read_path(path: str, tree: Tree, reader: Reader) -> None:
    if Path(path).is_dir():
        _read_directory(path, tree, reader)
    elif not Path(path).exists():
        raise InventoryError("no such inventory", file=path, hint="a list of hosts ends with a comma: -i host1,")
    else:
        _read_file(path, tree, reader)


def _read_directory(path: str, tree: Tree, reader: Reader) -> None:
    entries = sorted(entry for entry in _listing(path) if not _is_ignored(entry))
    if not entries:
        raise InventoryError("the directory has no inventory in it", file=path)
    for entry in entries:
        _read_path(str(Path(path, entry)), tree, reader)


def _listing(path: str) -> list[str]:
    try:
        return [entry.name for entry in Path(path).iterdir()]
    except OSError as error:
        raise InventoryError(f"cannot be read: {(error.strerror or '').lower()}", file=path) from error


def _is_ignored(name: str) -> bool:
    return name.startswith(".") or name in _IGNORED_NAMES or name.endswith(_IGNORED_ENDS)


def _read_file(path: str, tree: Tree, reader: Reader) -> None:
    extension = Path(path).suffix
    if extension == ".toml":
        raise InventoryError("TOML inventories are not supported", file=path, hint="write it as YAML or INI")
    if _is_program(path, extension, tree):
        script.read(path, tree, reader)
    elif extension in YAML_EXTENSIONS or (not extension and _looks_like_yaml(reader.text(path))):
        yaml_source.read(reader.document(path), path, tree)
    else:
        ini.read(reader.text(path), path, tree)


def _is_program(path: str, extension: str, tree: Tree) -> bool:
    start = read_bytes(path)[:4]
    looks_like_one = start.startswith((b"#!", b"\x7fELF"))
    if os.access(path, os.X_OK):
        if not looks_like_one:
            tree.notices.warn("is executable but no program; it is read as text", Where(path))
        return looks_like_one
    if looks_like_one and extension not in {*YAML_EXTENSIONS, ".ini"}:
        raise InventoryError("looks like a program but is not executable", file=path, hint="chmod +x makes it one")
    return False


def _looks_like_yaml(text: str) -> bool:
    """Tell a file without extension by its first line with content."""
    lines = (line.strip() for line in text.splitlines())
    first = next((line for line in lines if line and line[0] not in "#;"), "")
    return bool(_YAML_START.match(first))
