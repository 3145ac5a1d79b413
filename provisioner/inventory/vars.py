"""group_vars and host_vars, and the precedence of a variable's values.

Source: Ansible inventory guide, "Organizing host and group variables" and "How variables are merged". Low to high:
inventory's `all`, its groups, group_vars/all, group_vars/NAME, inventory's hosts, host_vars/NAME. Mappings are
replaced, never merged. Knows no variable's meaning.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from provisioner.inventory.document import Reader, variables_of
from provisioner.inventory.origin import Var, Where, line_of
from provisioner.inventory.sources import YAML_EXTENSIONS
from provisioner.inventory.tree import ALL, Group, Host, Tree


@dataclass(slots=True)
class VarsFiles:
    """The files of one kind (`group_vars` or `host_vars`) below one directory, each read at most once."""

    directory: Path
    reader: Reader
    _known: dict[str, dict[str, Var]] = field(default_factory=dict)
    _entries: frozenset[str] | None = None

    def of(self, name: str) -> dict[str, Var]:
        """The variables in the files of a host or group, later files over earlier ones. Raises InventoryError."""
        if name not in self._known:
            found: dict[str, Var] = {}
            for file in self._files(name):
                found |= self._read(file)
            self._known[name] = found
        return self._known[name]

    def _files(self, name: str) -> Iterator[str]:
        """The first of NAME, NAME.yml, NAME.yaml, NAME.json that exists; a directory stands for its files."""
        if self._entries is None:
            is_there = self.directory.is_dir()
            self._entries = frozenset(path.name for path in self.directory.iterdir()) if is_there else frozenset()
        entry = next((name + end for end in ("", *YAML_EXTENSIONS) if name + end in self._entries), None)
        if entry is not None:
            path = self.directory / entry
            yield from _files_below(path) if path.is_dir() else [str(path)]

    def _read(self, file: str) -> dict[str, Var]:
        value = self.reader.document(file)
        if not value:
            return {}
        variables = variables_of(value, Where(file, 1))
        return {key: Var(item, Where(file, line_of(variables, key) or 1)) for key, item in variables.items()}


def _files_below(directory: Path) -> Iterator[str]:
    for path in sorted(directory.iterdir()):
        if path.name.startswith(".") or path.name.endswith("~"):
            continue
        if path.is_dir() and not path.suffix:
            yield from _files_below(path)
        elif path.is_file() and (not path.suffix or path.suffix in YAML_EXTENSIONS):
            yield str(path)


class Merger:
    """Merges the variables of each host; `roots` are the sources' directories, `play_root` the play's."""

    def __init__(self, tree: Tree, roots: Sequence[str], play_root: str | None, reader: Reader) -> None:
        self._tree = tree
        self._depths = tree.depths()
        self._places = [roots, [play_root] if play_root is not None else []]
        self._group_files = [[VarsFiles(Path(root, "group_vars"), reader) for root in place] for place in self._places]
        self._host_files = [[VarsFiles(Path(root, "host_vars"), reader) for root in place] for place in self._places]
        self._of_groups: dict[frozenset[str], dict[str, Var]] = {}

    def host(self, host: Host) -> dict[str, Var]:
        """All variables of a host, merged. Raises InventoryError."""
        groups = host.all_groups()
        key = frozenset(groups)
        if key not in self._of_groups:
            self._of_groups[key] = self._groups([group for group in groups.values() if group.name != ALL])
        merged = self._of_groups[key] | host.vars
        for place in self._host_files:
            merged |= _from_files(place, [host.name])
        return merged

    def group(self, group: Group) -> dict[str, Var]:
        """A group's own variables, from the sources and the files."""
        merged = dict(group.vars)
        for place in self._group_files:
            merged |= _from_files(place, [group.name])
        return merged

    def _groups(self, groups: list[Group]) -> dict[str, Var]:
        groups.sort(key=lambda group: (self._depths[group.name], group.priority, group.name))
        merged = dict(self._tree.groups[ALL].vars)
        for group in groups:
            merged |= group.vars
        for names in ([ALL], [group.name for group in groups]):
            for place in self._group_files:
                merged |= _from_files(place, names)
        return merged


def _from_files(place: Iterable[VarsFiles], names: Iterable[str]) -> dict[str, Var]:
    names = list(names)
    found: dict[str, Var] = {}
    for files in place:
        for name in names:
            found |= files.of(name)
    return found
