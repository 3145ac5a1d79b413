"""What `up` and `down` would change, and why: pure decisions from (wanted, facts, GitLab's view, journal).

No I/O here, and no clock: the same answers give the same plan. `forge.compare` says how two runners differ; the steps
say how a host differs; this file puts both together and decides what follows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from provisioner.errors import HookRefused, HostRefused
from provisioner.forge.compare import Difference, differences
from provisioner.hooks import Hook, choose, installed
from provisioner.machine.facts import Facts
from provisioner.machine.journal import NO_TOKEN, Journal, Phase, RunnerRecord
from provisioner.machine.things import asking
from provisioner.machine.transaction import Part, RemoveFile, WriteFile
from provisioner.model import ForgeRunner, HostSpec, Mark, RunnerSpec, Secret
from provisioner.steps import STEPS, State, Wanted, things
from provisioner.steps.module import newer_writer
from provisioner.steps.secrets import has_token
from provisioner.steps.wanted import build

_NAMED = 3


class RunnerVerb(Enum):
    KEEP = "keep"
    CREATE = "create"
    UPDATE = "update"
    RESET_TOKEN = "reset token"  # noqa: S105 - a verb
    DELETE = "delete"

    @property
    def makes_a_token(self) -> bool:
        return self in (RunnerVerb.CREATE, RunnerVerb.RESET_TOKEN)


@dataclass(frozen=True, slots=True)
class RunnerAction:
    """What to do with one runner in GitLab; `id` is None when it is still to be created."""

    name: str
    verb: RunnerVerb
    why: str = ""
    id: int | None = None
    differences: tuple[Difference, ...] = ()


@dataclass(frozen=True, slots=True)
class StepAction:
    step: str
    why: str


@dataclass(frozen=True, slots=True)
class HostPlan:
    """All that would change for one host; `switch` says why the system must be built and activated, or is empty.

    `newer`: the version of a newer nixprov, in the place of whose module ours would come; empty for no downgrade.
    """

    host: str
    runners: tuple[RunnerAction, ...]
    steps: tuple[StepAction, ...]
    switch: str = ""
    wanted: Wanted | None = None
    newer: str = ""

    @property
    def forge_changes(self) -> tuple[RunnerAction, ...]:
        return tuple(action for action in self.runners if action.verb is not RunnerVerb.KEEP)

    @property
    def changes_host(self) -> bool:
        return bool(self.steps or self.switch)

    @property
    def leads_to_switch(self) -> bool:
        """A new token is a change of the system too, whatever else is as wanted."""
        return bool(self.switch) or any(action.verb.makes_a_token for action in self.runners)

    @property
    def is_empty(self) -> bool:
        return not (self.forge_changes or self.changes_host)

    def lines(self) -> tuple[str, ...]:
        """For people, one change a line."""
        runners = [f"gitlab: {action.verb.value} runner {action.name}: {action.why}" for action in self.forge_changes]
        steps = [f"{action.step}: {action.why}" for action in self.steps]
        downgrade = [f"downgrade: {self.downgrade}"] if self.newer else []
        return (*downgrade, *runners, *steps, *([f"switch: {self.switch}"] if self.switch else []))

    @property
    def downgrade(self) -> str:
        ours = self.wanted.version if self.wanted else ""
        return f"nixprov {self.newer} installed another module there, and this is the older {ours}"


@dataclass(frozen=True, slots=True)
class ForgeView:
    """What GitLab knows of a host: runners with its mark by runner name, and those that are marked but not wanted."""

    url: str
    found: Mapping[str, Sequence[ForgeRunner]]
    surplus: Sequence[ForgeRunner] = ()


def plan_up(spec: HostSpec, facts: Facts, journal: Journal, view: ForgeView, *, new_tokens: bool = False) -> HostPlan:
    """Raises HostRefused, HookRefused: what stops `up` before anything is touched."""
    facts.require_nixos()
    runners = [action for runner in spec.runners for action in _runner_actions(spec, runner, facts, journal, view)]
    if new_tokens:
        runners = [_with_new_token(action) for action in runners]
    runners += [
        RunnerAction(_runner_name(runner), RunnerVerb.DELETE, "no longer wanted on this host", runner.id)
        for runner in view.surplus
    ]
    records = {action.name: _expected_record(action, journal, view.url) for action in runners if _is_wanted(action)}
    wanted = build(spec, view.url, records)
    steps = tuple(_step_actions(wanted, facts, journal))
    switch = _why_switch(wanted, facts, journal, steps)
    return HostPlan(spec.name, tuple(runners), steps, switch, wanted, newer_writer(wanted, facts, journal))


def require_no_downgrade(plan: HostPlan) -> None:
    """Raises HostRefused: two operators with two versions would undo each other for ever."""
    if plan.newer:
        hint = f"upgrade nixprov here to {plan.newer}; if the older module is meant, say --downgrade"
        raise HostRefused(plan.host, plan.downgrade, hint=hint)


def plan_down(spec: HostSpec, facts: Facts, journal: Journal, view: ForgeView) -> HostPlan:
    """Everything of ours that is left, on the host and in GitLab.

    A system that has nothing of ours is its owner's: what feeds the next one goes, and nothing is built or switched.
    """
    known = [runner for found in view.found.values() for runner in found] + list(view.surplus)
    runners = tuple(
        RunnerAction(_runner_name(runner), RunnerVerb.DELETE, f"id {runner.id}", runner.id)
        for runner in {runner.id: runner for runner in known}.values()
    )
    steps = tuple(
        StepAction(step.name, what)
        for step in reversed(STEPS)
        for what in [_some(step.remains(facts, journal))]
        if what
    )
    return HostPlan(spec.name, runners, steps, "the system contains our module" if facts.has_ours else "")


def _some(things: Sequence[str]) -> str:
    """A line that can be read: the module alone is some twenty files."""
    shown = ", ".join(things[:_NAMED])
    return f"{shown} and {len(things) - _NAMED} more" if len(things) > _NAMED else shown


def _runner_actions(
    spec: HostSpec, runner: RunnerSpec, facts: Facts, journal: Journal, view: ForgeView
) -> list[RunnerAction]:
    """The action for one wanted runner, and the deletion of its doubles (two creates, one reply lost)."""
    record = journal.runners.get(runner.name)
    candidates = sorted(
        view.found.get(runner.name, ()), key=lambda found: (record is None or found.id != record.id, found.id)
    )
    same_type = [found for found in candidates if found.type is runner.type]
    if not same_type:
        why = "its type changed" if candidates else "GitLab has none with this host's mark"
        return [RunnerAction(runner.name, RunnerVerb.CREATE, why), *_doubles(runner.name, candidates)]
    kept = same_type[0]
    others = [found for found in candidates if found is not kept]
    return [_for_existing(spec, runner, kept, facts, record), *_doubles(runner.name, others)]


def _for_existing(
    spec: HostSpec, runner: RunnerSpec, kept: ForgeRunner, facts: Facts, record: RunnerRecord | None
) -> RunnerAction:
    changes = differences(runner, Mark(spec.name, runner.name, facts.machine), kept)
    is_kept = record is not None and record.id == kept.id and record.token_version != NO_TOKEN
    if not (is_kept and has_token(facts, runner.name)):
        why = "its token is not on the host and GitLab shows it only once"
        return RunnerAction(runner.name, RunnerVerb.RESET_TOKEN, why, kept.id, changes)
    if changes:
        return RunnerAction(runner.name, RunnerVerb.UPDATE, ", ".join(map(str, changes)), kept.id, changes)
    return RunnerAction(runner.name, RunnerVerb.KEEP, id=kept.id)


def _with_new_token(action: RunnerAction) -> RunnerAction:
    if action.verb in (RunnerVerb.KEEP, RunnerVerb.UPDATE):
        return replace(action, verb=RunnerVerb.RESET_TOKEN, why="a new token was asked for")
    return action


def _doubles(name: str, runners: Sequence[ForgeRunner]) -> list[RunnerAction]:
    return [RunnerAction(name, RunnerVerb.DELETE, f"id {found.id} has the same mark", found.id) for found in runners]


def _is_wanted(action: RunnerAction) -> bool:
    return action.verb is not RunnerVerb.DELETE


def _expected_record(action: RunnerAction, journal: Journal, url: str) -> RunnerRecord:
    known = journal.runners.get(action.name)
    version = NO_TOKEN if action.verb.makes_a_token or known is None else known.token_version
    return RunnerRecord(action.id or 0, url, version)


def _runner_name(runner: ForgeRunner) -> str:
    return runner.mark.runner if runner.mark else str(runner.id)


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
    """One declared file before and after; None where it does not exist. Secrets are never in here."""

    path: str
    before: bytes | None
    after: bytes | None


def hook_of(plan: HostPlan, facts: Facts, journal: Journal) -> Hook:
    """The way into the configuration: for `up` that of the host, for `down` what put the module in."""
    return choose(facts) if plan.wanted is not None else installed(journal)


def file_changes(plan: HostPlan, facts: Facts, journal: Journal) -> tuple[FileChange, ...]:
    """The texts behind a plan, for --diff: what `up` would write, or what `down` would remove before its switch."""
    if plan.wanted is not None:
        parts = [part for step in STEPS for part in step.write(plan.wanted, facts, journal)]
    else:
        parts = [part for step in STEPS if step.feeds_system for part in step.remove(facts, journal)]
    return changes_of(parts, facts, hook_of(plan, facts, journal))


def changes_of(parts: Sequence[Part], facts: Facts, hook: Hook) -> tuple[FileChange, ...]:
    """What a transaction's parts would change of all files that steps declare."""
    changed = ((_as_known(part.path, facts, hook), part) for part in parts if isinstance(part, WriteFile | RemoveFile))
    declared = tuple(things())
    return tuple(
        FileChange(path, facts.records.get(f"{thing.record_of(path)}.data"), _after(part))
        for path, part in changed
        if (thing := asking(path, declared)) and not thing.is_secret
    )


def edits(changes: Sequence[FileChange], hook: Hook) -> dict[str, bytes | None]:
    """The configuration's files as they would be, by their paths, for a look at what comes of them."""
    return {change.path: change.after for change in changes if change.path.startswith(f"{hook.folder}/")}


def _as_known(path: str, facts: Facts, hook: Hook) -> str:
    """The path as people know it where the configuration's folder is a link."""
    real = f"{hook.real_folder(facts)}/"
    return f"{hook.folder}/{path.removeprefix(real)}" if path.startswith(real) else path


def _after(part: WriteFile | RemoveFile) -> bytes | None:
    return part.content if isinstance(part, WriteFile) and not isinstance(part.content, Secret) else None
