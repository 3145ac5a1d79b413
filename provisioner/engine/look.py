"""What GitLab knows of a host: by the journal's ids and by the mark, so that neither's loss loses a runner."""

from __future__ import annotations

from collections.abc import Iterable

from provisioner.forge import Forge
from provisioner.machine.facts import Facts
from provisioner.machine.journal import Journal
from provisioner.model import ForgeRunner, HostSpec, RunnerSpec
from provisioner.plan import ForgeView


def look(forge: Forge, spec: HostSpec, facts: Facts, journal: Journal) -> ForgeView:
    """Raises ForgeError. Lists are read once per run (the forge keeps them), details once per runner of this host."""
    wanted = {runner.name: runner for runner in spec.runners}
    runners = {runner.id: runner for runner in _by_mark(forge, wanted.values(), facts)}
    for record in journal.runners.values():
        if record.url == forge.url and record.id not in runners and (found := forge.get(record.id)):
            runners[found.id] = found
    ours = [runner for runner in runners.values() if _is_ours(runner, facts)]
    found_by_name = {
        name: tuple(runner for runner in ours if runner.mark and runner.mark.runner == name) for name in wanted
    }
    surplus = tuple(runner for runner in ours if runner.mark and runner.mark.runner not in wanted)
    return ForgeView(forge.url, found_by_name, surplus)


def _by_mark(forge: Forge, wanted: Iterable[RunnerSpec], facts: Facts) -> Iterable[ForgeRunner]:
    """Of each list in which a wanted runner could stand, those that carry this machine's mark."""
    for type_, owner in dict.fromkeys((runner.type, runner.owner) for runner in wanted):
        for runner in forge.runners(type_, owner):
            if _is_ours(runner, facts) and (details := forge.get(runner.id)):
                yield details


def _is_ours(runner: ForgeRunner, facts: Facts) -> bool:
    return runner.mark is not None and runner.mark.machine == facts.machine
