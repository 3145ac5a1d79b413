"""`down` for one host: drain, take out, build and switch, delete in GitLab, clean, and look that nothing is left."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Final

from provisioner import version
from provisioner.engine import crash
from provisioner.engine.drain import drain
from provisioner.engine.host import Detached, DetachedByUser, HostRun
from provisioner.engine.look import look
from provisioner.engine.unwind import RolledBack, clean, ours, release, unwind
from provisioner.engine.up import switch_error, with_switch
from provisioner.errors import ForgeError, ForgeUnavailable, HostError, Locked, NixprovError, NothingChanged
from provisioner.machine import switch
from provisioner.machine.facts import Facts, digest
from provisioner.machine.journal import Journal, Phase, RunnerRecord
from provisioner.machine.transaction import Part, Shell
from provisioner.plan import ForgeView, HostPlan, RunnerAction, RunnerVerb, plan_down
from provisioner.steps import STEPS
from provisioner.steps.hook import PATH as HOOK_PATH
from provisioner.steps.module import written_by

_PAUSED: Final = "runner {} in GitLab is paused"
# SIGTERM ends a runner's jobs at once, where the SIGQUIT of a normal stop waits for them (gitlab-runner, "Signals").
END_JOBS: Final = "systemctl kill --signal=SIGTERM 'nixprov-runner-*.service' 2>/dev/null || :"


def plan(run: HostRun) -> HostPlan:
    """Probe and plan; with GitLab down, GitLab's side is planned from the journal. Raises HostError, ForgeRefused."""
    run.settle()
    _warn_of_newer(run)
    run.phase("plan")
    try:
        view = look(run.forge, run.spec, run.facts, run.journal)
    except ForgeUnavailable as error:
        run.warn(f"{error.message}: the host's side goes on, the deletion stays in the journal")
        view = ForgeView(run.forge.url, {})
    found = plan_down(run.spec, run.facts, run.journal, view)
    if not found.switch and _of_the_next_system(run):
        run.warn("nothing that runs or boots there is ours: our files go, and nothing is switched")
    return replace(found, runners=_with_journal(run, found.runners))


def _warn_of_newer(run: HostRun) -> None:
    """It is taken back all the same; the last look finds only what this version would look for."""
    writer = written_by(run.facts, run.journal)
    if writer and version.is_newer(writer, version.OWN):
        text = f"nixprov {writer} installed it, and this older {version.OWN} takes back what it knows of"
        run.warn(text)


def apply(run: HostRun, wanted: HostPlan) -> None:
    """Take everything back. Raises RolledBack, ForgeError (host done, deletion queued), HostError."""
    # Before anything is paused: a file that we cannot edit surely ends the run here.
    parts = _of_the_next_system(run)
    before = (run.facts, run.journal)
    if wanted.switch:
        run.claim(Phase.DRAINING)
        try:
            drain(run, [action.id for action in wanted.runners if action.id is not None])
        except NixprovError:
            _resume(run, wanted)
            release(run, before[1])
            raise
        _take_out(run, wanted, parts, before)
    elif parts:
        _take_files(run, parts)
    pending = _delete(run, wanted)
    run.phase("clean")
    if pending:
        _queue(run, pending)
        raise pending[0][1]
    if wanted.changes_host:
        clean(run)
        _look_again(run)
        if wanted.switch:
            _say_what_came_back(run, before[1])


def _of_the_next_system(run: HostRun) -> list[Part]:
    return [part for step in reversed(STEPS) if step.feeds_system for part in step.remove(run.facts, run.journal)]


def _with_journal(run: HostRun, actions: tuple[RunnerAction, ...]) -> tuple[RunnerAction, ...]:
    """Runners that the journal knows and GitLab's lists did not show: deleted by id, and 404 is success."""
    if run.journal.machine not in ("", run.facts.machine):
        text = "the journal is that of another machine: its runners are left alone"
        run.warn(f"{text}; `nixprov prune` tells which nobody uses")
    known = {action.id for action in actions}
    records = [*run.journal.runners.items(), *((f"id {one.id}", one) for one in run.journal.pending_deletions)]
    missing = {one.id: name for name, one in records if one.url == run.forge.url and one.id not in known}
    return (
        *actions,
        *(RunnerAction(name, RunnerVerb.DELETE, f"id {id_}, from the journal", id_) for id_, name in missing.items()),
    )


def _take_out(run: HostRun, wanted: HostPlan, parts: list[Part], before: tuple[Facts, Journal]) -> None:
    journal = run.journal_for(Phase.REMOVING)
    run.phase("write")
    try:
        ending = [Shell(END_JOBS)] if run.choices.force else []
        with crash.around("write"):
            run.transact("write", with_switch(run, switch.NO_REVISION, [*parts, *ending], journal), journal)
        _switch(run)
    except (Detached, DetachedByUser, Locked):
        raise
    except NixprovError as error:
        _put_back(run, wanted, before, is_unchanged=isinstance(error, NothingChanged))
        raise RolledBack(run.host, error) from error


def _take_files(run: HostRun, parts: list[Part]) -> None:
    """The system is its owner's, and so is the next one once these are gone: to build it is not our business."""
    run.phase("write")
    with crash.around("write"):
        run.transact("write", [Shell(switch.DISARM), *parts], run.journal_for(Phase.SWITCHED_BACK))


def _put_back(run: HostRun, wanted: HostPlan, before: tuple[Facts, Journal], *, is_unchanged: bool) -> None:
    """The host as it was, then its runners; one that is left somewhere between takes no jobs, and that is said."""
    try:
        if is_unchanged and run.journal.phase is Phase.DRAINING:
            release(run, before[1])
        else:
            unwind(run, *before)
    except Locked:
        raise
    except NixprovError:
        _name_paused(run, wanted)
        raise
    _resume(run, wanted)


def _switch(run: HostRun) -> None:
    run.phase("switch")
    with crash.around("follow"):
        result = run.follow()
    if not (result.is_done or result.only_units_failed):
        raise switch_error(run, result)
    if result.waits:
        run.login_again()
    run.commit(Phase.SWITCHED_BACK, switch.confirm((), 0), keep=True)


def _resume(run: HostRun, wanted: HostPlan) -> None:
    """After a failed `down` the runner goes on as before, so it takes jobs again."""
    for name, id_ in _taking_jobs(run, wanted):
        try:
            if run.forge.get(id_) is None:
                continue
            with crash.around("resume", name):
                run.forge.set_paused(id_, paused=False)
        except ForgeError as error:
            run.remains.append(_PAUSED.format(id_))
            run.warn(f"{error.message}: the runner stays paused until `nixprov up`")


def _name_paused(run: HostRun, wanted: HostPlan) -> None:
    for _, id_ in _taking_jobs(run, wanted):
        with suppress(ForgeError):
            if (found := run.forge.get(id_)) and found.paused:
                run.remains.append(_PAUSED.format(id_))


def _taking_jobs(run: HostRun, wanted: HostPlan) -> list[tuple[str, int]]:
    """Names and ids of those that are not meant to be paused."""
    names = {runner.name for runner in run.spec.runners if not runner.paused}
    return [(action.name, action.id) for action in wanted.runners if action.id is not None and action.name in names]


def _delete(run: HostRun, wanted: HostPlan) -> list[tuple[RunnerRecord, ForgeError]]:
    """Delete in GitLab and see 404; what GitLab did not let us delete is given back with the reason."""
    pending = []
    if wanted.runners:
        run.phase("delete")
    for action in wanted.runners:
        if action.id is None:
            continue
        try:
            with crash.around("delete", action.name):
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
    run.remains += [f"runner {record.id} in GitLab, which the next `down` or `prune` deletes" for record in records]
    keeps = {"state"}
    parts = [
        part
        for step in reversed(STEPS)
        if not step.feeds_system and step.name not in keeps
        for part in step.remove(run.facts, run.journal)
    ]
    journal = run.journal_for(Phase.SWITCHED_BACK, nixprov="", runners={}, hook=None, pending_deletions=records)
    with crash.around("queue"):
        run.transact("queue", parts, journal, keep=False)


def _look_again(run: HostRun) -> None:
    run.probe()
    run.remains += [*ours(run.facts, run.journal), *(unit.name for unit in run.facts.units)]
    if run.remains:
        hint = "run `down` again, or remove it by hand"
        raise HostError(run.host, "not everything of ours went from the host", hint=hint)


def _say_what_came_back(run: HostRun, journal: Journal) -> None:
    """Where it is not the system from before us; `journal` as it was when this run began."""
    before = journal.baseline.system if journal.baseline else run.facts.system
    if before == run.facts.system:
        return
    why = f"{HOOK_PATH} describes another one now"
    if journal.checked and journal.checked.adopted:
        why = f"{HOOK_PATH} did not describe that one (--adopt-configuration)"
    elif journal.hook and digest(run.facts.records.get("configuration.data")) != journal.hook.sha256_before:
        why = f"{HOOK_PATH} was edited since"
    run.warn(f"the system is not the one from before nixprov ({before}): {why}")
