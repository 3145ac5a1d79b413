"""The changes of `up` and `down`, with reasons: pure decisions from (wanted, facts, the provider's view, journal).

No I/O here, and no clock: the same answers give the same plan. The provider decides on the runners, and the steps find
how a host differs. This file combines both and decides on the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from provisioner.ci.base import Held, RunnerAction, RunnerVerb, Server, View, Words
from provisioner.errors import HookRefused, HostRefused
from provisioner.hooks import Hook, choose, installed
from provisioner.machine.facts import Facts
from provisioner.machine.journal import NO_TOKEN, Journal, Phase, RunnerRecord
from provisioner.machine.things import asking
from provisioner.machine.transaction import Part, RemoveFile, WriteFile
from provisioner.model import HostSpec, Secret
from provisioner.steps import STEPS, State, Wanted, things
from provisioner.steps.module import newer_writer
from provisioner.steps.secrets import has_token
from provisioner.steps.wanted import build

_NAMED = 3


@dataclass(frozen=True, slots=True)
class StepAction:
    step: str
    why: str


@dataclass(frozen=True, slots=True)
class HostPlan:
    """All changes to one host; `switch` is the reason to build and activate its system, or empty.

    `newer`: the version of a newer nixprov whose module ours would replace; empty for no downgrade.
    """

    host: str
    words: Words
    runners: tuple[RunnerAction, ...]
    steps: tuple[StepAction, ...]
    switch: str = ""
    wanted: Wanted | None = None
    newer: str = ""

    @property
    def runner_changes(self) -> tuple[RunnerAction, ...]:
        return tuple(action for action in self.runners if action.verb is not RunnerVerb.KEEP)

    @property
    def changes_host(self) -> bool:
        return bool(self.steps or self.switch)

    @property
    def leads_to_switch(self) -> bool:
        """A new token is a change of the system too, even with all else as wanted."""
        return bool(self.switch) or any(action.verb.makes_a_token for action in self.runners)

    @property
    def is_empty(self) -> bool:
        return not (self.runner_changes or self.changes_host)

    def lines(self) -> tuple[str, ...]:
        """For people, one change a line."""
        key, noun = self.words.key, self.words.runner
        runners = [f"{key}: {action.verb.value} {noun} {action.name}: {action.why}" for action in self.runner_changes]
        steps = [f"{action.step}: {action.why}" for action in self.steps]
        downgrade = [f"downgrade: {self.downgrade}"] if self.newer else []
        return (*downgrade, *runners, *steps, *([f"switch: {self.switch}"] if self.switch else []))

    @property
    def downgrade(self) -> str:
        ours = self.wanted.version if self.wanted else ""
        return f"nixprov {self.newer} installed another module there, and this is the older {ours}"


def plan_up(
    spec: HostSpec, facts: Facts, journal: Journal, server: Server, view: View, *, new_tokens: bool = False
) -> HostPlan:
    """Raises HostRefused, HookRefused, for a reason that stops `up` before any change."""
    facts.require_nixos()
    runners = tuple(view.to_have(spec, facts.machine, _held(facts, journal), renew=new_tokens))
    records = {action.name: _expected_record(action, journal, server.url) for action in runners if _is_wanted(action)}
    wanted = build(spec, server, records)
    steps = tuple(_step_actions(wanted, facts, journal))
    switch = _why_switch(wanted, facts, journal, steps)
    newer = newer_writer(wanted, facts, journal)
    return HostPlan(spec.name, server.words, runners, steps, switch, wanted, newer)


def require_no_downgrade(plan: HostPlan) -> None:
    """Raises HostRefused: two operators with two versions would undo each other's work for ever."""
    if plan.newer:
        hint = f"upgrade nixprov here to {plan.newer}; if the older module is meant, say --downgrade"
        raise HostRefused(plan.host, plan.downgrade, hint=hint)


def plan_down(spec: HostSpec, facts: Facts, journal: Journal, server: Server, view: View | None) -> HostPlan:
    """All that is left of ours, on the host and at the provider; `view` is None for a silent provider.

    A system without anything of ours is its owner's. Our files that feed the next one go, and nothing is built or
    switched.
    """
    steps = tuple(
        StepAction(step.name, what)
        for step in reversed(STEPS)
        for what in [_some(step.remains(facts, journal))]
        if what
    )
    runners = tuple(view.to_lose()) if view else ()
    switch = "the system contains our module" if facts.has_ours else ""
    return HostPlan(spec.name, server.words, runners, steps, switch)


def _some(things: Sequence[str]) -> str:
    """A line short enough to read: the module alone is some twenty files."""
    shown = ", ".join(things[:_NAMED])
    return f"{shown} and {len(things) - _NAMED} more" if len(things) > _NAMED else shown


def _is_wanted(action: RunnerAction) -> bool:
    return action.verb is not RunnerVerb.DELETE


def _expected_record(action: RunnerAction, journal: Journal, url: str) -> RunnerRecord:
    known = journal.runners.get(action.name)
    version = NO_TOKEN if action.verb.makes_a_token or known is None else known.token_version
    return RunnerRecord(action.id or 0, url, version)


def _held(facts: Facts, journal: Journal) -> dict[str, Held]:
    """The runner of each credential on the host, by the journal, which was written with it."""
    return {
        name: Held(record.id, record.token_version != NO_TOKEN and has_token(facts, name))
        for name, record in journal.runners.items()
    }


def _step_actions(wanted: Wanted, facts: Facts, journal: Journal) -> list[StepAction]:
    actions = []
    for step in STEPS:
        comparison = step.compare(wanted, facts, journal)
        if comparison.state is State.FOREIGN:
            raise HookRefused(facts.host, comparison.why, hint="move it away, or take the host out of the inventory")
        if not comparison.is_present:
            actions.append(StepAction(step.name, comparison.why or comparison.state.value))
    return actions


def _why_switch(wanted: Wanted, facts: Facts, journal: Journal, steps: Sequence[StepAction]) -> str:
    feeding = {step.name for step in STEPS if step.feeds_system}
    if any(action.step in feeding for action in steps):
        return "the configuration changed"
    if facts.revision != wanted.revision:
        return "the running system was not built from it"
    if facts.revision_at_boot != wanted.revision:
        return "the next boot would not have it"
    if journal.phase is not Phase.CONFIRMED:
        return f"the last run was not finished ({journal.phase.value})"
    broken = [name for name in unit_names(wanted.host) if not (unit := facts.unit(name)) or not unit.is_active]
    return f"{broken[0]} is not active" if broken else ""


def unit_names(spec: HostSpec) -> tuple[str, ...]:
    return tuple(f"nixprov-runner-{runner.name}.service" for runner in spec.runners)


@dataclass(frozen=True, slots=True)
class FileChange:
    """One declared file before and after; None for a missing one. Never holds a secret."""

    path: str
    before: bytes | None
    after: bytes | None


def hook_of(plan: HostPlan, facts: Facts, journal: Journal) -> Hook:
    """The way into the configuration: the host's own for `up`, the one used to install the module for `down`."""
    return choose(facts) if plan.wanted is not None else installed(journal)


def file_changes(plan: HostPlan, facts: Facts, journal: Journal) -> tuple[FileChange, ...]:
    """The texts behind a plan, for --diff: the files that `up` writes, or that `down` removes before its switch."""
    if plan.wanted is not None:
        parts = [part for step in STEPS for part in step.write(plan.wanted, facts, journal)]
    else:
        parts = [part for step in STEPS if step.feeds_system for part in step.remove(facts, journal)]
    return changes_of(parts, facts, hook_of(plan, facts, journal))


def changes_of(parts: Sequence[Part], facts: Facts, hook: Hook) -> tuple[FileChange, ...]:
    """The changes that a transaction's parts make to files declared by steps."""
    changed = ((_as_known(part.path, facts, hook), part) for part in parts if isinstance(part, WriteFile | RemoveFile))
    declared = tuple(things())
    return tuple(
        FileChange(path, facts.records.get(f"{thing.record_of(path)}.data"), _after(part))
        for path, part in changed
        if (thing := asking(path, declared)) and not thing.is_secret
    )


def edits(changes: Sequence[FileChange], hook: Hook) -> dict[str, bytes | None]:
    """The configuration's files as they would be, by path, for a look at the system to come."""
    return {change.path: change.after for change in changes if change.path.startswith(f"{hook.folder}/")}


def _as_known(path: str, facts: Facts, hook: Hook) -> str:
    """The path as people know it where the configuration's folder is a link."""
    real = f"{hook.real_folder(facts)}/"
    return f"{hook.folder}/{path.removeprefix(real)}" if path.startswith(real) else path


def _after(part: WriteFile | RemoveFile) -> bytes | None:
    return part.content if isinstance(part, WriteFile) and not isinstance(part.content, Secret) else None
