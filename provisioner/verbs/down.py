"""`down` for one host: nothing of ours is left, on the machine and at the provider."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Final

from provisioner import hooks, version
from provisioner.ci.base import RunnerAction, RunnerVerb, Words
from provisioner.engine import crash, drain, origin, preview
from provisioner.engine.host import Host
from provisioner.engine.look import look
from provisioner.engine.settle import settle
from provisioner.engine.switch import DISARM, Switch
from provisioner.engine.unwind import clean, ours, outside, unwind
from provisioner.errors import CiError, CiUnavailable, HostError, Locked, NixprovError
from provisioner.machine.journal import Phase, RunnerRecord
from provisioner.machine.switch import NO_REVISION
from provisioner.machine.transaction import Part, Shell
from provisioner.model import Identity
from provisioner.plan import plan_down
from provisioner.steps import STEPS
from provisioner.steps.module import written_by
from provisioner.verbs.phases import Change, Finish, Look, Phases, Unwind

PHASES: Final = Phases(
    lambda: (
        Look("probe", settle, commands=1),
        Look("plan", plan),
        Look("own", origin.look, when=origin.is_asked, commands=1),
        Look("evaluate", preview.evaluate, when=preview.is_evaluated, commands=1),
        Look("build", preview.build, when=preview.is_built, commands=1),
        Change("claim", claim, when=needs_switch, commands=1),
        Change("drain", drain_runners, when=has_runners_to_drain),
        Change("write", take_out, when=needs_switch, commands=1),
        Change("switch", activate, when=needs_switch, commands=3),
        Unwind("unwind", unwind_and_resume, when=is_claimed, commands=3),
        Finish("write", take_files, when=has_only_files, commands=1),
        Finish("delete", withdraw, when=has_runners),
        Finish("clean", clean_up, commands=2),
    )
)

_END_JOBS: Final = "systemctl kill --signal={} 'nixprov-runner-*.service' 2>/dev/null || :"


def plan(host: Host) -> None:
    """Pure, from the journal and the marks; without the provider, from the journal alone.

    Raises HostError, CiRefused.
    """
    _warn_of_newer(host)
    context, facts, journal = host.context, host.machine.facts, host.machine.journal
    try:
        view = look(host)
    except CiUnavailable as error:
        context.warn(f"{error.message}: the host's side goes on, the deletion stays in the journal")
        view = None
    found = plan_down(context.spec, facts, journal, context.ci.server, view)
    if not found.switch and _feeding(host):
        context.warn("nothing that runs or boots there is ours: our files go, and nothing is switched")
    host.decide(replace(found, runners=_with_journal(host, found.runners)))


def _warn_of_newer(host: Host) -> None:
    """The module is taken out all the same. The last look finds only things that this version looks for."""
    writer = written_by(host.machine.facts, host.machine.journal)
    if writer and version.is_newer(writer, version.OWN):
        text = f"nixprov {writer} installed it, and this older {version.OWN} takes back what it knows of"
        host.context.warn(text)


def _with_journal(host: Host, actions: tuple[RunnerAction, ...]) -> tuple[RunnerAction, ...]:
    """Add runners of the journal that the provider did not show: they are withdrawn by id, if still there."""
    journal = host.machine.journal
    if journal.machine not in ("", host.machine.facts.machine):
        text = "the journal is that of another machine: its runners are left alone"
        host.context.warn(f"{text}; `nixprov prune` tells which nobody uses")
    known, url = {action.id for action in actions}, host.context.ci.server.url
    records = [*journal.runners.items(), *((f"id {one.id}", one) for one in journal.pending_deletions)]
    missing = {one.id: name for name, one in records if one.url == url and one.id not in known}
    return (
        *actions,
        *(RunnerAction(name, RunnerVerb.DELETE, f"id {id_}, from the journal", id_) for id_, name in missing.items()),
    )


def _feeding(host: Host) -> list[Part]:
    """The removal of all files that feed the next system. Raises HookRefused."""
    facts, journal = host.machine.facts, host.machine.journal
    return [part for step in reversed(STEPS) if step.feeds_system for part in step.remove(facts, journal)]


def needs_switch(host: Host) -> bool:
    return bool(host.plan.switch)


def claim(host: Host) -> None:
    """The host is this run's from now on (ADR 0011).

    Raises HookRefused before it: a file that cannot be edited ends the run before anything is paused.
    """
    _feeding(host)
    host.claim(Phase.DRAINING)


def has_runners_to_drain(host: Host) -> bool:
    return needs_switch(host) and bool(_ids(host))


def drain_runners(host: Host) -> None:
    """Its runners get no more jobs; running ones are waited for, up to --drain-limit.

    Raises StillBusy, Cancelled.
    """
    drain.drain(host, _ids(host))


def _ids(host: Host) -> list[Identity]:
    return [action.id for action in host.plan.runners if action.id is not None]


def take_out(host: Host) -> None:
    """One transaction, as in `up`: our files go, and the switch's unit is started.

    Raises Cancelled before it, Locked, NothingChanged, RemoteFailed.
    """
    host.ledger.is_drained = True
    journal = host.machine.journal_for(Phase.REMOVING)
    ending = [Shell(_END_JOBS.format(host.context.ci.server.host_side.end_jobs))] if host.context.choices.force else []
    parts = Switch(host.machine).to(host.hook, NO_REVISION, [*_feeding(host), *ending], journal)
    host.write(parts, journal, keep=True)


def activate(host: Host) -> None:
    """Follows the unit's log to its end; a fresh login works; only then the system is the one that boots.

    Raises SwitchFailed, Detached, DetachedByUser, Stopped.
    """
    switch = Switch(host.machine)
    with crash.around("follow"):
        result = switch.follow()
    switch.judge(result)
    if result.waits:
        switch.log_in_again()
    switch.commit(Phase.SWITCHED_BACK, keep=True)


def is_claimed(host: Host) -> bool:
    return host.ledger.is_claimed


def unwind_and_resume(host: Host) -> None:
    """After a failure: as in `up`, and then the runners take jobs again.

    Runners of a host in a state between stay paused, and are named. Raises as `unwind` does.
    """
    if not host.ledger.is_drained:
        _resume(host)
        unwind(host)
        return
    try:
        unwind(host)
    except Locked:
        raise
    except NixprovError:
        _name_paused(host)
        raise
    _resume(host)


def _resume(host: Host) -> None:
    """Have the runners take jobs again: after a failed `down` the host is as before."""
    ci, words = host.context.ci, host.context.words
    for name, id_ in _taking_jobs(host):
        try:
            with crash.around("resume", name):
                ci.resume(id_)
        except CiError as error:
            host.ledger.remains.append(_paused(words, id_))
            host.context.warn(f"{error.message}: the {words.runner} stays paused until `nixprov up`")


def _name_paused(host: Host) -> None:
    for _, id_ in _taking_jobs(host):
        with suppress(CiError):
            if host.context.ci.is_quiet(id_):
                host.ledger.remains.append(_paused(host.context.words, id_))


def _paused(words: Words, runner: Identity) -> str:
    return f"{words.runner} {runner} in {words.name} is paused"


def _taking_jobs(host: Host) -> list[tuple[str, Identity]]:
    """Names and ids of runners that are not to be paused."""
    names = {runner.name for runner in host.context.spec.runners if not runner.paused}
    return [(action.name, action.id) for action in host.plan.runners if action.id is not None and action.name in names]


def has_only_files(host: Host) -> bool:
    return not needs_switch(host) and bool(_feeding(host))


def take_files(host: Host) -> None:
    """Only where no switch is needed: the system is its owner's, and without our files so is the next one.

    Building that system is left to its owner.
    """
    host.write([DISARM, *_feeding(host)], host.machine.journal_for(Phase.SWITCHED_BACK), keep=True)


def has_runners(host: Host) -> bool:
    return bool(host.plan.runners)


def withdraw(host: Host) -> None:
    """Deleted at the provider, and seen gone; a deletion that fails stays in the journal for the next `down`."""
    ci = host.context.ci
    for action in host.plan.runners:
        if action.id is None:
            continue
        try:
            with crash.around("delete", action.name):
                ci.withdraw(action.id)
        except CiError as error:
            host.ledger.pending.append((RunnerRecord(action.id, ci.server.url, ""), error))


def clean_up(host: Host) -> None:
    """Everything outside of the system goes, and the lock with it; a last probe must find nothing.

    Raises HostError; CiError where the provider's side waits in the journal.
    """
    if pending := host.ledger.pending:
        _queue(host, tuple(record for record, _ in pending))
        raise pending[0][1]
    if host.plan.changes_host:
        clean(host)
        _require_nothing_left(host)
        if host.ledger.is_claimed:
            _say_what_came_back(host)


def _queue(host: Host, records: tuple[RunnerRecord, ...]) -> None:
    """All goes but the journal, which keeps the pending deletions for anyone's next `down`."""
    machine, words = host.machine, host.context.words
    waits = "which the next `down` or `prune` deletes"
    host.ledger.remains += [f"{words.runner} {one.id} in {words.name}, {waits}" for one in records]
    journal = machine.journal_for(Phase.SWITCHED_BACK, nixprov="", runners={}, hook=None, pending_deletions=records)
    with crash.around("queue"):
        machine.transact("queue", outside(host, but="state"), journal, keep=False)


def _require_nothing_left(host: Host) -> None:
    machine, remains = host.machine, host.ledger.remains
    machine.probe()
    remains += [*ours(machine.facts, machine.journal), *(unit.name for unit in machine.facts.units)]
    if remains:
        hint = "run `down` again, or remove it by hand"
        raise HostError(host.name, "not everything of ours went from the host", hint=hint)


def _say_what_came_back(host: Host) -> None:
    """Warn when the system is not the one from before us, by the journal at the start of this run."""
    facts, journal = host.machine.facts, host.ledger.before[1]
    before = journal.baseline.system if journal.baseline else facts.system
    if before == facts.system:
        return
    hook = hooks.installed(journal)
    file = hook.configuration.file
    why = f"{file} describes another one now"
    if journal.checked and journal.checked.adopted:
        why = f"{file} did not describe that one (--adopt-configuration)"
    elif journal.hook and hook.is_edited_since(facts, journal.hook):
        why = f"{file} was edited since"
    host.context.warn(f"the system is not the one from before nixprov ({before}): {why}")
