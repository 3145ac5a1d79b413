"""An inventory once it is loaded: frozen, and able to answer for hosts and the wanted state of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from provisioner.errors import InventoryError, NothingSelected
from provisioner.inventory import hosts as connections
from provisioner.inventory import sources as readers
from provisioner.inventory.document import Reader
from provisioner.inventory.origin import Notices, Var, Where, nearest
from provisioner.inventory.patterns import Selector, split
from provisioner.inventory.tree import ALL, Host, Tree
from provisioner.inventory.vars import Merger
from provisioner.inventory.vault import VaultReader
from provisioner.model import FrozenDict, HostSpec


@dataclass(frozen=True, slots=True)
class InventoryHost:
    """A host: its groups by name without `all`, its merged variables, and where it was first named.

    Passwords and vaulted values in `vars` are `model.Secret`.
    """

    name: str
    groups: tuple[str, ...]
    vars: Mapping[str, object]
    where: Where
    origins: Mapping[str, Var] = field(repr=False)


@dataclass(frozen=True, slots=True)
class InventoryGroup:
    """A group: the hosts and groups directly in it, all hosts in or below it, and its own variables."""

    name: str
    hosts: tuple[str, ...]
    children: tuple[str, ...]
    members: tuple[str, ...]
    vars: Mapping[str, object]


@dataclass(frozen=True)
class Inventory:
    """All hosts and groups in the order of their declaration."""

    hosts: Mapping[str, InventoryHost]
    groups: Mapping[str, InventoryGroup]
    notices: Notices = field(repr=False)
    _selector: Selector = field(repr=False)

    @property
    def warnings(self) -> tuple[str, ...]:
        """All that was warned of so far, while loading and while answering."""
        return self.notices.said

    def match(self, pattern: str, limit: str | None = None) -> tuple[str, ...]:
        """The names of the hosts that a pattern and a limit select, in order.

        Raises NothingSelected when there is none, InventoryError for a pattern or limit file that cannot be read.
        """
        names = self._selector.select(pattern, limit)
        if not names:
            limited = f" within the limit {limit!r}" if limit is not None else ""
            raise NothingSelected(f"no host matches {pattern!r}{limited}", hint=self._what_there_is(pattern, limit))
        return names

    def _what_there_is(self, pattern: str, limit: str | None) -> str:
        if not self.hosts:
            return "the inventory has no hosts"
        is_typo = limit is None and pattern not in self.groups
        near = nearest(pattern, [*self.groups, *self.hosts]) if is_typo and len(split(pattern)) == 1 else ""
        return near or "`nixprov inventory graph` shows what there is"

    def select(
        self,
        pattern: str,
        limit: str | None = None,
        play_runners: Sequence[Mapping[str, object]] = (),
        play_module: Mapping[str, object] = FrozenDict(),
    ) -> tuple[HostSpec, ...]:
        """The hosts that a pattern and a limit select, in order. Raises NothingSelected, InventoryError."""
        return self.host_specs(self.match(pattern, limit), play_runners, play_module)

    def host_specs(
        self,
        names: Iterable[str],
        play_runners: Sequence[Mapping[str, object]] = (),
        play_module: Mapping[str, object] = FrozenDict(),
    ) -> tuple[HostSpec, ...]:
        """The named hosts, each with the play's wishes below those of the inventory (docs/inventory.md).

        `play_runners` are mappings of the keys of a play's `runners`. `play_module` is a mapping of its other keys for
        the host. Raises InventoryError.
        """
        return tuple(self._spec(self.host(name), play_runners, play_module) for name in names)

    def host(self, name: str) -> InventoryHost:
        """One host by its name. Raises InventoryError."""
        if name not in self.hosts:
            raise InventoryError(f"there is no host {name} in the inventory", hint=nearest(name, self.hosts))
        return self.hosts[name]

    def _spec(
        self, host: InventoryHost, play_runners: Sequence[Mapping[str, object]], play_module: Mapping[str, object]
    ) -> HostSpec:
        # pydantic is slow to import, and a listing of an inventory does not need it
        from provisioner.inventory import module, runners

        return HostSpec(
            name=host.name,
            connection=connections.connection(connections.Variables(host.name, host.origins), self.notices),
            runners=runners.specs(host.name, host.origins, play_runners),
            module=module.spec(host.name, host.origins, play_module),
            groups=host.groups,
            vars=host.vars,
        )


def load(
    sources: Sequence[str],
    *,
    vault: VaultReader | None = None,
    play_dir: str | None = None,
    on_warning: Callable[[str], None] | None = None,
) -> Inventory:
    """Read inventory sources as Ansible does, stricter where docs/inventory.md says so.

    A source is a file (INI, YAML, JSON), a directory, an executable, or host names with a comma. Later ones go over
    earlier ones. `play_dir` is the play's directory; its group_vars and host_vars go over those beside the sources.
    `on_warning` gets each warning as a line. Raises InventoryError with file and line.
    """
    notices = Notices(on_warning)
    reader = Reader(notices, vault)
    tree = Tree(notices)
    readers.read_all(sources, tree, reader)
    merger = Merger(tree, readers.vars_roots(sources), play_dir, reader)
    hosts = {name: _host(host, merger) for name, host in tree.hosts.items()}
    groups = _groups(tree, merger)
    members = {name: group.members for name, group in groups.items()}
    return Inventory(
        hosts=FrozenDict(hosts),
        groups=FrozenDict(groups),
        notices=notices,
        _selector=Selector(hosts, members, notices),
    )


def _host(host: Host, merger: Merger) -> InventoryHost:
    origins = merger.host(host)
    groups = tuple(sorted(name for name in host.all_groups() if name != ALL))
    return InventoryHost(host.name, groups, _values(origins), host.where, FrozenDict(origins))


def _groups(tree: Tree, merger: Merger) -> dict[str, InventoryGroup]:
    return {
        name: InventoryGroup(
            name, tuple(group.hosts), tuple(group.children), group.members(), _values(merger.group(group))
        )
        for name, group in tree.groups.items()
    }


def _values(origins: Mapping[str, Var]) -> Mapping[str, object]:
    return FrozenDict({name: connections.concealed(name, var.value) for name, var in origins.items()})
