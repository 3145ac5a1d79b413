"""What one side still has after the other went: runners without a host, hosts without a runner, deletions that wait.

Looks first and only then deletes; what does not carry our mark is never even listed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from provisioner.errors import ForgeRefused
from provisioner.forge import Forge
from provisioner.hosts.journal import Journal
from provisioner.model import ForgeRunner, HostSpec, Mark, RunnerStatus


@dataclass(frozen=True, slots=True)
class Known:
    """What a host that answered said: which machine it is, and its journal."""

    machine: str
    journal: Journal


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is left; `runner` is None where nothing is to be deleted in GitLab."""

    why: str
    runner: ForgeRunner | None = None
    deletes: bool = False

    def __str__(self) -> str:
        if self.runner is None:
            return self.why
        mark = self.runner.mark
        name = f"{mark.host}/{mark.runner}" if mark else "?"
        return f"runner {self.runner.id} ({name}, {self.runner.status.value}): {self.why}"


def marked(forge: Forge, hosts: Iterable[HostSpec]) -> tuple[ForgeRunner, ...]:
    """All runners with a mark, of the lists in which a runner of these hosts could stand. Raises ForgeError."""
    lists = dict.fromkeys((runner.type, runner.owner) for host in hosts for runner in host.runners)
    found = {runner.id: runner for kind, owner in lists for runner in forge.runners(kind, owner)}
    return tuple(runner for runner in found.values() if runner.mark)


def survey(
    runners: Sequence[ForgeRunner], inventory: Collection[str], known: Mapping[str, Known], url: str
) -> list[Finding]:
    """Pure: what to delete and what to say. `known` has the hosts that answered, `inventory` all names."""
    found = [finding for runner in runners for finding in _of_runner(runner, inventory, known, url)]
    there = {runner.id for runner in runners}
    return [*found, *(finding for name, host in known.items() for finding in _of_host(name, host, there, url))]


def _of_runner(
    runner: ForgeRunner, inventory: Collection[str], known: Mapping[str, Known], url: str
) -> Iterator[Finding]:
    mark = runner.mark
    if mark is None:
        return
    host = next((one for one in known.values() if one.machine == mark.machine), None)
    if host is not None:
        if runner.id not in _ids(host.journal, url):
            yield Finding("its host does not know it", runner, deletes=True)
    elif runner.status is RunnerStatus.ONLINE:
        yield Finding("no host that answers is its own, but it polls: left alone", runner)
    elif mark.host in known:
        yield Finding(f"{mark.host} is another machine now", runner, deletes=True)
    elif mark.host in inventory:
        yield Finding(f"{mark.host} does not answer: left alone; `nixprov down --gone {mark.host}`", runner)
    else:
        yield Finding(f"{mark.host} is not in the inventory", runner, deletes=True)


def _ids(journal: Journal, url: str) -> set[int]:
    return {record.id for record in journal.runners.values() if record.url == url}


def _of_host(name: str, host: Known, there: Collection[int], url: str) -> Iterator[Finding]:
    for record in host.journal.pending_deletions:
        if record.url == url:
            yield Finding(f"{name}: runner {record.id} waits to be deleted")
    for record in host.journal.runners.values():
        if record.url == url and record.id not in there:
            yield Finding(f"{name} has our files, and GitLab no runner {record.id}: run `up` or `down` there")


def gone(forge: Forge, target: str, hosts: Iterable[HostSpec]) -> list[Finding]:
    """The runners of a machine that is no more: `target` is its name in the mark, or a runner's id.

    Raises ForgeRefused for an id that carries no mark of ours, ForgeError.
    """
    if target.isdigit():
        runner = forge.get(int(target))
        if runner is None:
            return []
        if runner.mark is None:
            raise ForgeRefused(f"runner {target} does not carry our mark, and is not ours to delete")
        return [Finding("named by its id", runner, deletes=True)]
    return [
        Finding("of a machine that is said to be gone", runner, deletes=True)
        for runner in marked(forge, hosts)
        if runner.mark and runner.mark.host == target
    ]


def delete(forge: Forge, findings: Iterable[Finding], say: Callable[[str], None]) -> int:
    """Delete what is to be deleted; gives how many GitLab had. The mark is looked at once more. Raises ForgeError."""
    count = 0
    for finding in findings:
        if finding.deletes and finding.runner is not None:
            now = forge.get(finding.runner.id)
            if now is not None and _is_still(now, finding.runner.mark):
                count += forge.delete(now.id)
                say(f"deleted runner {now.id}")
    return count


def _is_still(runner: ForgeRunner, mark: Mark | None) -> bool:
    return mark is not None and runner.mark == mark
