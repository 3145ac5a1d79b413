"""From the operator's names to the hosts of a run: inventory, pattern, limit, play, and an earlier run.

Touches no host and no provider. Knows the spelling of an option only where a hint names it.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from provisioner.batches import Rules, Stage
from provisioner.errors import ConfigError, NothingSelected
from provisioner.model import Become, HostSpec, Secret
from provisioner.verb import Verb

if TYPE_CHECKING:
    from provisioner.inventory import Inventory
    from provisioner.inventory.play import Play

DEFAULT_INVENTORIES: Final = ("inventory", "inventory.ini", "inventory.yml", "hosts")
ALLOW_ALL: Final = "nixprov_allow_all"
_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class Selection:
    """The hosts and their sources: inventory sources, a play (None: the shipped one), patterns, an earlier run.

    `all_hosts` says that a missing pattern is meant, where the inventory asks for that (`nixprov_allow_all: false`).
    """

    sources: tuple[str, ...] = ()
    play: str | None = None
    pattern: str | None = None
    limit: str | None = None
    vault_password_file: str | None = None
    resume: str | None = None
    all_hosts: bool = False

    @property
    def is_everything(self) -> bool:
        return self.pattern is None and self.limit is None and self.resume is None


@dataclass(frozen=True, slots=True)
class Overrides:
    """The command line's limits of a roll-out, over those of the plays; None leaves them to the plays.

    `become_password` is for hosts without one in the inventory.
    """

    serial: tuple[int | str, ...] | None = None
    max_fail_percentage: float | None = None
    any_errors_fatal: bool = False
    become_password: Secret | None = None


@dataclass(frozen=True, slots=True)
class Fleet:
    """The hosts of a run, play by play; `inventory` are the names of all hosts there are."""

    stages: tuple[Stage, ...]
    inventory: frozenset[str]
    warnings: tuple[str, ...] = ()

    @property
    def hosts(self) -> tuple[HostSpec, ...]:
        return tuple(host for stage in self.stages for host in stage.hosts)

    def only(self, name: str) -> Fleet:
        """The same fleet for one host; without hosts when it has none of that name."""
        return replace(self, stages=(Stage(tuple(host for host in self.hosts if host.name == name)),))


def read_inventory(selection: Selection, on_warning: Callable[[str], None] | None = None) -> Inventory:
    """Read the inventory's sources, with the variables beside the play. Raises InventoryError, ConfigError."""
    from provisioner import inventory

    return inventory.load(
        _sources(selection.sources),
        vault=inventory.VaultReader(selection.vault_password_file) if selection.vault_password_file else None,
        play_dir=str(Path(selection.play).parent) if selection.play else None,
        on_warning=on_warning,
    )


def match(loaded: Inventory, selection: Selection) -> tuple[str, ...]:
    """The names that the pattern (None: all) and the limit select. Raises NothingSelected."""
    return loaded.match("all" if selection.pattern is None else selection.pattern, selection.limit)


def select(selection: Selection, verb: Verb, overrides: Overrides | None = None) -> Fleet:
    """Read inventory, play and record; select the hosts.

    Raises InventoryError, NothingSelected. Raises ConfigError for a change of the whole inventory without --all.
    """
    from provisioner.inventory import play

    loaded = read_inventory(selection)
    names = match(loaded, selection)
    if selection.resume is not None:
        names = _left(selection.resume, verb, names)
    elif verb.changes and selection.is_everything and not selection.all_hosts:
        _guard(loaded, verb, names)
    plays = play.read(selection.play or str(play.shipped()), loaded.notices)
    stages = tuple(stage for stage in _stages(loaded, plays, names, overrides or Overrides()) if stage.hosts)
    if not stages:
        raise NothingSelected("no play is for the selected hosts", hint="look at the plays' `hosts`")
    return Fleet(stages, frozenset(loaded.hosts), loaded.warnings)


def _left(run: str, verb: Verb, names: Sequence[str]) -> tuple[str, ...]:
    # It imports journals, and only --resume needs them: completion, which must be quick, uses this file too.
    from provisioner import runs

    past = runs.load(run)
    if past.verb != verb.value:
        hint = f"nixprov {past.verb} --resume {past.id}"
        raise ConfigError(f"run {past.id} was `{past.verb}`, not `{verb.value}`", hint=hint)
    left = set(past.left)
    found = tuple(name for name in names if name in left)
    if not found:
        what = "is in the selection" if left else "is left: all its hosts are done"
        raise NothingSelected(f"nothing of run {past.id} {what}")
    return found


def _guard(loaded: Inventory, verb: Verb, names: Sequence[str]) -> None:
    """`nixprov_allow_all: false`, on `all` or on some group: a forgotten pattern must not become the whole fleet."""
    from provisioner.inventory.hosts import Variables

    held = [name for name in names if Variables(name, loaded.hosts[name].origins).boolean([ALLOW_ALL]) is False]
    if held:
        raise ConfigError(
            f"`{verb.value}` without a pattern means {len(names)} hosts, and {ALLOW_ALL} is false for {_some(held)}",
            hint="name the hosts, or say --all",
        )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _stages(loaded: Inventory, plays: Sequence[Play], names: Sequence[str], overrides: Overrides) -> list[Stage]:
    stages, taken = [], set[str]()
    for one in plays:
        meant = set(_matched(loaded, one.hosts))
        mine = [name for name in names if name in meant]
        if double := next((name for name in mine if name in taken), None):
            raise ConfigError(f"{double} is in two plays of one file", hint="give one play all of its runners")
        taken |= set(mine)
        wanted = loaded.host_specs(mine, one.runner_settings, one.module_settings)
        specs = [_with_password(spec, overrides) for spec in wanted]
        stages.append(Stage(tuple(_ordered(specs, one.order)), _rules(one, overrides), one.name))
    return stages


def _matched(loaded: Inventory, pattern: str) -> tuple[str, ...]:
    """A play for hosts that this inventory does not have is no error: plays are shared between inventories."""
    try:
        return loaded.match(pattern)
    except NothingSelected:
        return ()


def _rules(one: Play, overrides: Overrides) -> Rules:
    given = overrides.max_fail_percentage
    return Rules(
        serial=one.serial if overrides.serial is None else overrides.serial,
        max_fail_percentage=one.max_fail_percentage if given is None else given,
        any_errors_fatal=one.any_errors_fatal or overrides.any_errors_fatal,
    )


def _ordered(specs: list[HostSpec], order: str) -> list[HostSpec]:
    """As Ansible's `order`: `inventory` is the order of the pattern."""
    match order:
        case "reverse_inventory":
            return specs[::-1]
        case "sorted" | "reverse_sorted":
            return sorted(specs, key=lambda spec: spec.name, reverse=order == "reverse_sorted")
        case "shuffle":
            return random.sample(specs, len(specs))
        case _:
            return specs


def _with_password(spec: HostSpec, overrides: Overrides) -> HostSpec:
    password, become = overrides.become_password, spec.connection.become or Become()
    if password is None or become.password is not None:
        return spec
    return replace(spec, connection=replace(spec.connection, become=replace(become, password=password)))


def _sources(given: tuple[str, ...]) -> tuple[str, ...]:
    if given:
        return given
    if named := os.environ.get("NIXPROV_INVENTORY"):
        return tuple(filter(None, named.split(os.pathsep)))
    for name in DEFAULT_INVENTORIES:
        if Path(name).exists():
            return (name,)
    raise ConfigError(
        f"no inventory: none of {', '.join(DEFAULT_INVENTORIES)} is here",
        hint="name one with -i, or copy inventory.example",
    )
