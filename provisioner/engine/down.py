"""`down` for one host: drain, take out, build and switch, delete in GitLab, clean, and look that nothing is left."""

from __future__ import annotations

from dataclasses import replace

from provisioner.engine.host import HostRun, wait_until
from provisioner.engine.look import look
from provisioner.engine.unwind import RolledBack, clean, unwind
from provisioner.engine.up import switch_error
from provisioner.errors import ForgeError, ForgeUnavailable, HostError, NixprovError
from provisioner.hosts import switch
from provisioner.hosts.journal import Journal, Phase, RunnerRecord
from provisioner.hosts.script import Part
from provisioner.plan import ForgeView, HostPlan, RunnerAction, RunnerVerb, plan_down
from provisioner.steps import STEPS


def plan(run: HostRun) -> HostPlan:
    """Probe and plan; with GitLab down, GitLab's side is planned from the journal. Raises HostError, ForgeRefused."""
    run.phase("probe")
    run.probe()
    run.phase("plan")
    try:
        view = look(run.forge, run.spec, run.facts, run.journal)
    except ForgeUnavailable as error:
        run.emit("warning", text=f"{error.message}: the host's side goes on, the deletion stays in the journal")
        view = ForgeView(run.forge.url, {})
    found = plan_down(run.spec, run.facts, run.journal, view)
    return replace(found, runners=_with_journal(run, found.runners))


def apply(run: HostRun, wanted: HostPlan) -> None:
    """Take everything back. Raises RolledBack, ForgeError (host done, deletion queued), HostError."""
    # Before anything is paused: a file that we cannot edit surely ends the run here.
    parts = [part for step in reversed(STEPS) if step.feeds_system for part in step.remove(run.facts, run.journal)]
    _drain(run, wanted)
    if wanted.switch:
        _take_out(run, parts)
    pending = _delete(run, wanted)
    run.phase("clean")
    if pending:
        _queue(run, pending)
        raise pending[0][1]
    if wanted.changes_host:
        clean(run)
        _look_again(run)


def _with_journal(run: HostRun, actions: tuple[RunnerAction, ...]) -> tuple[RunnerAction, ...]:
    """Runners that the journal knows and GitLab's lists did not show: deleted by id, and 404 is success."""
    known = {action.id for action in actions}
    records = {record.id: name for name, record in run.journal.runners.items()}
    records |= {record.id: f"id {record.id}" for record in run.journal.pending_deletions}
    missing = [
        RunnerAction(name, RunnerVerb.DELETE, f"id {id_}, from the journal", id_)
        for id_, name in records.items()
        if id_ not in known and run.journal.exists and _belongs(run.journal, id_, run.forge.url)
    ]
    return (*actions, *missing)


def _belongs(journal: Journal, runner: int, url: str) -> bool:
    records = (*journal.runners.values(), *journal.pending_deletions)
    return any(record.id == runner and record.url == url for record in records)


def _drain(run: HostRun, wanted: HostPlan) -> None:
    """No new jobs, and those that run finish: SIGQUIT alone can lose one that GitLab has just handed out."""
    ids = [action.id for action in wanted.runners if action.id is not None]
    if not ids or not wanted.switch:
        return
    run.phase("drain")
    try:
        there = [id_ for id_ in ids if run.forge.get(id_) is not None]
        for id_ in there:
            run.forge.set_paused(id_, paused=True)
        if not wait_until(run, run.limits.drain_s, lambda: not any(map(run.forge.running_jobs, there))):
            run.emit("warning", text=f"jobs still run after {run.limits.drain_s:g} s; stopping the runner all the same")
    except ForgeUnavailable as error:
        run.emit("warning", text=f"not drained: {error.message}; the unit itself finishes its jobs when it stops")


def _take_out(run: HostRun, parts: list[Part]) -> None:
    before = (run.facts, run.journal)
    run.phase("write")
    run.transact([*parts, *switch.start("switch", switch.NO_REVISION)], run.journal_for(Phase.REMOVING))
    try:
        run.phase("switch")
        result = run.follow()
        if not (result.is_done or result.only_units_failed):
            raise switch_error(run, result)
    except NixprovError as error:
        run.phase("unwind")
        unwind(run, *before, created=())
        _resume(run)
        raise RolledBack(run.host, error) from error


def _resume(run: HostRun) -> None:
    """After a failed `down` the runner goes on as before, so it takes jobs again."""
    for runner in run.spec.runners:
        record = run.journal.runners.get(runner.name)
        if record is not None and not runner.paused:
            run.forge.set_paused(record.id, paused=False)


def _delete(run: HostRun, wanted: HostPlan) -> list[tuple[RunnerRecord, ForgeError]]:
    """Delete in GitLab and see 404; what GitLab did not let us delete is given back with the reason."""
    pending = []
    if wanted.runners:
        run.phase("delete")
    for action in wanted.runners:
        if action.id is None:
            continue
        try:
            run.forge.delete(action.id)
            if run.forge.get(action.id) is not None:
                raise ForgeUnavailable(
                    f"GitLab still has runner {action.id} after deleting it", hint="run `down` again"
                )
        except ForgeError as error:
            pending.append((RunnerRecord(action.id, run.forge.url, ""), error))
    return pending


def _queue(run: HostRun, pending: list[tuple[RunnerRecord, ForgeError]]) -> None:
    """Everything but the journal goes; it keeps what GitLab still has to delete, for the next `down` of anyone."""
    records = tuple(record for record, _ in pending)
    keeps = {"state"}
    parts = [
        part
        for step in reversed(STEPS)
        if not step.feeds_system and step.name not in keeps
        for part in step.remove(run.facts, run.journal)
    ]
    run.transact(parts, run.journal_for(Phase.SWITCHED_BACK, runners={}, hook=None, pending_deletions=records))


def _look_again(run: HostRun) -> None:
    run.probe()
    left = [what for step in STEPS for what in step.remains(run.facts, run.journal)]
    left += [unit.name for unit in run.facts.units]
    if left:
        raise HostError(run.host, f"left on the host: {', '.join(left)}", hint="run `down` again, or remove it by hand")
