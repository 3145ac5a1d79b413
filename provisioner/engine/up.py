"""`up` for one host: probe, plan, create, write, build and switch, confirm; unwind on any failure after a change."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from provisioner.engine import crash, overtaken
from provisioner.engine.host import Detached, DetachedByUser, HostRun, wait_until
from provisioner.engine.look import look, mark
from provisioner.engine.undo import undo
from provisioner.engine.unwind import RolledBack, release, restarts, unwind
from provisioner.errors import (
    ForgeRefused,
    ForgeUnavailable,
    HostRefused,
    Locked,
    NixprovError,
    NothingChanged,
    SwitchFailed,
)
from provisioner.machine import preflight, switch, trust
from provisioner.machine.facts import Facts
from provisioner.machine.journal import Baseline, Journal, Phase, RunnerRecord
from provisioner.machine.switch import SwitchResult
from provisioner.machine.transaction import Part, Shell, Transaction
from provisioner.model import Registration, RunnerStatus, Secret
from provisioner.plan import HostPlan, RunnerAction, RunnerVerb, plan_up, require_no_downgrade, unit_names
from provisioner.steps import STEPS, Wanted
from provisioner.steps.hook import Hook
from provisioner.steps.module import has_bodies, written_by
from provisioner.steps.wanted import build

# What every job needs and no runner waits for: without it jobs would be taken, and fail.
_FOUNDATION: Final = (
    *("nixprov-image.service", "nixprov-podman.socket", "nixprov-network.service", "nixprov-docker-network.service"),
    *("nixprov-nix-daemon.socket", "nixprov-nix-jobs.socket", "nixprov-nix-shared.socket", "nixprov-counters.socket"),
)
RESET_FAILED: Final = "systemctl reset-failed 'nixprov-*' 2>/dev/null || :"


def plan(run: HostRun) -> HostPlan:
    """Probe and plan; changes nothing, but for a dead run's switch that `up` ends. Raises HostError, ForgeError."""
    run.settle()
    run.phase("plan")
    view = look(run.forge, run.spec, run.facts, run.journal)
    wanted = plan_up(run.spec, run.facts, run.journal, view, new_tokens=run.choices.new_tokens)
    run.warn_of_trust()
    if not run.choices.downgrade:
        require_no_downgrade(wanted)
    if wanted.changes_host:
        for text in preflight.warnings(run.facts.records, run.spec.module.engine):
            run.warn(text)
    for problem, advice in _objections(run, wanted):
        raise HostRefused(run.host, problem, hint=advice)
    return wanted


def _objections(run: HostRun, wanted: HostPlan) -> Iterator[tuple[str, str]]:
    module = run.spec.module
    if wanted.changes_host:
        yield from trust.problems(module.trust, run.facts)
    # Also where nothing is to be changed: the host's owner may have taken an older Nix since.
    if refusal := run.flaws.refusal():
        yield refusal
    if wanted.changes_host:
        yield from preflight.problems(run.facts.records, time.time(), module.engine)


def apply(run: HostRun, wanted: HostPlan) -> None:
    """Make the plan true, or the host as it was. Raises RolledBack with the cause, or what unwinding itself met.

    ForgeError of a runner that is no longer wanted and cannot be deleted: the host is as wanted then.
    """
    made = _Made()
    before = (run.facts, run.journal)
    try:
        _change(run, wanted, made)
    except (Detached, DetachedByUser):
        raise  # the switch goes on without us
    except Locked:
        _overtaken(run, made)
        raise
    except NixprovError as error:
        _take_back(run, made, before)
        if not made.anything:
            raise
        raise RolledBack(run.host, error) from error
    # The host is as wanted by now, and stays so whatever GitLab says to this: the next run finds what is left.
    _delete_surplus(run, wanted)


def _take_back(run: HostRun, made: _Made, before: tuple[Facts, Journal]) -> None:
    for action in made.updated:
        told = ", ".join(map(str, action.differences))
        run.warn(f"runner {action.name} keeps in GitLab what this run changed there: {told}")
    try:
        if made.wrote:
            unwind(run, *before, created=made.created, replaced={*made.ended, *made.records})
        elif made.claimed:
            release(run, before[1], created=made.created, replaced=made.ended)
    except Locked:
        _overtaken(run, made)
        raise


def _overtaken(run: HostRun, made: _Made) -> None:
    """The host is another operator's, and we would be in their way; in GitLab is what we made and they do not know."""
    overtaken.give_back(run, made.created)
    for name, record in made.records.items():
        if record.id not in made.created:
            text = f"the token of runner {name} was replaced by this run too"
            run.warn(f"{text}; if GitLab is polled no more, `nixprov up --new-tokens` mends it")


def _change(run: HostRun, wanted: HostPlan, made: _Made) -> None:
    makes_tokens = any(action.verb.makes_a_token for action in wanted.forge_changes)
    if wanted.changes_host or makes_tokens:
        # What was there before is known from now on, whatever becomes of us; a token that is to go counts as gone.
        phase = Phase.CLAIMED if not run.journal.phase.has_installed else run.journal.phase
        ending = [action.name for action in wanted.forge_changes if action.verb.makes_a_token]
        run.claim(phase, **_found(run), runners=run.journal.without_tokens(ending).runners)
        made.claimed = True
    _forge_changes(run, wanted, made)
    if wanted.changes_host or made.records:
        _host_changes(run, wanted, made)


@dataclass(slots=True)
class _Made:
    """What this run has done so far, for unwinding; `ended`: runners whose token before is not to be relied on."""

    created: list[int] = field(default_factory=list)
    ended: set[str] = field(default_factory=set)
    records: dict[str, RunnerRecord] = field(default_factory=dict)
    tokens: dict[str, Secret] = field(default_factory=dict)
    updated: list[RunnerAction] = field(default_factory=list)
    claimed: bool = False
    wrote: bool = False

    @property
    def anything(self) -> bool:
        return self.wrote or bool(self.records)


def _forge_changes(run: HostRun, wanted: HostPlan, made: _Made) -> None:
    """Creations and updates; deletions wait until the host is confirmed. Tokens stay in memory only."""
    if wanted.forge_changes:
        run.phase("create")
    specs = {runner.name: runner for runner in run.spec.runners}
    for action in wanted.forge_changes:
        if action.verb.makes_a_token:
            _remember(run, action, _token(run, action, made), made)
        if action.id is not None and action.differences:
            with crash.around("update"):
                run.forge.update(action.id, specs[action.name], mark(run.spec, action.name, run.facts))
            made.updated.append(action)


def _token(run: HostRun, action: RunnerAction, made: _Made) -> Registration:
    if action.id is not None:
        return _reset(run, action.name, action.id, made)
    spec = next(runner for runner in run.spec.runners if runner.name == action.name)
    with crash.around("create", spec.name):
        registration = run.forge.create(spec, mark(run.spec, action.name, run.facts))
    made.created.append(registration.id)
    return registration


def _reset(run: HostRun, name: str, runner: int, made: _Made) -> Registration:
    # Unless GitLab says no: an answer that is lost may be that of a reset that was done.
    made.ended.add(name)
    try:
        with crash.around("reset"):
            return run.forge.reset_token(runner)
    except ForgeRefused:
        made.ended.discard(name)
        raise


def _remember(run: HostRun, action: RunnerAction, registration: Registration, made: _Made) -> None:
    made.records[action.name] = RunnerRecord(registration.id, run.forge.url, run.run.id)
    made.tokens[action.name] = registration.token


def _host_changes(run: HostRun, plan: HostPlan, made: _Made) -> None:
    wanted = build(run.spec, run.forge.url, _records(run, made), made.tokens)
    parts = [part for step in STEPS for part in step.write(wanted, run.facts, run.journal)]
    needs_switch = bool(plan.switch or made.records)
    journal = _intent(run, wanted, made, Phase.WRITTEN if needs_switch else Phase.CONFIRMED)
    if needs_switch:
        parts = with_switch(run, wanted.revision, [*parts, Shell(RESET_FAILED)], journal)
    run.phase("write")
    try:
        made.wrote = True
        with crash.around("write"):
            run.transact("write", parts, journal, keep=needs_switch)
    except NothingChanged:
        made.wrote = False
        raise
    if needs_switch:
        _confirm(run, _switch(run))


def with_switch(run: HostRun, revision: str, parts: Sequence[Part], journal: Journal) -> list[Part]:
    """`parts`, and after them the switch; before them the way back: `parts` turned round, as one more transaction."""
    confirm_s = run.limits.confirm_s
    back = _way_back(run, parts, journal) if confirm_s else None
    started = switch.start("switch", revision, confirm_s=confirm_s, crash=crash.in_unit())
    return [*switch.push(back), *parts, started]


def _way_back(run: HostRun, parts: Sequence[Part], journal: Journal) -> bytes:
    """What the host needs to give its files back alone, whoever is gone: the network, the operator, its power."""
    renewed = [name for name, record in journal.runners.items() if record.token_version == run.run.id]
    back = (*undo(parts, run.facts), *restarts(renewed))
    gone_back = replace(journal, phase=Phase.WENT_BACK, nixprov=run.journal.nixprov)
    return Transaction(back, journal.written().sha256, gone_back.render(), wait_s=60).script()


def _records(run: HostRun, made: _Made) -> Mapping[str, RunnerRecord]:
    names = [runner.name for runner in run.spec.runners]
    return {name: made.records.get(name) or run.journal.runners[name] for name in names}


def _intent(run: HostRun, wanted: Wanted, made: _Made, phase: Phase) -> Journal:
    """The journal before the files: what was there, and what is meant."""
    records = _records(run, made)
    used = {record.id for record in records.values()}
    pending = tuple(record for record in run.journal.pending_deletions if record.id not in used)
    writer = _writer(run, wanted)
    return run.journal_for(phase, **_found(run), nixprov=writer, runners=records, pending_deletions=pending)


def _writer(run: HostRun, wanted: Wanted) -> str:
    """Whoever wrote these bodies first: a newer nixprov that found nothing to change in them shuts nobody out."""
    first = written_by(run.facts, run.journal) if has_bodies(wanted, run.facts) else ""
    return first or wanted.version


def _found(run: HostRun) -> Mapping[str, object]:
    """What was there before the first run of ours, and before this one."""
    hook = run.journal.hook or Hook().record(run.facts)
    baseline = run.journal.baseline or Baseline(run.facts.generation, run.facts.system)
    return {"hook": hook, "baseline": baseline, "checked": run.checked or run.journal.checked}


def _switch(run: HostRun) -> SwitchResult:
    run.phase("switch")
    with crash.around("follow"):
        result = run.follow()
    if not (result.is_done or result.only_units_failed):
        raise switch_error(run, result)
    if broken := next((unit for unit in result.failed if unit in _FOUNDATION), None):
        hint = f"journalctl -u {broken} on the host tells why"
        raise SwitchFailed(run.host, f"{broken} did not start, and every job needs it", hint=hint)
    if result.only_units_failed:
        _name_strangers(run, result)
    return result


def _name_strangers(run: HostRun, result: SwitchResult) -> None:
    """Somebody else's unit is said and is no reason to go back; ours are asked for one by one when we confirm."""
    before = set(run.facts.failed_units)
    strangers = [unit for unit in result.failed if not unit.startswith("nixprov-")]
    for since, units in (
        ("were failed before this run too", [unit for unit in strangers if unit in before]),
        ("fail since this switch", [unit for unit in strangers if unit not in before]),
    ):
        if units:
            run.warn(f"units that are not ours {since}, and are left as they are: {', '.join(units)}")


def switch_error(run: HostRun, result: SwitchResult) -> SwitchFailed:
    hint = "nixos-rebuild build on the host shows the whole error" if result.phase == "build" else ""
    hint = "wait for the other switch to end, then run again" if result.is_busy else hint
    return SwitchFailed(run.host, result.explain(), hint=hint)


def _confirm(run: HostRun, result: SwitchResult) -> None:
    """The units are active and GitLab has been asked for jobs by them; only then the intents become receipts."""
    run.phase("confirm")
    units = unit_names(run.spec)
    contact = _Contact(run, dict(run.journal.runners))
    first_s = min(run.limits.contact_s, run.limits.unit_s)
    with crash.around("contact"):
        polled = contact.within(first_s)
    if result.waits:
        run.login_again()
    if not polled:
        # One that has died by now is not waited for any longer.
        contact.require_active(units)
        polled = contact.within(run.limits.contact_s - first_s)
    if not polled:
        raise contact.failure(units)
    run.commit(Phase.CONFIRMED, switch.confirm(units, run.limits.unit_s), keep=False)


@dataclass(slots=True)
class _Contact:
    """Which runners have not asked GitLab for jobs yet; `silence`: why GitLab does not tell us just now."""

    run: HostRun
    waiting: dict[str, RunnerRecord]
    silence: ForgeUnavailable | None = None

    def within(self, limit_s: float) -> bool:
        return wait_until(self.run, limit_s, self._all_seen)

    def _all_seen(self) -> bool:
        """Drop from `waiting` those that have asked; that GitLab does not answer us is no verdict.

        A manager is online only after that: verifying a token sets its time of contact too, and leaves it "never
        contacted" (app/models/ci/runner_manager.rb). It is proof for a runner made in this run; an older one may have
        been online before, and its times cannot be compared with now: GitLab writes them down every 40 to 55 minutes.
        """
        try:
            for name, record in list(self.waiting.items()):
                if any(manager.status is RunnerStatus.ONLINE for manager in self.run.forge.managers(record.id)):
                    del self.waiting[name]
            self.silence = None
        except ForgeUnavailable as error:
            self.silence = error
        return not self.waiting

    def require_active(self, units: Sequence[str]) -> None:
        """Raises SwitchFailed with a unit's last lines, which explain it better than that nobody polled.

        That GitLab does not answer us says nothing of the unit, which the host may have stopped again by now.
        """
        if self.silence is None:
            self.run.script(switch.active(units, 1))

    def failure(self, units: Sequence[str]) -> ForgeUnavailable:
        self.require_active(units)
        names, limits = ", ".join(sorted(self.waiting)), self.run.limits
        return self.silence or ForgeUnavailable(
            f"GitLab at {self.run.forge.url} was not polled by runner {names} within {limits.contact_s:g} s",
            hint=f"can the host reach it? see journalctl -u {units[0]}",
        )


def _delete_surplus(run: HostRun, wanted: HostPlan) -> None:
    for action in wanted.forge_changes:
        if action.verb is RunnerVerb.DELETE and action.id is not None:
            with crash.around("surplus"):
                run.forge.delete(action.id)
