"""Asks the real ansible-core about a corpus of inventories: cases as JSON on stdin, its answers as JSON on stdout.

A program of its own, so that ansible's settings, warnings and global state stay out of the tests. A case is
`{"sources": [...], "patterns": [[pattern, limit or null], ...]}`; its answer is the object of
`ansible-inventory --list` and the host names of `ansible --list-hosts` per pattern, or null where ansible fails.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

Answer = dict[str, Any]


class OrderedSet(dict[Any, None]):
    """Enough of a set for ansible's walk over groups, in the order of insertion."""

    def __init__(self, items: Iterable[Any] = ()) -> None:
        super().__init__(dict.fromkeys(items))

    def add(self, item: Any) -> None:
        self[item] = None

    def update(self, items: Iterable[Any]) -> None:  # type: ignore[override]
        super().update(dict.fromkeys(items))

    def difference_update(self, items: Iterable[Any]) -> None:
        for item in list(items):
            self.pop(item, None)

    def copy(self) -> OrderedSet:
        return OrderedSet(self)

    def __iter__(self) -> Iterator[Any]:
        return iter(list(super().__iter__()))


def settings(home: str) -> dict[str, str]:
    """Ansible as it comes, except that what it cannot read is an error and that it says less."""
    return {
        "ANSIBLE_CONFIG": str(Path(home, "ansible.cfg")),
        "ANSIBLE_HOME": home,
        "ANSIBLE_LOCAL_TEMP": home,
        "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true",
        "ANSIBLE_DEPRECATION_WARNINGS": "false",
        "ANSIBLE_LOCALHOST_WARNING": "false",
        "ANSIBLE_NOCOLOR": "true",
    }


def ask(case: Answer) -> Answer:
    loader = import_module("ansible.parsing.dataloader").DataLoader()
    try:
        manager = import_module("ansible.inventory.manager").InventoryManager(loader=loader, sources=case["sources"])
        variables = import_module("ansible.vars.manager").VariableManager(loader=loader, inventory=manager)
        listing = list_inventory(loader, manager, variables)
    except Exception as error:  # noqa: BLE001 - that ansible fails is the answer
        return {"listing": None, "error": str(error), "matches": []}
    return {"listing": listing, "matches": [match(manager, *pattern) for pattern in case["patterns"]]}


def list_inventory(loader: Any, manager: Any, variables: Any) -> Any:
    cli = import_module("ansible.cli.inventory").InventoryCLI(["ansible-inventory", "--list"])
    cli.parse()
    cli.loader, cli.inventory, cli.vm = loader, manager, variables
    return json.loads(cli.dump(cli.json_inventory(manager.groups["all"])))


def match(manager: Any, pattern: str, limit: str | None) -> list[str] | None:
    try:
        manager.subset(limit)
        return [host.name for host in manager.get_hosts(pattern)]
    except Exception:  # noqa: BLE001 - that ansible fails is the answer
        return None


def main() -> None:
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as home:
        os.environ.update(settings(home))
        Path(home, "ansible.cfg").touch()
        # in ansible, the order of hosts in nested groups is that of memory addresses: one is as good as another
        vars(import_module("ansible.inventory.group"))["set"] = OrderedSet
        json.dump([ask(case) for case in json.load(sys.stdin)], sys.stdout)


if __name__ == "__main__":
    main()
