"""`up` for one host: a runner of GitLab when all went well, and what it was before when anything did not."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from provisioner.engine import crash, origin, preview
from provisioner.engine.host import Host
from provisioner.engine.look import look
from provisioner.engine.settle import settle
from provisioner.engine.switch import Switch
from provisioner.engine.unwind import unwind
from provisioner.errors import ForgeRefused, ForgeUnavailable, HostRefused, SwitchFailed
from provisioner.machine import preflight, trust
from provisioner.machine.flaws import Flaws
from provisioner.machine.journal import Baseline, Journal, Phase, RunnerRecord
from provisioner.machine.switch import SwitchResult
from provisioner.machine.transaction import Shell
from provisioner.model import Registration, RunnerStatus
from provisioner.plan import RunnerAction, RunnerVerb, plan_up, require_no_downgrade, unit_names
from provisioner.steps import STEPS, Wanted
from provisioner.steps.hook import Hook
from provisioner.steps.module import has_bodies, written_by
from provisioner.steps.wanted import build
from provisioner.verbs.phases import Change, Finish, Look, Phases, Unwind

PHASES: Final = Phases(
    lambda: (
        Look("probe", settle, commands=1),
        Look("plan", plan),
        Look("own", origin.look, when=origin.is_asked, commands=1),
        Look("evaluate", preview.evaluate, when=preview.is_evaluated, commands=1),
        Look("build", preview.build, when=preview.is_built, commands=1),
        Change("claim", claim, when=needs_claim, commands=1),
        Change("create", enrol, when=changes_runners),
        Change("write", write, when=changes_host, commands=1),
        Change("switch", activate, when=needs_switch, commands=1),
        Change("confirm", confirm, when=needs_switch, commands=2),
        Unwind("unwind", unwind, when=has_to_unwind, commands=3),
        Finish("delete", withdraw_surplus, when=has_surplus),
    )
)

# What every job needs and no runner waits for: without it jobs would be taken, and fail.
_FOUNDATION: Final = (
    *("nixprov-image.service", "nixprov-podman.socket", "nixprov-network.service", "nixprov-docker-network.service"),
    *("nixprov-nix-daemon.socket", "nixprov-nix-jobs.socket", "nixprov-nix-shared.socket", "nixprov-counters.socket"),
)
_RESET_FAILED: Final = "systemctl reset-failed 'nixprov-*' 2>/dev/null || :"


def plan(host: Host) -> None:
    """Pure; without a change the run ends here, with nothing written. Another version of nixprov is no change (ADR
    0024).

    Raises HostError, ForgeError; HostRefused for what forbids to change the host.
    """
    context, facts, journal = host.context, host.machine.facts, host.machine.journal
    view = look(context.forge, context.spec, facts, journal)
    wanted = plan_up(context.spec, facts, journal, view, new_tokens=context.choices.new_tokens)
    warn_of_trust(host)
    if not context.choices.downgrade:
        require_no_downgrade(wanted)
    host.decide(wanted)
    if wanted.changes_host:
        for text in preflight.warnings(facts.records, context.spec.module.engine):
            context.warn(text)
    for problem, advice in _objections(host):
        raise HostRefused(host.name, problem, hint=advice)


def warn_of_trust(host: Host) -> None:
    """What lets jobs have more of the host than they should, by what is wanted or by what its Nix is."""
    module, facts = host.context.spec.module, host.machine.facts
    for text in (*trust.warnings(module.trust, facts), *Flaws.of(module, facts).warnings()):
        host.context.warn(text)


def _objections(host: Host) -> Iterator[tuple[str, str]]:
    module, facts = host.context.spec.module, host.machine.facts
    if host.plan.changes_host:
        yield from trust.problems(module.trust, facts)
    # Also where nothing is to be changed: the host's owner may have taken an older Nix since.
    if refusal := Flaws.of(module, facts).refusal():
        yield refusal
    if host.plan.changes_host:
        yield from preflight.problems(facts.records, time.time(), module.engine)


def needs_claim(host: Host) -> bool:
    return host.plan.changes_host or any(action.verb.makes_a_token for action in host.plan.runners)


def claim(host: Host) -> None:
    """The host is this run's from now on; its state before is in the journal (ADR 0011)."""
    journal = host.machine.journal
    phase = journal.phase if journal.phase.has_installed else Phase.CLAIMED
    # Whatever becomes of us, a token that is to go counts as gone.
    ending = [action.name for action in host.plan.runners if action.verb.makes_a_token]
    host.claim(phase, **_found(host), runners=journal.without_tokens(ending).runners)


def _found(host: Host) -> Mapping[str, object]:
    """What was there before the first run of ours, and before this one."""
    facts, journal = host.machine.facts, host.machine.journal
    hook = journal.hook or Hook().record(facts)
    baseline = journal.baseline or Baseline(facts.generation, facts.system)
    return {"hook": hook, "baseline": baseline, "checked": host.ledger.checked or journal.checked}


def changes_runners(host: Host) -> bool:
    return any(action.verb is not RunnerVerb.DELETE for action in host.plan.forge_changes)


def enrol(host: Host) -> None:
    """GitLab: found by mark, else created; the token is in memory only.

    Deletions wait until the host is confirmed. Raises ForgeError.
    """
    context, ledger = host.context, host.ledger
    specs = {runner.name: runner for runner in context.spec.runners}
    for action in host.plan.forge_changes:
        if action.verb.makes_a_token:
            registration = _token(host, action)
            ledger.records[action.name] = RunnerRecord(registration.id, context.forge.url, context.run.id)
            ledger.tokens[action.name] = registration.token
        if action.id is not None and action.differences:
            with crash.around("update"):
                context.forge.update(action.id, specs[action.name], host.mark(action.name))
            ledger.updated.append(action)


def _token(host: Host, action: RunnerAction) -> Registration:
    if action.id is not None:
        return _reset(host, action.name, action.id)
    spec = next(runner for runner in host.context.spec.runners if runner.name == action.name)
    with crash.around("create", spec.name):
        registration = host.context.forge.create(spec, host.mark(action.name))
    host.ledger.created.append(registration.id)
    return registration


def _reset(host: Host, name: str, runner: int) -> Registration:
    # Unless GitLab says no: an answer that is lost may be that of a reset that was done.
    host.ledger.ended.add(name)
    try:
        with crash.around("reset"):
            return host.context.forge.reset_token(runner)
    except ForgeRefused:
        host.ledger.ended.discard(name)
        raise


def changes_host(host: Host) -> bool:
    return host.plan.changes_host or bool(host.ledger.records)


def needs_switch(host: Host) -> bool:
    """A new token is read by a unit that the switch starts anew."""
    return bool(host.plan.switch or host.ledger.records)


def write(host: Host) -> None:
    """One transaction: lock, journal, staged files, renames, and the start of the switch's unit.

    Raises Cancelled before it, Locked, NothingChanged, RemoteFailed.
    """
    machine, spec = host.machine, host.context.spec
    names = [runner.name for runner in spec.runners]
    records = {name: host.ledger.records.get(name) or machine.journal.runners[name] for name in names}
    wanted = build(spec, host.context.forge.url, records, host.ledger.tokens)
    parts = [part for step in STEPS for part in step.write(wanted, machine.facts, machine.journal)]
    if needs_switch(host):
        journal = _intent(host, wanted, records, Phase.WRITTEN)
        parts = Switch(machine).to(wanted.revision, [*parts, Shell(_RESET_FAILED)], journal)
        host.write(parts, journal, keep=True)
    else:
        host.write(parts, _intent(host, wanted, records, Phase.CONFIRMED), keep=False)


def _intent(host: Host, wanted: Wanted, records: Mapping[str, RunnerRecord], phase: Phase) -> Journal:
    """The journal before the files: what was there, and what is meant."""
    machine = host.machine
    used = {record.id for record in records.values()}
    pending = tuple(record for record in machine.journal.pending_deletions if record.id not in used)
    # Whoever wrote these bodies first: a newer nixprov that found nothing to change in them shuts nobody out.
    first = written_by(machine.facts, machine.journal) if has_bodies(wanted, machine.facts) else ""
    changes = {"nixprov": first or wanted.version, "runners": records, "pending_deletions": pending}
    return machine.journal_for(phase, **_found(host), **changes)


def activate(host: Host) -> None:
    """Follows the unit's log to its end; after a lost connection, once more from the last line seen.

    Raises SwitchFailed, also for a unit that every job needs; Detached, DetachedByUser, Stopped.
    """
    switch = Switch(host.machine)
    with crash.around("follow"):
        result = switch.follow()
    switch.judge(result)
    if broken := next((unit for unit in result.failed if unit in _FOUNDATION), None):
        hint = f"journalctl -u {broken} on the host tells why"
        raise SwitchFailed(host.name, f"{broken} did not start, and every job needs it", hint=hint)
    if result.only_units_failed:
        _name_strangers(host, result)
    host.ledger.switched = result


def _name_strangers(host: Host, result: SwitchResult) -> None:
    """Somebody else's unit is said and is no reason to go back; ours are asked for one by one when we confirm."""
    before = set(host.machine.facts.failed_units)
    strangers = [unit for unit in result.failed if not unit.startswith("nixprov-")]
    for since, units in (
        ("were failed before this run too", [unit for unit in strangers if unit in before]),
        ("fail since this switch", [unit for unit in strangers if unit not in before]),
    ):
        if units:
            host.context.warn(f"units that are not ours {since}, and are left as they are: {', '.join(units)}")


def confirm(host: Host) -> None:
    """GitLab was polled, a fresh login works, the units are active; only then the system is the one that boots (ADR
    0008), and the journal says "confirmed".

    Raises ForgeUnavailable, SwitchFailed, Detached.
    """
    switch, units, limits = Switch(host.machine), unit_names(host.context.spec), host.context.limits
    contact = _Contact(host, dict(host.machine.journal.runners))
    first_s = min(limits.contact_s, limits.unit_s)
    with crash.around("contact"):
        polled = contact.within(first_s)
    if host.ledger.switched.waits:
        switch.log_in_again()
    if not polled:
        # One that has died by now is not waited for any longer.
        contact.require_active(units)
        polled = contact.within(limits.contact_s - first_s)
    if not polled:
        raise contact.failure(units)
    switch.commit(Phase.CONFIRMED, units, keep=False)


@dataclass(slots=True)
class _Contact:
    """Which runners have not asked GitLab for jobs yet; `silence`: why GitLab does not tell us just now."""

    host: Host
    waiting: dict[str, RunnerRecord]
    silence: ForgeUnavailable | None = None

    def within(self, limit_s: float) -> bool:
        return self.host.machine.wait_until(limit_s, self._all_seen)

    def _all_seen(self) -> bool:
        """Drop from `waiting` those that have asked; that GitLab does not answer us is no verdict.

        A manager is online only after that: verifying a token sets its time of contact too, and leaves it "never
        contacted" (app/models/ci/runner_manager.rb). It is proof for a runner made in this run; an older one may have
        been online before, and its times cannot be compared with now: GitLab writes them down every 40 to 55 minutes.
        """
        forge = self.host.context.forge
        try:
            for name, record in list(self.waiting.items()):
                if any(manager.status is RunnerStatus.ONLINE for manager in forge.managers(record.id)):
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
            Switch(self.host.machine).require_active(units)

    def failure(self, units: Sequence[str]) -> ForgeUnavailable:
        self.require_active(units)
        names, context = ", ".join(sorted(self.waiting)), self.host.context
        return self.silence or ForgeUnavailable(
            f"GitLab at {context.forge.url} was not polled by runner {names} within {context.limits.contact_s:g} s",
            hint=f"can the host reach it? see journalctl -u {units[0]}",
        )


def has_to_unwind(host: Host) -> bool:
    return host.ledger.is_claimed or bool(host.ledger.updated)


def has_surplus(host: Host) -> bool:
    return any(action.verb is RunnerVerb.DELETE for action in host.plan.runners)


def withdraw_surplus(host: Host) -> None:
    """Surplus runners go, once the host is as wanted; a failure is left to the next run.

    Raises ForgeError.
    """
    for action in host.plan.runners:
        if action.verb is RunnerVerb.DELETE and action.id is not None:
            with crash.around("surplus"):
                host.context.forge.delete(action.id)
