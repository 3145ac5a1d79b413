"""Back to what the host was before this run: the system rolled back, the files undone, the runners withdrawn."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from provisioner.engine import crash
from provisioner.engine.host import Host
from provisioner.engine.switch import DISARM, Switch, restarts
from provisioner.engine.withdraw import leave, withdraw, withdraw_unused
from provisioner.errors import HostError, Locked, NixprovError, NothingChanged
from provisioner.machine import lock
from provisioner.machine.facts import Facts
from provisioner.machine.journal import Journal, Phase
from provisioner.machine.transaction import JOURNAL, Part, RemoveFile
from provisioner.steps import STEPS


class RolledBack(HostError):
    """The run failed with `cause` and is unwound: nothing of it is left."""

    def __init__(self, host: str, cause: NixprovError) -> None:
        super().__init__(host, f"{cause.message}; rolled back", hint=cause.hint)
        self.cause = cause


class RollbackFailed(HostError):
    """The run failed, and so did unwinding it: the host is somewhere between."""


def unwind(host: Host) -> None:
    """After a failure: the system is rolled back, the files are undone, the runners of this run are withdrawn.

    A host that was only claimed gets its journal back, and its lock is released.

    Raises Locked, with nothing undone, when another run has taken the host over; RollbackFailed; HostError for a host
    that was only claimed.
    """
    words = host.context.words
    for action in host.ledger.updated:
        told = ", ".join(map(str, action.differences))
        host.context.warn(f"{words.runner} {action.name} keeps in {words.name} what this run changed there: {told}")
    host.machine.shield()
    try:
        if host.ledger.is_written:
            _unwind_all(host)
        elif host.ledger.is_claimed:
            _unwind_claim(host)
    except Locked:
        withdraw_unused(host)
        raise


def clean(host: Host) -> None:
    """Remove all of ours that the system itself no longer uses, and the lock with it. Raises HostError."""
    machine = host.machine
    outside = [step for step in reversed(STEPS) if not step.feeds_system]
    parts = [part for step in outside for part in step.remove(machine.facts, machine.journal)]
    with crash.around("clean"):
        machine.transact("clean", parts, None, keep=False)


def ours(facts: Facts, journal: Journal) -> list[str]:
    """What of ours is on the host, in words."""
    return [what for step in STEPS for what in step.remains(facts, journal)]


def _unwind_all(host: Host) -> None:
    ledger = host.ledger
    facts, journal = ledger.before
    try:
        with _withdrawing(host):
            _end_switch(host)
            _undo(host, facts, journal, {*ledger.ended, *ledger.records})
    except Locked:
        raise
    except NixprovError as error:
        _name_remains(host, ours(facts, journal), facts.system)
        raise RollbackFailed(
            host.name, f"the rollback failed: {error.message}", hint="`nixprov up` or `nixprov down` goes on from here"
        ) from error


def _unwind_claim(host: Host) -> None:
    with _withdrawing(host):
        _probe_ours(host)
        journal = _without_lost(host, host.ledger.before[1], host.ledger.ended)
        _release(host, host.machine.facts, journal)


@contextmanager
def _withdrawing(host: Host) -> Iterator[None]:
    """Runners that this run made go when the host is back, and are left when it is not: it may use them."""
    try:
        yield
    except Locked:
        raise
    except NixprovError:
        for runner in host.ledger.created:
            leave(host, runner, "the host could not be taken back")
        raise
    for runner in host.ledger.created:
        withdraw(host, runner)


def _probe_ours(host: Host) -> None:
    """Read the host anew, whatever became of the connection. Raises Locked, ConnectionLost, HostError."""
    machine = host.machine
    # A transaction that took too long for us may still be at work over there.
    machine.persist(lambda: machine.probe(after=lock.WAIT), "connection lost while unwinding")
    if not machine.is_ours:
        raise Locked(host.name, f"taken over by another operator: {machine.holder}", hint="nothing was undone")


def _end_switch(host: Host) -> None:
    """End the switch that goes on; a system that was only tried is rolled back by the host, files and all."""
    _probe_ours(host)
    if host.machine.facts.is_switching:
        switch = Switch(host.machine)
        # The old system may cut this connection just as the new one did.
        host.machine.persist(switch.roll_back, "connection lost while the host rolls back")
        _probe_ours(host)
        switch.require_rolled_back()


def _undo(host: Host, facts: Facts, journal: Journal, replaced: Collection[str]) -> None:
    """The files as in `facts`, and where another system runs or boots by now, its generation."""
    machine, switch = host.machine, Switch(host.machine)
    before = _without_lost(host, journal, replaced)
    parts: list[Part] = [
        part for step in reversed(STEPS) for part in step.restore(facts, machine.facts, machine.journal)
    ]
    has_moved = machine.facts.text("profile") != facts.text("profile") or machine.facts.system != facts.system
    parts.append(DISARM)
    if has_moved and facts.generation is not None:
        parts += switch.back_to(facts.generation)
    else:
        parts += restarts(_renewed(host, journal, replaced))
    with crash.around("unwind"):
        machine.transact("unwind", parts, machine.journal_for(Phase.UNWINDING, nixprov=journal.nixprov))
    if has_moved:
        switch.judge(switch.follow())
    _release(host, facts, before)


def _release(host: Host, facts: Facts, journal: Journal) -> None:
    """The journal as it was before this run, and the lock with it; `facts` as they were then too.

    Where nothing was installed all of ours goes. A machine whose journal somebody had moved away is another thing.
    """
    if not (journal.phase.has_installed or facts.revision or facts.revision_at_boot):
        clean(host)
        return
    parts = () if journal.exists else (RemoveFile(JOURNAL),)
    with crash.around("release"):
        try:
            host.machine.transact("release", parts, journal if journal.exists else None, keep=False)
        except NothingChanged:
            # No room even for a journal: the lock goes, and that a run began here stays said.
            host.machine.transact("release", (), None, keep=False)


def _without_lost(host: Host, before: Journal, replaced: Collection[str]) -> Journal:
    """`before`, which must not say that a runner has its token when the host has one that is taken no more."""
    kept, words = _renewed(host, before, replaced), host.context.words
    lost = sorted(name for name in replaced if name in before.runners and name not in kept)
    for name in lost:
        host.context.warn(
            f"the {words.credential} that {words.runner} {name} has on the host has ended: `nixprov up` makes another"
        )
    return before.without_tokens(lost)


def _renewed(host: Host, before: Journal, replaced: Collection[str]) -> list[str]:
    """Of `replaced`, those whose new token of the same runner is on the host: the journal says so when it is there."""
    run = host.context.run.id
    now, then = host.machine.journal.runners, before.runners
    there = [name for name in sorted(replaced) if name in now and name in then]
    return [name for name in there if now[name].id == then[name].id and now[name].token_version == run]


def _name_remains(host: Host, before: Sequence[str], system: str) -> None:
    machine, remains = host.machine, host.ledger.remains
    try:
        machine.probe()
    except HostError:
        remains.append("what this run had changed, as far as it came: the host cannot be asked")
        return
    remains += [what for what in ours(machine.facts, machine.journal) if what not in before]
    if machine.facts.system != system:
        remains.append(f"the system {machine.facts.system}")
