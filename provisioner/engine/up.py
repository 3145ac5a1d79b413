"""`up` for one host: probe, plan, create, write, build and switch, confirm; unwind on any failure after a change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from provisioner.engine.host import HostRun, wait_until
from provisioner.engine.look import look, mark
from provisioner.engine.unwind import RolledBack, unwind
from provisioner.errors import ForgeUnavailable, NixprovError, SwitchFailed
from provisioner.hosts import switch
from provisioner.hosts.journal import Baseline, Journal, Phase, RunnerRecord
from provisioner.hosts.script import Shell
from provisioner.hosts.switch import SwitchResult
from provisioner.model import Registration, RunnerStatus, Secret
from provisioner.plan import HostPlan, RunnerAction, RunnerVerb, plan_up, unit_names
from provisioner.steps import STEPS
from provisioner.steps.hook import Hook
from provisioner.steps.wanted import build


def plan(run: HostRun) -> HostPlan:
    """Probe and plan; changes nothing. Raises HostError, ForgeError."""
    run.phase("probe")
    run.probe()
    run.phase("plan")
    view = look(run.forge, run.spec, run.facts, run.journal)
    return plan_up(run.spec, run.facts, run.journal, view)


def apply(run: HostRun, wanted: HostPlan) -> None:
    """Make the plan true, or the host as it was. Raises RolledBack with the cause, or what unwinding itself met."""
    made = _Made()
    before = (run.facts, run.journal)
    try:
        _forge_changes(run, wanted, made)
        if wanted.changes_host or made.records:
            _host_changes(run, wanted, made)
        _delete_surplus(run, wanted)
    except NixprovError as error:
        if not made.anything:
            raise
        run.phase("unwind")
        unwind(run, *before, created=tuple(made.created))
        raise RolledBack(run.host, error) from error


@dataclass(slots=True)
class _Made:
    """What this run has done so far, for unwinding."""

    created: list[int] = field(default_factory=list)
    records: dict[str, RunnerRecord] = field(default_factory=dict)
    tokens: dict[str, Secret] = field(default_factory=dict)
    wrote: bool = False

    @property
    def anything(self) -> bool:
        return self.wrote or bool(self.created)


def _forge_changes(run: HostRun, wanted: HostPlan, made: _Made) -> None:
    """Creations and updates; deletions wait until the host is confirmed. Tokens stay in memory only."""
    if wanted.forge_changes:
        run.phase("create")
    specs = {runner.name: runner for runner in run.spec.runners}
    for action in wanted.forge_changes:
        if action.verb.makes_a_token:
            _remember(run, action, _token(run, action, made), made)
        if action.id is not None and action.differences:
            run.forge.update(action.id, specs[action.name], mark(run.spec, action.name, run.facts))


def _token(run: HostRun, action: RunnerAction, made: _Made) -> Registration:
    if action.id is not None:
        return run.forge.reset_token(action.id)
    spec = next(runner for runner in run.spec.runners if runner.name == action.name)
    registration = run.forge.create(spec, mark(run.spec, action.name, run.facts))
    made.created.append(registration.id)
    return registration


def _remember(run: HostRun, action: RunnerAction, registration: Registration, made: _Made) -> None:
    made.records[action.name] = RunnerRecord(registration.id, run.forge.url, run.run.id)
    made.tokens[action.name] = registration.token


def _host_changes(run: HostRun, plan: HostPlan, made: _Made) -> None:
    wanted = build(run.spec, run.forge.url, _records(run, made), made.tokens)
    parts = [part for step in STEPS for part in step.write(wanted, run.facts, run.journal)]
    needs_switch = bool(plan.switch or made.records)
    journal = _intent(run, made, Phase.WRITTEN if needs_switch else Phase.CONFIRMED)
    if needs_switch:
        parts += [
            Shell("systemctl reset-failed 'nixprov-*' 2>/dev/null || :"),
            *switch.start("switch", wanted.revision),
        ]
    run.phase("write")
    made.wrote = True
    run.transact(parts, journal)
    if needs_switch:
        _switch(run)
        _confirm(run)


def _records(run: HostRun, made: _Made) -> Mapping[str, RunnerRecord]:
    names = [runner.name for runner in run.spec.runners]
    return {name: made.records.get(name) or run.journal.runners[name] for name in names}


def _intent(run: HostRun, made: _Made, phase: Phase) -> Journal:
    """The journal before the files: what was there, and what is meant."""
    hook = run.journal.hook or Hook().record(run.facts)
    baseline = run.journal.baseline or Baseline(run.facts.generation, run.facts.system)
    return run.journal_for(phase, hook=hook, baseline=baseline, runners=_records(run, made))


def _switch(run: HostRun) -> None:
    run.phase("switch")
    result = run.follow()
    if not (result.is_done or result.only_units_failed):
        raise switch_error(run, result)
    if result.only_units_failed:
        # Ours are asked for one by one afterwards; what else failed is said, and is no reason to go back.
        run.emit("warning", text="some units failed during the switch; nixprov's own are checked next")


def switch_error(run: HostRun, result: SwitchResult) -> SwitchFailed:
    hint = "nixos-rebuild build on the host shows the whole error" if result.phase == "build" else ""
    return SwitchFailed(run.host, result.explain(), hint=hint)


def _confirm(run: HostRun) -> None:
    """The units are active and GitLab has been asked for jobs by them; only then the intents become receipts."""
    run.phase("confirm")
    units = unit_names(run.spec)
    guard = switch.confirm(units, run.limits.unit_s)
    waiting = dict(run.journal.runners)
    if not wait_until(run, run.limits.contact_s, lambda: _all_seen(run, waiting)):
        run.transact((), None, guard=guard)
        names = ", ".join(sorted(waiting))
        raise ForgeUnavailable(
            f"GitLab at {run.forge.url} was not polled by runner {names} within {run.limits.contact_s:g} s",
            hint=f"can the host reach it? see journalctl -u {units[0]}",
        )
    run.transact((), replace(run.journal, phase=Phase.CONFIRMED), guard=guard)


def _all_seen(run: HostRun, waiting: dict[str, RunnerRecord]) -> bool:
    """Drop from `waiting` those that have asked GitLab for jobs.

    A manager is online only after that: verifying a token sets its time of contact too, and leaves it "never contacted"
    (app/models/ci/runner_manager.rb). It is proof for a runner made in this run; an older one may have been online
    before, and its times cannot be compared with now, as GitLab writes them down every 40 to 55 minutes only.
    """
    for name, record in list(waiting.items()):
        if any(manager.status is RunnerStatus.ONLINE for manager in run.forge.managers(record.id)):
            del waiting[name]
    return not waiting


def _delete_surplus(run: HostRun, wanted: HostPlan) -> None:
    for action in wanted.forge_changes:
        if action.verb is RunnerVerb.DELETE and action.id is not None:
            run.forge.delete(action.id)
