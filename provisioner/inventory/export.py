"""An inventory as `ansible-inventory` shows it: the JSON of --list and the picture of --graph. Secrets are stars."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Final

from provisioner.errors import InventoryError
from provisioner.inventory.fleet import Inventory
from provisioner.inventory.origin import nearest
from provisioner.inventory.tree import ALL
from provisioner.model import Secret

HIDDEN: Final = "***"
# variables that Ansible sets itself and an inventory cannot; its own listing leaves them out
_MAGIC: Final = frozenset(
    {
        *("ansible_async_path", "ansible_collection_name", "ansible_config_file", "ansible_dependent_role_names"),
        *("ansible_diff_mode", "ansible_facts", "ansible_forks", "ansible_inventory_sources", "ansible_limit"),
        *("ansible_play_batch", "ansible_play_hosts", "ansible_play_hosts_all", "ansible_play_role_names"),
        *("ansible_playbook_python", "ansible_role_name", "ansible_role_names", "ansible_run_tags"),
        *("ansible_skip_tags", "ansible_verbosity", "ansible_version", "group_names", "groups", "hostvars"),
        *("inventory_dir", "inventory_file", "inventory_hostname", "inventory_hostname_short", "play_hosts"),
        *("playbook_dir", "role_name", "role_names", "role_path", "role_uuid"),
    }
)


def listing(inventory: Inventory) -> dict[str, object]:
    """The object of `ansible-inventory --list`: groups, and `_meta.hostvars` with each host's merged variables."""
    found: dict[str, object] = {}
    _add_group(inventory, ALL, found, set())
    variables = {name: host_variables(inventory, name) for name in inventory.groups[ALL].members}
    found["_meta"] = {"hostvars": {name: values for name, values in variables.items() if values}}
    return found


def host_variables(inventory: Inventory, name: str) -> dict[str, object]:
    """The object of `ansible-inventory --host NAME`. Raises InventoryError when there is no such host."""
    return {str(key): plain(value) for key, value in inventory.host(name).vars.items() if key not in _MAGIC}


def graph(inventory: Inventory, group: str = ALL, *, with_vars: bool = False) -> str:
    """The text of `ansible-inventory --graph`, without a newline at its end. Raises InventoryError: no such group."""
    if group not in inventory.groups:
        raise InventoryError(f"there is no group {group} in the inventory", hint=nearest(group, inventory.groups))
    return "\n".join(_graph_lines(inventory, group, 0, with_vars))


def plain(value: object) -> object:
    """A variable's value as JSON can have it; a secret is stars."""
    if isinstance(value, Secret):
        return HIDDEN
    if isinstance(value, Mapping):
        return {_key(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(item) for item in value]
    if isinstance(value, dt.date):
        return value.isoformat()
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _key(key: object) -> str:
    special = {True: "true", False: "false", None: "null"}
    return special[key] if key is None or isinstance(key, bool) else str(key)


def _add_group(inventory: Inventory, name: str, found: dict[str, object], seen: set[str]) -> None:
    """Each group once, parents first; an empty group is left out."""
    seen.add(name)
    group = inventory.groups[name]
    content = {"hosts": [] if name == ALL else list(group.hosts), "children": list(group.children)}
    if any(content.values()):
        found[name] = {key: value for key, value in content.items() if value}
    for child in group.children:
        if child not in seen:
            _add_group(inventory, child, found, seen)


def _graph_lines(inventory: Inventory, name: str, depth: int, with_vars: bool) -> list[str]:
    group = inventory.groups[name]
    lines = [_indented(f"@{name}:", depth)]
    for child in group.children:
        lines += _graph_lines(inventory, child, depth + 1, with_vars)
    for host in group.hosts if name != ALL else ():
        lines.append(_indented(host, depth + 1))
        if with_vars:
            lines += _variable_lines(host_variables(inventory, host), depth + 2)
    if with_vars:
        lines += _variable_lines({key: plain(value) for key, value in group.vars.items()}, depth + 1)
    return lines


def _variable_lines(variables: Mapping[str, object], depth: int) -> list[str]:
    return [_indented(f"{{{name} = {variables[name]}}}", depth) for name in sorted(variables)]


def _indented(text: str, depth: int) -> str:
    return f"{'  |' * depth}--{text}" if depth else text
