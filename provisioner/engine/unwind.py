"""Back to what the host was before this run: the switch given up, files, the recorded generation, then GitLab."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from provisioner.engine import crash, overtaken
from provisioner.engine.host import HostRun
from provisioner.errors import HostError, Locked, NixprovError, NothingChanged, SwitchFailed
from provisioner.machine import lock, switch
from provisioner.machine.facts import Facts
from provisioner.machine.journal import Journal, Phase
from provisioner.machine.transaction import JOURNAL, Part, RemoveFile, Shell
from provisioner.steps import STEPS

# No switch does it: the unit still polls with the token that has ended. Jobs that run are waited for, not by us.
_RESTART: Final = "systemctl try-restart --no-block nixprov-runner-{name}.service || :"


class RolledBack(HostError):
    """The run failed with `cause` and everything it had changed was taken back."""

    def __init__(self, host: str, cause: NixprovError) -> None:
        super().__init__(host, f"{cause.message}; rolled back", hint=cause.hint)
        self.cause = cause


class RollbackFailed(HostError):
    """The run failed, and so did going back: the host is somewhere between."""


def unwind(
    run: HostRun, facts: Facts, journal: Journal, *, created: Sequence[int] = (), replaced: Collection[str] = ()
) -> None:
    """Go back to `facts` and `journal` (as probed before the first change); runners of `created` go with it.

    `replaced`: names of the runners whose token this run ended, or put another in the place of.

    Raises Locked, with nothing undone, when another run has taken the host over; RollbackFailed.
    """
    run.phase("unwind")
    run.shield()
    try:
        with _taking_along(run, created):
            _switch_back(run)
            _host_back(run, facts, journal, replaced)
    except Locked:
        raise
    except NixprovError as error:
        _name_remains(run, ours(facts, journal), facts.system)
        raise RollbackFailed(
            run.host, f"the rollback failed: {error.message}", hint="`nixprov up` or `nixprov down` goes on from here"
        ) from error


def restarts(names: Iterable[str]) -> list[Part]:
    """Of the runners that have other tokens now, where no switch has them read: to be done after the files."""
    return [Shell(_RESTART.format(name=name)) for name in names]


def ours(facts: Facts, journal: Journal) -> list[str]:
    """What of ours is on the host, in words."""
    return [what for step in STEPS for what in step.remains(facts, journal)]


def _name_remains(run: HostRun, before: Sequence[str], system: str) -> None:
    try:
        run.probe()
    except HostError:
        run.remains.append("what this run had changed, as far as it came: the host cannot be asked")
        return
    run.remains += [what for what in ours(run.facts, run.journal) if what not in before]
    if run.facts.system != system:
        run.remains.append(f"the system {run.facts.system}")


def release(run: HostRun, journal: Journal, *, created: Sequence[int] = (), replaced: Collection[str] = ()) -> None:
    """Give a host back that was claimed and not changed: the journal becomes what it was before. Raises HostError."""
    run.shield()
    with _taking_along(run, created):
        _look(run)
        _give_back(run, run.facts, _without_lost(run, journal, replaced))


@contextmanager
def _taking_along(run: HostRun, created: Sequence[int]) -> Iterator[None]:
    """Runners that this run made go when the host is back, and are left when it is not: it may use them."""
    try:
        yield
    except Locked:
        raise
    except NixprovError:
        for runner in created:
            overtaken.leave(run, runner, "the host could not be taken back")
        raise
    for runner in created:
        overtaken.delete(run, runner)


def _give_back(run: HostRun, facts: Facts, journal: Journal) -> None:
    """The journal as it was before this run, and the lock with it; `facts` as they were then too.

    Where nothing was installed all of ours goes. A machine whose journal somebody had moved away is another thing.
    """
    if not (journal.phase.has_installed or facts.revision or facts.revision_at_boot):
        return clean(run)
    parts = () if journal.exists else (RemoveFile(JOURNAL),)
    with crash.around("release"):
        try:
            run.transact("release", parts, journal if journal.exists else None, keep=False)
        except NothingChanged:
            # No room even for a journal: the lock goes, and that a run began here stays said.
            run.transact("release", (), None, keep=False)
    return None


def _without_lost(run: HostRun, before: Journal, replaced: Collection[str]) -> Journal:
    """`before`, which must not say that a runner has its token when the host has one that GitLab takes no more."""
    kept = _renewed(run, before, replaced)
    lost = sorted(name for name in replaced if name in before.runners and name not in kept)
    for name in lost:
        text = f"the token that runner {name} has on the host has ended: `nixprov up` makes another"
        run.warn(text)
    return before.without_tokens(lost)


def _renewed(run: HostRun, before: Journal, replaced: Collection[str]) -> list[str]:
    """Of `replaced`, those whose new token of the same runner is on the host: the journal says so when it is there."""
    now, then = run.journal.runners, before.runners
    there = [name for name in sorted(replaced) if name in now and name in then]
    return [name for name in there if now[name].id == then[name].id and now[name].token_version == run.run.id]


def _look(run: HostRun) -> None:
    """What there is now, whatever became of the connection. Raises Locked, ConnectionLost, HostError."""
    # A transaction that took too long for us may still be at work over there.
    run.insist(lambda: run.probe(after=lock.WAIT), "connection lost while taking back")
    run.require_ours()


def _switch_back(run: HostRun) -> None:
    """End what is running; a system that was only tried goes back by itself, and its files with it."""
    _look(run)
    if run.facts.is_switching:
        # What it goes back to may cut this connection just as what it was at did.
        run.insist(lambda: run.script(switch.abort(), status_ok=True), "connection lost while the host goes back")
        _look(run)
        run.require_back()


def _host_back(run: HostRun, facts: Facts, journal: Journal, replaced: Collection[str]) -> None:
    back = _without_lost(run, journal, replaced)
    parts: list[Part] = [part for step in reversed(STEPS) for part in step.restore(facts, run.facts, run.journal)]
    moved = run.facts.text("profile") != facts.text("profile") or run.facts.system != facts.system
    parts.append(Shell(switch.DISARM))
    if moved and facts.generation is not None:
        parts += [*switch.push(), switch.start("rollback", str(facts.generation), crash=crash.in_unit())]
    else:
        parts += restarts(_renewed(run, journal, replaced))
    with crash.around("unwind"):
        run.transact("unwind", parts, run.journal_for(Phase.UNWINDING, nixprov=journal.nixprov))
    if moved:
        result = run.follow()
        if not (result.is_done or result.only_units_failed):
            raise SwitchFailed(run.host, result.explain())
    _give_back(run, facts, back)


def clean(run: HostRun) -> None:
    """Everything of ours that the system itself no longer uses, and the lock with it."""
    parts = [part for step in reversed(STEPS) if not step.feeds_system for part in step.remove(run.facts, run.journal)]
    with crash.around("clean"):
        run.transact("clean", parts, None, keep=False)
