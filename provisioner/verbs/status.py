"""`status` for one host: machine, module and CI server side by side, and every difference named."""

from __future__ import annotations

from typing import Final

from provisioner.ci.base import RunnerAction, View
from provisioner.engine.host import Host
from provisioner.engine.look import look
from provisioner.errors import HookRefused, HostRefused
from provisioner.events import RunnerReport, StatusRead
from provisioner.machine.facts import Facts
from provisioner.machine.flaws import Flaws
from provisioner.machine.journal import Journal, Phase
from provisioner.plan import plan_up, require_no_downgrade, unit_names
from provisioner.steps.module import written_by
from provisioner.verbs.phases import Look, Phases
from provisioner.verbs.up import warn_of_trust

PHASES: Final = Phases(
    lambda: (
        Look("probe", probe, commands=1),
        Look("plan", compare),
    )
)


def probe(host: Host) -> None:
    """As in `up`; an open run and one that ended half-way are named.

    Raises HostError.
    """
    machine, context = host.machine, host.context
    machine.probe()
    warn_of_trust(host)
    if refusal := Flaws.of(context.spec.module, machine.facts).refusal():
        context.warn(f"{refusal[0]}: `up` refuses it; {refusal[1]}")
    if machine.facts.is_switching:
        context.warn(machine.what_goes_on)
    elif machine.facts.held_by:
        context.warn(f"{machine.holder} works on it")
    elif machine.journal.exists and machine.journal.phase is not Phase.CONFIRMED:
        context.warn(f"the last run, {machine.holder}, ended half-way: {machine.journal.phase.value}")


def compare(host: Host) -> None:
    """Machine, module and CI server side by side; the changes that `up` would make are the drift.

    Raises CiError.
    """
    host.context.emit(report(host))


def report(host: Host) -> StatusRead:
    spec, facts, journal = host.context.spec, host.machine.facts, host.machine.journal
    view = look(host)
    wanted, drift = _compared(host, view)
    return StatusRead(
        host=host.name,
        nixos=facts.text("nixos-version"),
        nixprov=_writer(facts, journal),
        generation=facts.generation,
        phase=journal.phase.value,
        revision=facts.revision,
        runners=tuple(_runner(host, view, wanted, name) for name in view.found),
        # A machine without anything of ours has not drifted: `up` never ran there.
        drift=drift if journal.exists or facts.revision else (),
        counters=facts.counters,
        flaws=Flaws.of(spec.module, facts),
    )


def _writer(facts: Facts, journal: Journal) -> str:
    """Empty where the module is in by a hook of a newer nixprov; that refusal is part of the drift."""
    try:
        return written_by(facts, journal)
    except HookRefused:
        return ""


def _compared(host: Host, view: View) -> tuple[tuple[RunnerAction, ...], tuple[str, ...]]:
    """The runners' actions and all changes of `up`. A refusal of `up` is reported as drift, not raised."""
    try:
        context, machine = host.context, host.machine
        wanted = plan_up(context.spec, machine.facts, machine.journal, context.ci.server, view)
    except HookRefused as refusal:
        return (), (f"hook: `up` refuses: {refusal}",)
    try:
        require_no_downgrade(wanted)
    except HostRefused as refusal:
        return wanted.runners, (f"module: `up` refuses: {refusal}",)
    return wanted.runners, wanted.lines()


def _runner(host: Host, view: View, wanted: tuple[RunnerAction, ...], name: str) -> RunnerReport:
    spec = host.context.spec
    kept = {action.id for action in wanted if action.name == name} or {found.id for found in view.found[name]}
    runner = next((found for found in view.found[name] if found.id in kept), None)
    units = dict(zip((one.name for one in spec.runners), unit_names(spec), strict=True))
    managers = tuple(host.context.ci.presences(runner.id)) if runner else ()
    return RunnerReport(name, host.machine.facts.unit(units[name]), runner, managers)
