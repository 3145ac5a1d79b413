"""Dynamic inventories: executables that print JSON when asked `--list`, and `--host NAME` if they must be.

Source: Ansible developer guide, "Developing dynamic inventory", script conventions. The choice of files to execute is
sources.py's.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from provisioner import limits
from provisioner.environment import ask
from provisioner.inventory.document import Reader, decode, variables_of
from provisioner.inventory.origin import Where, kind_of
from provisioner.inventory.tree import Group, Tree
from provisioner.limits import TooLongError

TIMEOUT_S: Final = 300
_META: Final = "_meta"
_RUN_IT: Final = "run it by hand: does it end?"


def read(file: str, tree: Tree, reader: Reader) -> None:
    """Run the executable and add its output. Raises InventoryError: it failed, or this is no inventory."""
    where = Where(file)
    answer = _mapping(_ask(where, reader, "--list"), where, "--list")
    meta = answer.get(_META)
    known = None if meta is None else _host_variables(meta, where)
    hosts: dict[str, None] = {}
    for name, content in answer.items():
        if name != _META:
            hosts |= dict.fromkeys(_group(name, content, where, tree))
    for name in hosts:
        found = _ask(where, reader, "--host", name) or {} if known is None else known.get(name, {})
        for key, value in variables_of(found, where).items():
            tree.hosts[name].set(key, value, where)


def _ask(where: Where, reader: Reader, *arguments: str) -> object:
    question = " ".join(arguments)
    try:
        words = [str(Path(where.file).resolve()), *arguments]
        done = ask(words, timeout_s=TIMEOUT_S, limit=limits.INVENTORY)
    except TooLongError as error:
        raise where.error(f"{question} printed more than {limits.told(limits.INVENTORY)}", hint=_RUN_IT) from error
    except subprocess.TimeoutExpired as error:
        raise where.error(f"{question} did not end within {TIMEOUT_S} s") from error
    except (OSError, ValueError) as error:
        raise where.error(f"cannot be run: {error}", hint="is its first line right?") from error
    complaint = _last_line(done.stderr)
    if done.returncode:
        raise where.error(f"{question} ended with status {done.returncode}" + (f": {complaint}" if complaint else ""))
    if complaint:
        reader.notices.warn(f"{question} says: {complaint}", where)
    text = decode(done.stdout, where.file)
    return reader.parse_json(text, where, question) if text.strip() or question == "--list" else None


def _last_line(stderr: bytes) -> str:
    lines = stderr.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


def _mapping(value: object, where: Where, what: str) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise where.error(f"{what} must print a mapping, not {kind_of(value)}")
    return value


def _host_variables(meta: object, where: Where) -> Mapping[str, object] | None:
    """`_meta.hostvars`; None when there is no such thing and each host must be asked for."""
    found = _mapping(meta, where, "--list: _meta").get("hostvars")
    return _mapping(found, where, "--list: _meta.hostvars")


def _group(name: str, content: object, where: Where, tree: Tree) -> list[str]:
    """Add one group, in one of the three forms there are; returns the hosts it names."""
    group = tree.add_group(name, where)
    if not isinstance(content, Mapping):
        return _hosts(group, content, where, tree)
    if not content.keys() & {"hosts", "vars", "children"}:
        content = {"hosts": [name], "vars": content}
    for key, value in variables_of(content.get("vars", {}), where).items():
        group.set(key, value, where)
    hosts = _hosts(group, content.get("hosts", []), where, tree)
    for child in _names(group, content.get("children", []), where):
        tree.add_child(group, tree.add_group(child, where), where)
    return hosts


def _hosts(group: Group, names: object, where: Where, tree: Tree) -> list[str]:
    return [tree.add_host(name, group, where).name for name in _names(group, names, where)]


def _names(group: Group, value: object, where: Where) -> list[object]:
    if not isinstance(value, list):
        raise where.error(f"the hosts and children of group {group.name} must be lists, not {kind_of(value)}")
    return value
