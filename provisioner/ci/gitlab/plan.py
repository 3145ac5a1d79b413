"""The choice of a host's runners in GitLab, and their next actions: pure decisions from GitLab's answer.

GitLab shows a token once, so a runner is kept only with the token that the host has. Otherwise the token is reset, and
the old one is dead at once. Two creations, one with a lost reply, leave a double, which is deleted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from provisioner.ci.base import Enrolled, Held, RunnerAction, RunnerVerb
from provisioner.ci.gitlab.compare import differences, settings
from provisioner.ci.gitlab.values import Runner, RunnerStatus
from provisioner.model import HostSpec, Mark, RunnerSpec


@dataclass(frozen=True, slots=True)
class HostRunners:
    """`View` of GitLab: runners with the host's mark, by runner name, with all details.

    `surplus` are those that are marked and no longer wanted.
    """

    wanted: Mapping[str, Sequence[Runner]]
    surplus: Sequence[Runner] = ()

    @classmethod
    def of(cls, wanted: Iterable[str], ours: Iterable[Runner]) -> HostRunners:
        """Sort the runners that carry a host's mark; others are left out."""
        by_name: dict[str, list[Runner]] = {name: [] for name in wanted}
        surplus: list[Runner] = []
        for runner in ours:
            if runner.mark:
                by_name.get(runner.mark.runner, surplus).append(runner)
        return cls(by_name, surplus)

    @property
    def found(self) -> Mapping[str, Sequence[Enrolled]]:
        return {name: tuple(map(enrolled, runners)) for name, runners in self.wanted.items()}

    def to_have(
        self, spec: HostSpec, machine: str, held: Mapping[str, Held], *, renew: bool = False
    ) -> tuple[RunnerAction, ...]:
        actions = [
            action
            for runner in spec.runners
            for action in self._for(runner, Mark(spec.name, runner.name, machine), held.get(runner.name))
        ]
        if renew:
            actions = [_with_new_token(action) for action in actions]
        why = "no longer wanted on this host"
        return (*actions, *(RunnerAction(_name(one), RunnerVerb.DELETE, why, one.id) for one in self.surplus))

    def to_lose(self) -> tuple[RunnerAction, ...]:
        known = [runner for found in self.wanted.values() for runner in found] + list(self.surplus)
        return tuple(
            RunnerAction(_name(runner), RunnerVerb.DELETE, f"id {runner.id}", runner.id)
            for runner in {runner.id: runner for runner in known}.values()
        )

    def _for(self, runner: RunnerSpec, mark: Mark, held: Held | None) -> list[RunnerAction]:
        """The action for one wanted runner, and the deletion of its doubles."""
        candidates = sorted(
            self.wanted.get(runner.name, ()), key=lambda found: (held is None or found.id != held.id, found.id)
        )
        # The type of a runner cannot change.
        same_type = [found for found in candidates if found.type is runner.type]
        if not same_type:
            why = "its type changed" if candidates else "GitLab has none with this host's mark"
            made = RunnerAction(runner.name, RunnerVerb.CREATE, why, settings=tuple(settings(runner)))
            return [made, *_doubles(runner.name, candidates)]
        kept = same_type[0]
        others = [found for found in candidates if found is not kept]
        return [_for_existing(runner, mark, kept, held), *_doubles(runner.name, others)]


def enrolled(runner: Runner) -> Enrolled:
    polls = runner.status is RunnerStatus.ONLINE
    return Enrolled(runner.id, runner.mark, runner.status.value, polls, runner.paused)


def _for_existing(runner: RunnerSpec, mark: Mark, kept: Runner, held: Held | None) -> RunnerAction:
    changes = differences(runner, mark, kept)
    if held is None or held.id != kept.id or not held.has_credential:
        why = "its token is not on the host and GitLab shows it only once"
        return RunnerAction(runner.name, RunnerVerb.RESET_TOKEN, why, kept.id, changes)
    if changes:
        return RunnerAction(runner.name, RunnerVerb.UPDATE, ", ".join(map(str, changes)), kept.id, changes)
    return RunnerAction(runner.name, RunnerVerb.KEEP, id=kept.id)


def _with_new_token(action: RunnerAction) -> RunnerAction:
    if action.verb in (RunnerVerb.KEEP, RunnerVerb.UPDATE):
        return replace(action, verb=RunnerVerb.RESET_TOKEN, why="a new token was asked for")
    return action


def _doubles(name: str, runners: Sequence[Runner]) -> list[RunnerAction]:
    return [RunnerAction(name, RunnerVerb.DELETE, f"id {found.id} has the same mark", found.id) for found in runners]


def _name(runner: Runner) -> str:
    return runner.mark.runner if runner.mark else str(runner.id)
