"""Inventories in YAML and JSON: groups with `hosts`, `vars` and `children`.

Source: Ansible inventory guide and the `yaml` inventory plugin's documentation. Knows nothing of files or vaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from provisioner.inventory import addresses
from provisioner.inventory.document import variables_of
from provisioner.inventory.origin import Where, kind_of, line_of, nearest
from provisioner.inventory.tree import Group, Tree

_SECTIONS: Final = ("hosts", "vars", "children")


def read(value: object, file: str, tree: Tree) -> None:
    """Add the groups of a document to the tree. Raises InventoryError with the line."""
    if value is None:
        return
    if not isinstance(value, Mapping):
        raise Where(file, 1).error(f"an inventory must be a mapping of groups, not {kind_of(value)}")
    if value.get("plugin"):
        raise Where(file, line_of(value, "plugin")).error(
            "the configuration of an inventory plugin is not supported",
            hint="use an executable with the output of ansible-inventory --list",
        )
    reader = _YamlReader(file, tree)
    try:
        for name, content in value.items():
            where = Where(file, line_of(value, name))
            if content is not None and not isinstance(content, Mapping):
                tree.notices.warn(f"{name} is skipped: a group must be a mapping, not {kind_of(content)}", where)
            else:
                reader.group(name, content, where)
    except RecursionError as error:
        raise Where(file, 1).error("the groups are nested too deeply") from error


class _YamlReader:
    def __init__(self, file: str, tree: Tree) -> None:
        self._file = file
        self._tree = tree

    def group(self, name: object, content: object, where: Where) -> Group:
        if content is not None and not isinstance(content, Mapping):
            raise where.error(f"group {name} must be a mapping, not {kind_of(content)}")
        content = content or {}
        group = self._tree.add_group(name, where)
        sections = {key: self._section(group, key, content) for key in content if key in _SECTIONS}
        for key, section in sections.items():
            at = Where(self._file, line_of(content, key))
            if key == "hosts":
                self._hosts(group, section, at)
            elif key == "vars":
                self._variables(group, section, at)
            else:
                self._children(group, section, at)
        self._warn_of_others(group, content)
        return group

    def _section(self, group: Group, key: str, content: Mapping[object, object]) -> Mapping[object, object]:
        section = content[key]
        if isinstance(section, str):
            return {section: None}
        if section is None or isinstance(section, Mapping):
            return section or {}
        where = Where(self._file, line_of(content, key))
        raise where.error(f"{key} of group {group.name} must be a mapping, not {kind_of(section)}")

    def _hosts(self, group: Group, section: Mapping[object, object], at: Where) -> None:
        for pattern, content in section.items():
            where = self._at(section, pattern, at)
            if not isinstance(pattern, str):
                raise where.error(f"the host name {pattern} is {kind_of(pattern)}", hint="quote it")
            try:
                names, port = addresses.expand(pattern)
            except ValueError as error:
                raise where.error(str(error)) from error
            variables = variables_of(content or {}, where)
            for name in names:
                host = self._tree.add_host(name, group, where, port)
                for key, value in variables.items():
                    host.set(key, value, self._at(variables, key, where))

    def _variables(self, group: Group, section: Mapping[object, object], at: Where) -> None:
        for key, value in variables_of(section, at).items():
            group.set(key, value, self._at(section, key, at))

    def _children(self, group: Group, section: Mapping[object, object], at: Where) -> None:
        for name, content in section.items():
            where = self._at(section, name, at)
            self._tree.add_child(group, self.group(name, content, where), where)

    def _warn_of_others(self, group: Group, content: Mapping[object, object]) -> None:
        for key in content:
            if key not in _SECTIONS:
                hint = nearest(key, _SECTIONS) or f"a group has {', '.join(_SECTIONS)}"
                where = Where(self._file, line_of(content, key))
                self._tree.notices.warn(f"{key} of group {group.name} is skipped; {hint}", where)

    def _at(self, mapping: Mapping[Any, object], key: object, outer: Where) -> Where:
        return Where(self._file, line_of(mapping, key) or outer.line)
