"""The things nixprov owns on a host, in the order of their arrival; they are taken back in reverse."""

from collections.abc import Iterator
from typing import Final

from provisioner.hooks import HOOKS
from provisioner.machine import preflight
from provisioner.machine.facts import probe_script
from provisioner.machine.things import Thing, Unit, of_kind, probes
from provisioner.steps.base import Comparison, State, Step, Wanted
from provisioner.steps.hook import Hooked
from provisioner.steps.module import ModuleFiles
from provisioner.steps.remnants import Remnants
from provisioner.steps.secrets import Secrets
from provisioner.steps.staged import Staged
from provisioner.steps.state import StateDir


def in_order(*owners: Step) -> tuple[Step, ...]:
    """`owners`, and after them the steps for leftovers of their transactions and of their units."""
    remnants = Remnants(owners)
    return (*owners, Staged((*owners, remnants)), remnants)


STEPS: Final[tuple[Step, ...]] = in_order(StateDir(), Secrets(), ModuleFiles(), Hooked())


def things() -> Iterator[Thing]:
    """All declared things, for a host of any kind."""
    for step in STEPS:
        for hook in HOOKS:
            yield from step.things(hook)


def probe() -> bytes:
    """One script for `sh -s` that asks for all of them; Facts.parse reads its answer."""
    folders = dict.fromkeys(hook.folder for hook in HOOKS)
    return probe_script([preflight.probe(folders), *probes(things())])


def foundation() -> frozenset[str]:
    """Units that every job needs and no runner waits for: without one, jobs would be taken and fail."""
    return frozenset(unit.name for unit in of_kind(things(), Unit) if unit.is_foundation)


__all__ = ["STEPS", "Comparison", "State", "Step", "Wanted", "foundation", "in_order", "probe", "things"]
