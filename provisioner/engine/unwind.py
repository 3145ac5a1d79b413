"""Back to the host before this run: the system rolled back, the files undone, the runners withdrawn."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from provisioner.engine import crash
from provisioner.engine.host import Host
from provisioner.engine.switch import DISARM, Switch, restarts
from provisioner.engine.withdraw import leave, withdraw, withdraw_unused
from provisioner.errors import HostError, Locked, NixprovError, NothingChanged, SwitchFailed
from provisioner.machine import lock
from provisioner.machine.facts import Facts
from provisioner.machine.journal import Journal, Phase
from provisioner.machine.transaction import JOURNAL, Part, RemoveFile
from provisioner.steps import STEPS


class RolledBack(HostError):
    """The run failed with `cause` and is unwound completely."""

    def __init__(self, host: str, cause: NixprovError) -> None:
        super().__init__(host, f"{cause.message}; rolled back", hint=cause.hint)
        self.cause = cause


class RollbackFailed(HostError):
    """The run failed, and so did its unwinding: the host is in a state between."""


def unwind(host: Host) -> None:
    """After a failure: the system is rolled back, the files are undone, the runners of this run are withdrawn.

    A host that was only claimed gets its journal back, and its lock is released.

    Raises Locked, with nothing undone, when another run has taken the host over. Raises RollbackFailed, and HostError
    for a host that was only claimed.
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
    with crash.around("clean"):
        host.machine.transact("clean", outside(host), None, keep=False)


def outside(host: Host, *, but: str = "") -> list[Part]:
    """Parts that remove all that no system is built from, without the step named `but`."""
    machine = host.machine
    steps = [step for step in reversed(STEPS) if not step.feeds_system and step.name != but]
    return [part for step in steps for part in step.remove(machine.facts, machine.journal)]


def ours(facts: Facts, journal: Journal) -> list[str]:
    """The things of ours on the host, in words."""
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
    """Withdraw this run's runners once the host is back. Otherwise leave them: the host may use them."""
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
    """Read the host anew, over a new connection if need be. Raises Locked, ConnectionLost, HostError."""
    machine = host.machine
    # A transaction past our time limit may still be at work there.
    machine.persist(lambda: machine.probe(after=lock.WAIT), "connection lost while unwinding")
    if not machine.is_ours:
        raise Locked(host.name, f"taken over by another operator: {machine.holder}", hint="nothing was undone")


def _end_switch(host: Host) -> None:
    """End the open switch. A system on trial is rolled back by the host, files and all."""
    _probe_ours(host)
    if host.machine.facts.is_switching:
        switch = Switch(host.machine)
        # The old system may cut this connection just as the new one did.
        host.machine.persist(switch.roll_back, "connection lost while the host rolls back")
        _probe_ours(host)
        switch.require_rolled_back()


def _undo(host: Host, facts: Facts, journal: Journal, replaced: Collection[str]) -> None:
    """Restore the files of `facts`, and its generation where another system runs or boots by now.

    A host that went back by itself has looked at its system. Another one is then its owner's, who switched meanwhile.
    """
    machine, switch = host.machine, Switch(host.machine)
    before = _without_lost(host, journal, replaced)
    parts: list[Part] = [
        part for step in reversed(STEPS) for part in step.restore(facts, machine.facts, machine.journal)
    ]
    is_another = machine.facts.text("profile") != facts.text("profile") or machine.facts.system != facts.system
    has_moved = is_another and machine.journal.phase is not Phase.WENT_BACK
    if is_another and not has_moved:
        host.context.warn("the host runs or boots a system of somebody else's switch: that system is left as it is")
    parts.append(DISARM)
    if has_moved and facts.generation is not None:
        parts += switch.back_to(facts.generation)
    else:
        parts += restarts(_renewed(host, journal, replaced))
    with crash.around("unwind"):
        machine.transact("unwind", parts, machine.journal_for(Phase.UNWINDING, nixprov=journal.nixprov))
    if has_moved and facts.generation is None:
        raise SwitchFailed(host.name, "no generation holds the system from before, so the new one still runs")
    if has_moved:
        switch.judge(switch.follow())
    _release(host, facts, before)


def _release(host: Host, facts: Facts, journal: Journal) -> None:
    """Restore the journal from before this run, and release the lock; `facts` are from then too.

    Without an earlier installation all of ours goes. A machine whose journal was moved away is another case.
    """
    if not (journal.phase.has_installed or facts.revision or facts.revision_at_boot):
        clean(host)
        return
    parts = () if journal.exists else (RemoveFile(JOURNAL),)
    with crash.around("release"):
        try:
            host.machine.transact("release", parts, journal if journal.exists else None, keep=False)
        except NothingChanged:
            # No room even for a journal: the lock goes, and the journal still names this run.
            host.machine.transact("release", (), None, keep=False)


def _without_lost(host: Host, before: Journal, replaced: Collection[str]) -> Journal:
    """`before` without the tokens that have ended: it must not claim a valid token for a runner without one."""
    kept, words = _renewed(host, before, replaced), host.context.words
    lost = sorted(name for name in replaced if name in before.runners and name not in kept)
    for name in lost:
        host.context.warn(
            f"the {words.credential} that {words.runner} {name} has on the host has ended: `nixprov up` makes another"
        )
    return before.without_tokens(lost)


def _renewed(host: Host, before: Journal, replaced: Collection[str]) -> list[str]:
    """Of `replaced`, the same runners with their new token on the host. The journal names it only once it is there."""
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
