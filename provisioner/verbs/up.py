"""`up` for one host: a runner of the CI server on success, its former state on any failure."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from provisioner.ci.base import Credential, RunnerVerb
from provisioner.engine import crash, origin, preview
from provisioner.engine.host import Host
from provisioner.engine.look import look
from provisioner.engine.settle import settle
from provisioner.engine.switch import Switch
from provisioner.engine.unwind import unwind
from provisioner.errors import CiRefused, CiUnavailable, HostRefused, SwitchFailed
from provisioner.machine import preflight, trust
from provisioner.machine.flaws import Flaws
from provisioner.machine.journal import Baseline, Journal, Phase, RunnerRecord
from provisioner.machine.switch import SwitchResult
from provisioner.machine.transaction import Shell
from provisioner.model import Identity, RunnerSpec
from provisioner.plan import plan_up, require_no_downgrade, unit_names
from provisioner.steps import STEPS, Wanted, foundation
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

_RESET_FAILED: Final = "systemctl reset-failed 'nixprov-*' 2>/dev/null || :"


def plan(host: Host) -> None:
    """Pure; without a change the run ends here, with nothing written. Another version of nixprov is no change (ADR
    0024).

    Raises HostError, CiError; HostRefused for a reason not to change the host.
    """
    context, facts, journal = host.context, host.machine.facts, host.machine.journal
    new_tokens = context.choices.new_tokens
    wanted = plan_up(context.spec, facts, journal, context.ci.server, look(host), new_tokens=new_tokens)
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
    """Warn where jobs get more of the host than they should, by the inventory or by its Nix."""
    module, facts = host.context.spec.module, host.machine.facts
    for text in (*trust.warnings(module.trust, facts), *Flaws.of(module, facts).warnings()):
        host.context.warn(text)


def _objections(host: Host) -> Iterator[tuple[str, str]]:
    module, facts = host.context.spec.module, host.machine.facts
    if host.plan.changes_host:
        yield from trust.problems(module.trust, facts)
    # Also without any change: the host's owner may have installed an older Nix since.
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
    # A token that is to go counts as gone, even if this run dies.
    ending = [action.name for action in host.plan.runners if action.verb.makes_a_token]
    host.claim(phase, **_found(host), runners=journal.without_tokens(ending).runners)


def _found(host: Host) -> Mapping[str, object]:
    """The state before our first run, and before this one."""
    facts, journal = host.machine.facts, host.machine.journal
    hook = journal.hook or host.hook.record(facts)
    baseline = journal.baseline or Baseline(facts.generation, facts.system)
    return {"hook": hook, "baseline": baseline, "checked": host.ledger.checked or journal.checked}


def changes_runners(host: Host) -> bool:
    return any(action.verb is not RunnerVerb.DELETE for action in host.plan.runner_changes)


def enrol(host: Host) -> None:
    """At the provider: found by mark, else created; the token is in memory only.

    Deletions wait until the host is confirmed. Raises CiError.
    """
    context, ledger = host.context, host.ledger
    specs = {runner.name: runner for runner in context.spec.runners}
    for action in host.plan.runner_changes:
        if action.verb.makes_a_token:
            made = (
                _create(host, specs[action.name]) if action.id is None else _renew(host, specs[action.name], action.id)
            )
            ledger.records[action.name] = RunnerRecord(made.id, context.ci.server.url, context.run.id)
            ledger.tokens[action.name] = made.secret
        if action.id is not None and action.differences:
            with crash.around("update"):
                context.ci.adjust(action.id, specs[action.name], host.mark(action.name))
            ledger.updated.append(action)


def _create(host: Host, spec: RunnerSpec) -> Credential:
    with crash.around("create", spec.name):
        made = host.context.ci.enrol(spec, host.mark(spec.name))
    host.ledger.created.append(made.id)
    return made


def _renew(host: Host, spec: RunnerSpec, runner: Identity) -> Credential:
    # Unless the provider refuses: a lost answer may be that of a successful renewal.
    host.ledger.ended.add(spec.name)
    try:
        with crash.around("reset"):
            return host.context.ci.enrol(spec, host.mark(spec.name), runner)
    except CiRefused:
        host.ledger.ended.discard(spec.name)
        raise


def changes_host(host: Host) -> bool:
    return host.plan.changes_host or bool(host.ledger.records)


def needs_switch(host: Host) -> bool:
    """Also for a new token: the switch restarts the unit that reads it."""
    return bool(host.plan.switch or host.ledger.records)


def write(host: Host) -> None:
    """One transaction: lock, journal, staged files, renames, and the start of the switch's unit.

    Raises Cancelled before it, Locked, NothingChanged, RemoteFailed.
    """
    machine, spec = host.machine, host.context.spec
    names = [runner.name for runner in spec.runners]
    records = {name: host.ledger.records.get(name) or machine.journal.runners[name] for name in names}
    wanted = build(spec, host.context.ci.server, records, host.ledger.tokens)
    parts = [part for step in STEPS for part in step.write(wanted, machine.facts, machine.journal)]
    if needs_switch(host):
        journal = _intent(host, wanted, records, Phase.WRITTEN)
        parts = Switch(machine).to(host.hook, wanted.revision, [*parts, Shell(_RESET_FAILED)], journal)
        host.write(parts, journal, keep=True)
    else:
        host.write(parts, _intent(host, wanted, records, Phase.CONFIRMED), keep=False)


def _intent(host: Host, wanted: Wanted, records: Mapping[str, RunnerRecord], phase: Phase) -> Journal:
    """The journal that goes before the files: the state found, and the state intended."""
    machine = host.machine
    used = {record.id for record in records.values()}
    pending = tuple(record for record in machine.journal.pending_deletions if record.id not in used)
    # The first writer of these bodies stays on record: a newer nixprov without changes must shut nobody out.
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
    if broken := next((unit for unit in result.failed if unit in foundation()), None):
        hint = f"journalctl -u {broken} on the host tells why"
        raise SwitchFailed(host.name, f"{broken} did not start, and every job needs it", hint=hint)
    if result.only_units_failed:
        _name_strangers(host, result)
    host.ledger.switched = result


def _name_strangers(host: Host, result: SwitchResult) -> None:
    """Report units that are not ours; they are no reason to roll back. `confirm` asks for ours one by one."""
    before = set(host.machine.facts.failed_units)
    strangers = [unit for unit in result.failed if not unit.startswith("nixprov-")]
    for since, units in (
        ("were failed before this run too", [unit for unit in strangers if unit in before]),
        ("fail since this switch", [unit for unit in strangers if unit not in before]),
    ):
        if units:
            host.context.warn(f"units that are not ours {since}, and are left as they are: {', '.join(units)}")


def confirm(host: Host) -> None:
    """The provider was polled, a fresh login works, the units are active. Only then the system is made the one that
    boots (ADR 0008), and the journal says "confirmed".

    Raises CiUnavailable, SwitchFailed, Detached.
    """
    switch, units, limits = Switch(host.machine), unit_names(host.context.spec), host.context.limits
    contact = _Contact(host, dict(host.machine.journal.runners))
    first_s = min(limits.contact_s, limits.unit_s)
    with crash.around("contact"):
        polled = contact.within(first_s)
    if host.ledger.switched.waits:
        switch.log_in_again()
    if not polled:
        # A unit that has died by now is not waited for any longer.
        contact.require_active(units)
        polled = contact.within(limits.contact_s - first_s)
    if not polled:
        raise contact.failure(units)
    switch.commit(Phase.CONFIRMED, units, keep=False)


@dataclass(slots=True)
class _Contact:
    """The runners that have not asked for jobs yet; `silence`: the reason why the provider does not answer now."""

    host: Host
    waiting: dict[str, RunnerRecord]
    silence: CiUnavailable | None = None

    def within(self, limit_s: float) -> bool:
        return self.host.machine.wait_until(limit_s, self._all_seen)

    def _all_seen(self) -> bool:
        """Drop from `waiting` those that have asked; a silent provider is no verdict."""
        try:
            for name, record in list(self.waiting.items()):
                if self.host.context.ci.confirm(record.id):
                    del self.waiting[name]
            self.silence = None
        except CiUnavailable as error:
            self.silence = error
        return not self.waiting

    def require_active(self, units: Sequence[str]) -> None:
        """Raises SwitchFailed with a unit's last lines, a better reason than a missing poll.

        A silent provider says nothing of the unit, which the host may have stopped again by now.
        """
        if self.silence is None:
            Switch(self.host.machine).require_active(units)

    def failure(self, units: Sequence[str]) -> CiUnavailable:
        self.require_active(units)
        names, server = ", ".join(sorted(self.waiting)), self.host.context.ci.server
        limit = f"within {self.host.context.limits.contact_s:g} s"
        return self.silence or CiUnavailable(
            f"{server.words.name} at {server.url} was not polled by {server.words.runner} {names} {limit}",
            hint=f"can the host reach it? see journalctl -u {units[0]}",
        )


def has_to_unwind(host: Host) -> bool:
    return host.ledger.is_claimed or bool(host.ledger.updated)


def has_surplus(host: Host) -> bool:
    return any(action.verb is RunnerVerb.DELETE for action in host.plan.runners)


def withdraw_surplus(host: Host) -> None:
    """Surplus runners go, once the host is as wanted; a failure is left to the next run.

    Raises CiError.
    """
    for action in host.plan.runners:
        if action.verb is RunnerVerb.DELETE and action.id is not None:
            with crash.around("surplus"):
                host.context.ci.withdraw(action.id)
