"""What one side still has after the other went: runners without a host, hosts without a runner, deletions that wait.

Looks first and only then deletes; a runner without our mark is never even listed. No host is changed, so there are no
phases of one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from provisioner.engine import crash
from provisioner.engine.host import Machine
from provisioner.errors import ForgeRefused
from provisioner.events import LeftoverFound
from provisioner.forge import Forge
from provisioner.machine.journal import Journal
from provisioner.model import ForgeRunner, HostSpec, Manager, Mark, RunnerStatus


@dataclass(frozen=True, slots=True)
class Known:
    """What a host that answered said: which machine it is, its journal, and the run that holds it, if one does."""

    machine: str
    journal: Journal
    held_by: str = ""

    @classmethod
    def of(cls, machine: Machine) -> Self:
        return cls(machine.facts.machine, machine.journal, machine.facts.held_by)

    def ids(self, url: str) -> set[int]:
        return {record.id for record in self.journal.runners.values() if record.url == url}

    def pending(self, url: str) -> set[int]:
        return {record.id for record in self.journal.pending_deletions if record.url == url}

    @property
    def waits_for_down(self) -> bool:
        """Only the journal is left there, for the sake of deletions: a `down` that GitLab kept from its end."""
        return bool(self.journal.pending_deletions) and not self.journal.runners


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is left, on `host`, or a runner in GitLab, or one of its managers."""

    why: str
    runner: ForgeRunner | None = None
    deletes: bool = False
    manager: Manager | None = None
    host: str = ""

    @property
    def host_name(self) -> str:
        return self.runner.mark.host if self.runner and self.runner.mark else self.host

    def __str__(self) -> str:
        if self.runner is None:
            return f"{self.host}: {self.why}"
        mark = self.runner.mark
        name = f"{mark.host}/{mark.runner}" if mark else "?"
        if self.manager is not None:
            last = self.manager.contacted_at or "never"
            return (
                f"manager {self.manager.system_id} of runner {self.runner.id} ({name}, last contact {last}): {self.why}"
            )
        return f"runner {self.runner.id} ({name}, {self.runner.status.value}): {self.why}"


@dataclass(frozen=True, slots=True)
class View:
    """Both sides: marked runners, names of all hosts, what the hosts that answered said, managers by runner."""

    url: str
    runners: Sequence[ForgeRunner]
    inventory: Collection[str]
    known: Mapping[str, Known]
    managers: Mapping[int, Sequence[Manager]] = field(default_factory=dict)

    def owner_of(self, mark: Mark) -> tuple[str, Known] | None:
        return next(((name, host) for name, host in self.known.items() if host.machine == mark.machine), None)


def look(
    forge: Forge, hosts: Sequence[HostSpec], inventory: Collection[str], ask: Callable[[], Mapping[str, Known]]
) -> View:
    """GitLab's lists first: a runner that another run makes from now on is not in them. Raises ForgeError."""
    listed = {runner.id: runner for runner in marked(forge, hosts)}
    known = ask()
    mine = {id_ for host in known.values() for id_ in host.ids(forge.url) | host.pending(forge.url)}
    # A list in which no runner is wanted any more is not read; ids still lead to what stands there.
    asked = [runner for id_ in sorted(mine - listed.keys()) if (runner := forge.get(id_)) and runner.mark]
    runners = (*listed.values(), *asked)
    in_use = {id_ for host in known.values() for id_ in host.ids(forge.url)}
    managers = {runner.id: forge.managers(runner.id) for runner in runners if runner.id in in_use}
    return View(forge.url, runners, inventory, known, managers)


def marked(forge: Forge, hosts: Iterable[HostSpec]) -> tuple[ForgeRunner, ...]:
    """All runners with a mark, of the lists in which a runner of these hosts could stand. Raises ForgeError."""
    lists = dict.fromkeys((runner.type, runner.owner) for host in hosts for runner in host.runners)
    found = {runner.id: runner for kind, owner in lists for runner in forge.runners(kind, owner)}
    return tuple(runner for runner in found.values() if runner.mark)


def findings(view: View) -> list[Finding]:
    """Pure: what to delete and what to say."""
    found = [finding for runner in view.runners if runner.mark for finding in _of_runner(runner, runner.mark, view)]
    return [*found, *(finding for name, host in view.known.items() for finding in _of_host(name, host, view))]


def _of_runner(runner: ForgeRunner, mark: Mark, view: View) -> Iterator[Finding]:
    owner = view.owner_of(mark)
    if owner is not None:
        yield from _of_known(runner, *owner, view)
    elif runner.status is RunnerStatus.ONLINE:
        yield Finding("no host that answers is its own, but it polls: left alone", runner)
    elif mark.host in view.known:
        yield Finding(f"{mark.host} is another machine now", runner, deletes=True)
    elif mark.host in view.inventory:
        yield Finding(f"{mark.host} does not answer: left alone; `nixprov down --gone {mark.host}`", runner)
    else:
        yield Finding(f"{mark.host} is not in the inventory", runner, deletes=True)


def _of_known(runner: ForgeRunner, name: str, host: Known, view: View) -> Iterator[Finding]:
    if runner.id in host.ids(view.url):
        for manager in view.managers.get(runner.id, ()):
            if manager.status is RunnerStatus.STALE:
                # DELETE /runners/managers wants the runner's token (docs api/runners), which only the host has;
                # GitLab has a job of its own for them (stale_machines_cleanup_worker in its gitlab.yml.example).
                yield Finding(
                    "stale; GitLab lets no operator delete it, and drops it by itself", runner, manager=manager
                )
    elif host.held_by:
        yield Finding(f"{name} is being changed by run {host.held_by}: left alone", runner)
    elif runner.id in host.pending(view.url):
        yield Finding("waits to be deleted since a `down`", runner, deletes=True)
    else:
        yield Finding("its host does not know it", runner, deletes=True)


def _of_host(name: str, host: Known, view: View) -> Iterator[Finding]:
    there = {runner.id for runner in view.runners}
    if host.waits_for_down:
        yield Finding("a `down` there waits to be finished", host=name)
    for missing in sorted(host.ids(view.url) - there):
        yield Finding(f"has our files, and GitLab no runner {missing}: run `up` or `down` there", host=name)


def gone(forge: Forge, target: str, hosts: Iterable[HostSpec], ask: Callable[[], Mapping[str, Known]]) -> list[Finding]:
    """The runners of a machine that is no more: `target` is its name in the mark, or a runner's id.

    `ask` tells whether a machine answers by that name now: one that was installed anew keeps its runner. Raises
    ForgeRefused for an id that carries no mark of ours and for a name that several lost machines had; ForgeError.
    """
    if target.isdigit():
        return _gone_by_id(forge, int(target))
    named = [(runner, runner.mark) for runner in marked(forge, hosts) if runner.mark and runner.mark.host == target]
    if not named:
        return []
    alive = {host.machine for host in ask().values()}
    lost = [(runner, mark) for runner, mark in named if mark.machine not in alive]
    if len({mark.machine for _, mark in lost}) > 1:
        told = ", ".join(f"{runner.id} (machine {mark.machine}, {runner.status.value})" for runner, mark in lost)
        raise ForgeRefused(
            f"runners of several machines are marked {target}: {told}",
            hint=f"another inventory may have a {target} too: name a runner's id",
        )
    spared = [runner for runner, mark in named if mark.machine in alive]
    return [
        *(Finding("of the machine that answers: left alone; `nixprov down` takes it back", one) for one in spared),
        *(Finding("of a machine that is said to be gone", runner, deletes=True) for runner, _ in lost),
    ]


def _gone_by_id(forge: Forge, id_: int) -> list[Finding]:
    runner = forge.get(id_)
    if runner is None:
        return []
    if runner.mark is None:
        raise ForgeRefused(f"runner {id_} does not carry our mark, and is not ours to delete")
    return [Finding("named by its id", runner, deletes=True)]


def told(finding: Finding) -> LeftoverFound:
    runner, manager = finding.runner, finding.manager
    mark = runner.mark if runner else None
    return LeftoverFound(
        host=finding.host_name,
        runner=mark.runner if mark else None,
        id=runner.id if runner else None,
        gitlab_status=(manager or runner).status.value if runner else None,
        system_id=manager.system_id if manager else None,
        contacted_at=manager.contacted_at if manager else None,
        deletes=finding.deletes,
        why=finding.why,
    )


def delete(
    forge: Forge,
    findings: Iterable[Finding],
    done: Callable[[ForgeRunner], None],
    spared: Callable[[ForgeRunner], None] = lambda _: None,
) -> None:
    """Delete what is to be deleted and tell `done` of each. Raises ForgeError.

    Each is looked at once more, for a person may have taken their time to say yes: what carries another mark by now, or
    polls where it did not, is told to `spared`.
    """
    for finding in findings:
        if finding.deletes and finding.runner is not None:
            now = forge.get(finding.runner.id)
            if now is None:
                continue
            if not _is_still(now, finding.runner):
                spared(now)
                continue
            with crash.around("prune"):
                forge.delete(now.id)
            done(now)


def _is_still(now: ForgeRunner, then: ForgeRunner) -> bool:
    polls = RunnerStatus.ONLINE
    return then.mark is not None and now.mark == then.mark and (now.status is not polls or then.status is polls)
