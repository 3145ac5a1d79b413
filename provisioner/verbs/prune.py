"""Leftovers of one side after the other went: runners without a host, hosts without a runner, open deletions.

Looks first and only then deletes; a runner without our mark is never even listed. No host is changed, so there are no
phases.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from provisioner.ci.base import Enrolled, Presence, Provider, Server, Words
from provisioner.engine import crash
from provisioner.engine.host import Machine
from provisioner.errors import CiRefused
from provisioner.events import LeftoverFound
from provisioner.machine.journal import Journal
from provisioner.model import HostSpec, Identity, Mark


@dataclass(frozen=True, slots=True)
class Known:
    """The answer of one host: its machine's hash, its journal, and the run that holds it, if any."""

    machine: str
    journal: Journal
    held_by: str = ""

    @classmethod
    def of(cls, machine: Machine) -> Self:
        return cls(machine.facts.machine, machine.journal, machine.facts.held_by)

    def ids(self, url: str) -> set[Identity]:
        return {record.id for record in self.journal.runners.values() if record.url == url}

    def pending(self, url: str) -> set[Identity]:
        return {record.id for record in self.journal.pending_deletions if record.url == url}

    @property
    def waits_for_down(self) -> bool:
        """Whether only the journal is left there, for pending deletions of a `down` without its provider."""
        return bool(self.journal.pending_deletions) and not self.journal.runners


@dataclass(frozen=True, slots=True)
class Finding:
    """One leftover: on `host`, or a runner at the provider, or one of its processes."""

    why: str
    runner: Enrolled | None = None
    deletes: bool = False
    process: Presence | None = None
    host: str = ""

    @property
    def host_name(self) -> str:
        return self.runner.mark.host if self.runner and self.runner.mark else self.host

    def told(self, words: Words) -> str:
        """For people, in the provider's words."""
        if self.runner is None:
            return f"{self.host}: {self.why}"
        mark = self.runner.mark
        name = f"{mark.host}/{mark.runner}" if mark else "?"
        about = f"{words.runner} {self.runner.id}"
        if self.process is not None:
            last = f"last contact {self.process.contacted_at or 'never'}"
            return f"{words.process} {self.process.name} of {about} ({name}, {last}): {self.why}"
        return f"{about} ({name}, {self.runner.state}): {self.why}"


@dataclass(frozen=True, slots=True)
class View:
    """Both sides: marked runners, names of all hosts, the hosts' answers, processes by runner."""

    server: Server
    runners: Sequence[Enrolled]
    inventory: Collection[str]
    known: Mapping[str, Known]
    processes: Mapping[Identity, Sequence[Presence]] = field(default_factory=dict)

    def owner_of(self, mark: Mark) -> tuple[str, Known] | None:
        return next(((name, host) for name, host in self.known.items() if host.machine == mark.machine), None)


def look(
    ci: Provider, hosts: Sequence[HostSpec], inventory: Collection[str], ask: Callable[[], Mapping[str, Known]]
) -> View:
    """The provider's lists come first: runners that another run makes later are not in them. Raises CiError."""
    listed = {runner.id: runner for runner in ci.listed(hosts)}
    known, url = ask(), ci.server.url
    mine = {id_ for host in known.values() for id_ in host.ids(url) | host.pending(url)}
    # A list without any wanted runner is not read; ids still lead to its runners.
    asked = [runner for id_ in _in_order(mine - listed.keys()) if (runner := ci.find(id_)) and runner.mark]
    runners = (*listed.values(), *asked)
    in_use = {id_ for host in known.values() for id_ in host.ids(url)}
    processes = {runner.id: ci.presences(runner.id) for runner in runners if runner.id in in_use}
    return View(ci.server, runners, inventory, known, processes)


def _in_order(ids: Collection[Identity]) -> list[Identity]:
    """Numbers by size, other ids by length and text."""
    return sorted(ids, key=lambda id_: (len(str(id_)), str(id_)))


def findings(view: View) -> list[Finding]:
    """Pure: the deletions and the remarks."""
    found = [finding for runner in view.runners if runner.mark for finding in _of_runner(runner, runner.mark, view)]
    return [*found, *(finding for name, host in view.known.items() for finding in _of_host(name, host, view))]


def _of_runner(runner: Enrolled, mark: Mark, view: View) -> Iterator[Finding]:
    owner = view.owner_of(mark)
    if owner is not None:
        yield from _of_known(runner, *owner, view)
    elif runner.polls:
        yield Finding("no host that answers is its own, but it polls: left alone", runner)
    elif mark.host in view.known:
        yield Finding(f"{mark.host} is another machine now", runner, deletes=True)
    elif mark.host in view.inventory:
        yield Finding(f"{mark.host} does not answer: left alone; `nixprov down --gone {mark.host}`", runner)
    else:
        yield Finding(f"{mark.host} is not in the inventory", runner, deletes=True)


def _of_known(runner: Enrolled, name: str, host: Known, view: View) -> Iterator[Finding]:
    if runner.id in host.ids(view.server.url):
        for process in view.processes.get(runner.id, ()):
            if process.remark:
                yield Finding(process.remark, runner, process=process)
    elif host.held_by:
        yield Finding(f"{name} is being changed by run {host.held_by}: left alone", runner)
    elif runner.id in host.pending(view.server.url):
        yield Finding("waits to be deleted since a `down`", runner, deletes=True)
    else:
        yield Finding("its host does not know it", runner, deletes=True)


def _of_host(name: str, host: Known, view: View) -> Iterator[Finding]:
    words = view.server.words
    there = {runner.id for runner in view.runners}
    if host.waits_for_down:
        yield Finding("a `down` there waits to be finished", host=name)
    for missing in _in_order(host.ids(view.server.url) - there):
        why = f"has our files, and {words.name} no {words.runner} {missing}: run `up` or `down` there"
        yield Finding(why, host=name)


def gone(ci: Provider, host: str, hosts: Iterable[HostSpec], ask: Callable[[], Mapping[str, Known]]) -> list[Finding]:
    """The runners of a lost machine, by its name in the mark.

    `ask` gives the machines that answer by that name now: one that was installed anew keeps its runner. Raises
    CiRefused for a name that several lost machines had; CiError.
    """
    words = ci.server.words
    named = [(runner, runner.mark) for runner in ci.listed(hosts) if runner.mark and runner.mark.host == host]
    if not named:
        return []
    alive = {known.machine for known in ask().values()}
    lost = [(runner, mark) for runner, mark in named if mark.machine not in alive]
    if len({mark.machine for _, mark in lost}) > 1:
        told = ", ".join(f"{runner.id} (machine {mark.machine}, {runner.state})" for runner, mark in lost)
        raise CiRefused(
            f"{words.runner}s of several machines are marked {host}: {told}",
            hint=f"another inventory may have a {host} too: name a {words.runner}'s id",
        )
    spared = [runner for runner, mark in named if mark.machine in alive]
    left_alone = "of the machine that answers: left alone; `nixprov down` takes it back"
    return [
        *(Finding(left_alone, runner) for runner in spared),
        *(Finding("of a machine that is said to be gone", runner, deletes=True) for runner, _ in lost),
    ]


def named(ci: Provider, runner: Identity) -> list[Finding]:
    """The runner of that id. Raises CiRefused for one that carries no mark of ours; CiError."""
    words, found = ci.server.words, ci.find(runner)
    if found is None:
        return []
    if found.mark is None:
        raise CiRefused(f"{words.runner} {runner} does not carry our mark, and is not ours to delete")
    return [Finding("named by its id", found, deletes=True)]


def told(finding: Finding) -> LeftoverFound:
    runner, process = finding.runner, finding.process
    mark = runner.mark if runner else None
    return LeftoverFound(
        host=finding.host_name,
        runner=mark.runner if mark else None,
        id=runner.id if runner else None,
        gitlab_status=(process or runner).state if runner else None,
        system_id=process.name if process else None,
        contacted_at=process.contacted_at if process else None,
        deletes=finding.deletes,
        why=finding.why,
    )


def delete(
    ci: Provider,
    findings: Iterable[Finding],
    done: Callable[[Enrolled], None],
    spared: Callable[[Enrolled], None] = lambda _: None,
) -> None:
    """Do the deletions among the findings, and pass each to `done`. Raises CiError.

    Each runner is looked at once more, as a person may have taken time to say yes. One with another mark by now, or
    newly polling, is passed to `spared`.
    """
    for finding in findings:
        if finding.deletes and finding.runner is not None:
            now = ci.find(finding.runner.id)
            if now is None:
                continue
            if not _is_still(now, finding.runner):
                spared(now)
                continue
            with crash.around("prune"):
                ci.withdraw(now.id)
            done(now)


def _is_still(now: Enrolled, then: Enrolled) -> bool:
    return then.mark is not None and now.mark == then.mark and (then.polls or not now.polls)
