"""`status` for one host: machine, module and GitLab side by side, and every difference named."""

from __future__ import annotations

from provisioner.engine.host import HostRun
from provisioner.engine.look import look
from provisioner.errors import HookRefused, HostRefused
from provisioner.events import RunnerReport, StatusRead
from provisioner.machine.journal import Phase
from provisioner.plan import ForgeView, RunnerAction, plan_up, require_no_downgrade, unit_names
from provisioner.steps.module import written_by


def look_at(run: HostRun) -> StatusRead:
    """Probe and compare; changes nothing. Raises HostError, ForgeError."""
    run.phase("probe")
    run.probe()
    run.warn_of_trust()
    if refusal := run.flaws.refusal():
        run.warn(f"{refusal[0]}: `up` refuses it; {refusal[1]}")
    _say_what_goes_on(run)
    run.phase("plan")
    view = look(run.forge, run.spec, run.facts, run.journal)
    wanted, drift = _compared(run, view)
    return StatusRead(
        host=run.host,
        nixos=run.facts.text("nixos-version"),
        nixprov=written_by(run.facts, run.journal),
        generation=run.facts.generation,
        phase=run.journal.phase.value,
        revision=run.facts.revision,
        runners=tuple(_runner(run, view, wanted, name) for name in view.found),
        # A machine that has nothing of ours has not drifted: nobody said `up` there yet.
        drift=drift if run.journal.exists or run.facts.revision else (),
        counters=run.facts.counters,
        flaws=run.flaws,
    )


def _compared(run: HostRun, view: ForgeView) -> tuple[tuple[RunnerAction, ...], tuple[str, ...]]:
    """What `up` would do with the runners, and all it would change. That it would refuse is told, and no failure."""
    try:
        wanted = plan_up(run.spec, run.facts, run.journal, view)
    except HookRefused as refusal:
        return (), (f"hook: `up` refuses: {refusal}",)
    try:
        require_no_downgrade(wanted)
    except HostRefused as refusal:
        return wanted.runners, (f"module: `up` refuses: {refusal}",)
    return wanted.runners, wanted.lines()


def _say_what_goes_on(run: HostRun) -> None:
    """A run that works on the host, or that ended without saying so itself."""
    if run.facts.is_switching:
        run.warn(run.what_goes_on())
    elif run.facts.held_by:
        run.warn(f"{run.holder()} works on it")
    elif run.journal.exists and run.journal.phase is not Phase.CONFIRMED:
        run.warn(f"the last run, {run.holder()}, ended half-way: {run.journal.phase.value}")


def _runner(run: HostRun, view: ForgeView, wanted: tuple[RunnerAction, ...], name: str) -> RunnerReport:
    kept = {action.id for action in wanted if action.name == name} or {found.id for found in view.found[name]}
    runner = next((found for found in view.found[name] if found.id in kept), None)
    units = dict(zip((spec.name for spec in run.spec.runners), unit_names(run.spec), strict=True))
    managers = run.forge.managers(runner.id) if runner else ()
    return RunnerReport(name, run.facts.unit(units[name]), runner, managers)
