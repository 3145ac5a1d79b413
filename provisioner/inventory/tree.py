"""Hosts and groups as the sources declare them, and the conclusions once all are read.

Owns: membership, nesting, loops, order. Knows neither files' grammars, nor vars files, nor patterns. The rules are
those of the Ansible inventory guide ("How to build your inventory"). The deviations are in docs/inventory.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from provisioner.inventory.origin import Notices, Var, Where, kind_of

ALL = "all"
UNGROUPED = "ungrouped"
PRIORITY = "ansible_group_priority"


@dataclass(slots=True, eq=False)
class Group:
    name: str
    where: Where
    hosts: dict[str, Host] = field(default_factory=dict)
    children: dict[str, Group] = field(default_factory=dict)
    parents: dict[str, Group] = field(default_factory=dict)
    vars: dict[str, Var] = field(default_factory=dict)
    priority: int = 1

    def descendants(self) -> Iterator[Group]:
        """Yield this group, its children, their children: breadth first, each once."""
        return _walk(self, lambda group: group.children)

    def ancestors(self) -> Iterator[Group]:
        """Yield this group, its parents, their parents: breadth first, each once."""
        return _walk(self, lambda group: group.parents)

    def members(self) -> tuple[str, ...]:
        """The names of all hosts in this group or below it, each once."""
        return tuple(dict.fromkeys(name for group in self.descendants() for name in group.hosts))

    def set(self, key: str, value: object, where: Where) -> None:
        """Set a variable; Ansible reads a group's priority from inventory sources only, and from here."""
        if key == PRIORITY:
            self.priority = _priority(self.name, value, where)
        else:
            self.vars[key] = Var(value, where)


@dataclass(slots=True, eq=False)
class Host:
    name: str
    where: Where
    groups: dict[str, Group] = field(default_factory=dict)
    vars: dict[str, Var] = field(default_factory=dict)

    def set(self, key: str, value: object, where: Where) -> None:
        self.vars[key] = Var(value, where)

    def all_groups(self) -> dict[str, Group]:
        """The host's groups and all above them."""
        return {above.name: above for group in self.groups.values() for above in group.ancestors()}


class Tree:
    """Built by the readers, one source after the other; `settle` ends the building."""

    def __init__(self, notices: Notices) -> None:
        self.notices = notices
        self.groups: dict[str, Group] = {}
        self.hosts: dict[str, Host] = {}
        nowhere = Where()
        self.add_child(self.add_group(ALL, nowhere), self.add_group(UNGROUPED, nowhere), nowhere)

    def add_group(self, name: object, where: Where) -> Group:
        if not isinstance(name, str) or not name:
            raise where.error(f"a group's name must be a string, not {kind_of(name)}")
        return self.groups.setdefault(name, Group(name, where))

    def add_host(self, name: object, group: Group, where: Where, port: int | None = None) -> Host:
        """Put a host, new or known, into a group; only a new one takes the port, as in Ansible."""
        if not isinstance(name, str) or not name:
            raise where.error(f"a host's name must be a string, not {kind_of(name) if name else 'empty'}")
        if "\0" in name or name != name.encode(errors="ignore").decode():
            # no argument of a program can hold a NUL, and no file name a text that is no UTF-8
            raise where.error(f"the host name {name[:40]!a} is no text", hint="is this a text file?")
        host = self.hosts.get(name)
        if host is None:
            host = self.hosts[name] = Host(name, where)
            if port:
                host.vars["ansible_port"] = Var(port, where)
        elif port and not ("ansible_port" in host.vars and host.vars["ansible_port"].value == port):
            self.notices.warn(f"the port of {name} is ignored: the host is already declared at {host.where}", where)
        group.hosts[name] = host
        host.groups[group.name] = group
        return host

    def add_child(self, parent: Group, child: Group, where: Where) -> None:
        if child.name in parent.children:
            return
        if any(above is child for above in parent.ancestors()):
            raise where.error(f"group {child.name} cannot be a child of {parent.name}: it would contain itself")
        parent.children[child.name] = child
        child.parents[parent.name] = parent

    def settle(self) -> None:
        """After the last source: everything is in `all`, and a host without a group is in `ungrouped`."""
        everything, ungrouped = self.groups[ALL], self.groups[UNGROUPED]
        for group in self.groups.values():
            if group is not everything and not group.parents:
                self.add_child(everything, group, group.where)
        for host in self.hosts.values():
            if host.groups.keys() - {ALL, UNGROUPED}:
                ungrouped.hosts.pop(host.name, None)
                host.groups.pop(UNGROUPED, None)
            else:
                host.groups[UNGROUPED] = ungrouped
                ungrouped.hosts[host.name] = host
            if host.name in self.groups:
                self.notices.warn(f"{host.name} is the name of a host and of a group", host.where)

    def depths(self) -> dict[str, int]:
        """The longest way from `all` to each group: a deeper one is more specific and wins."""
        depths = {ALL: 0}
        waiting = {name: len(group.parents) for name, group in self.groups.items()}
        ready = [self.groups[ALL]]
        while ready:
            group = ready.pop()
            for child in group.children.values():
                depths[child.name] = max(depths.get(child.name, 0), depths[group.name] + 1)
                waiting[child.name] -= 1
                if not waiting[child.name]:
                    ready.append(child)
        return depths


def _walk(start: Group, related: Callable[[Group], dict[str, Group]]) -> Iterator[Group]:
    seen, level = {start.name}, [start]
    while level:
        yield from level
        following = {name: group for member in level for name, group in related(member).items() if name not in seen}
        seen |= following.keys()
        level = list(following.values())


def _priority(group: str, value: object, where: Where) -> int:
    try:
        return int(str(value))
    except ValueError as error:
        raise where.error(f"group {group}: {PRIORITY} must be a whole number, not {kind_of(value)}") from error
