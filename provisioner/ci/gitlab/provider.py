"""GitLab by intent: the sequences of API calls behind each of the provider's answers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from provisioner.ci.base import Credential, Enrolled, Presence, Server
from provisioner.ci.gitlab.api import Api
from provisioner.ci.gitlab.plan import HostRunners, enrolled
from provisioner.ci.gitlab.values import Manager, Runner, RunnerStatus
from provisioner.ci.gitlab.words import HOST_SIDE, WORDS
from provisioner.errors import CiUnavailable
from provisioner.model import HostSpec, Identity, Mark, RunnerSpec

# DELETE /runners/managers wants the runner's token (docs api/runners), which only the host has. GitLab has a job of its
# own for them (stale_machines_cleanup_worker in its gitlab.yml.example).
_STALE = "stale; GitLab lets no operator delete it, and drops it by itself"


@dataclass(frozen=True, slots=True)
class GitLab:
    """`Provider` over one GitLab. `warnings` are lines to show once about the way to it."""

    api: Api
    warnings: Sequence[str] = ()

    @property
    def server(self) -> Server:
        return Server(WORDS, HOST_SIDE, self.api.url)

    @property
    def writes(self) -> int:
        return self.api.writes

    def check(self) -> None:
        self.api.check()

    def close(self) -> None:
        self.api.close()

    def look(self, spec: HostSpec, machine: str, known: Collection[Identity]) -> HostRunners:
        """By the journal's ids and by the mark, so that neither's loss loses a runner.

        Lists are read once per run (the API keeps them), details once per runner of this host.
        """
        runners = {runner.id: runner for runner in self._by_mark(spec, machine)}
        for id_ in map(int, known):
            if id_ not in runners and (found := self.api.get(id_)):
                runners[id_] = found
        ours = [runner for runner in runners.values() if _is_of(machine, runner)]
        return HostRunners.of((runner.name for runner in spec.runners), ours)

    def _by_mark(self, spec: HostSpec, machine: str) -> Iterable[Runner]:
        """The runners with this machine's mark, from each list in which a wanted runner could be."""
        for runner in self._lists([spec]):
            if _is_of(machine, runner) and (details := self.api.get(runner.id)):
                yield details

    def _lists(self, hosts: Iterable[HostSpec]) -> Iterable[Runner]:
        lists = dict.fromkeys((runner.type, runner.owner) for host in hosts for runner in host.runners)
        return (runner for kind, owner in lists for runner in self.api.runners(kind, owner))

    def enrol(self, spec: RunnerSpec, mark: Mark, runner: Identity | None = None) -> Credential:
        made = self.api.create(spec, mark) if runner is None else self.api.reset_token(int(runner))
        return Credential(made.id, made.token, made.token_expires_at)

    def adjust(self, runner: Identity, spec: RunnerSpec, mark: Mark) -> None:
        self.api.update(int(runner), spec, mark)

    def presences(self, runner: Identity) -> tuple[Presence, ...]:
        return tuple(map(_presence, self.api.managers(int(runner))))

    def confirm(self, runner: Identity) -> bool:
        """A manager is online only after it asked for jobs.

        Verifying a token sets its time of contact too, and leaves it "never contacted"
        (app/models/ci/runner_manager.rb). "Online" is proof for a runner made in this run. An older one may have been
        online before. Its times cannot be compared with now: GitLab writes them down every 40 to 55 minutes.
        """
        return any(manager.status is RunnerStatus.ONLINE for manager in self.api.managers(int(runner)))

    def quiesce(self, runner: Identity) -> bool:
        """Pause: SIGQUIT alone can lose a job that GitLab has just handed out."""
        if self.api.get(int(runner)) is None:
            return False
        self.api.set_paused(int(runner), paused=True)
        return True

    def running_jobs(self, runner: Identity) -> int:
        return self.api.running_jobs(int(runner))

    def is_quiet(self, runner: Identity) -> bool:
        found = self.api.get(int(runner))
        return found is not None and found.paused

    def resume(self, runner: Identity) -> None:
        if self.api.get(int(runner)) is not None:
            self.api.set_paused(int(runner), paused=False)

    def withdraw(self, runner: Identity) -> None:
        self.api.delete(int(runner))
        try:
            found = self.api.get(int(runner))
        except CiUnavailable as error:
            text = f"runner {runner} was deleted, and GitLab could not be asked for it again: {error.message}"
            raise CiUnavailable(text, hint="run again") from error
        if found is not None:
            raise CiUnavailable(f"GitLab still has runner {runner} after deleting it", hint="run again")

    def listed(self, hosts: Iterable[HostSpec]) -> tuple[Enrolled, ...]:
        found = {runner.id: runner for runner in self._lists(hosts)}
        return tuple(enrolled(runner) for runner in found.values() if runner.mark)

    def find(self, runner: Identity) -> Enrolled | None:
        found = self.api.get(int(runner))
        return None if found is None else enrolled(found)


def _is_of(machine: str, runner: Runner) -> bool:
    return runner.mark is not None and runner.mark.machine == machine


def _presence(manager: Manager) -> Presence:
    remark = _STALE if manager.status is RunnerStatus.STALE else ""
    return Presence(manager.system_id, manager.status.value, manager.contacted_at, remark)
