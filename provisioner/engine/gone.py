"""Runners of ours in GitLab for hosts that the inventory no longer has."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from provisioner.forge import Forge
from provisioner.model import ForgeRunner, HostSpec


def gone(forge: Forge, wanted: Iterable[HostSpec], inventory: Collection[str]) -> tuple[ForgeRunner, ...]:
    """Marked runners whose host is not in `inventory`, from the lists in which a wanted runner could stand.

    The lists are the run's own, read once already, so this costs no call. Runners of another inventory that serves the
    same group look the same: only a person knows. Raises ForgeError.
    """
    lists = dict.fromkeys((runner.type, runner.owner) for host in wanted for runner in host.runners)
    found = {runner.id: runner for type_, owner in lists for runner in forge.runners(type_, owner)}
    marked = [(runner.mark, runner) for runner in found.values()]
    return tuple(runner for mark, runner in marked if mark is not None and mark.host not in inventory)
