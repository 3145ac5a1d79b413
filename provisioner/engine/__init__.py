"""Runs verbs over hosts: batch by batch, one session each, one result each; what happens is emitted."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

from provisioner import limits
from provisioner.diff import plan_diffs
from provisioner.engine import down, origin, preview, status, up
from provisioner.engine.batches import Rules, Stage
from provisioner.engine.host import Choices, HostRun, Limits
from provisioner.engine.pool import Pool, Task
from provisioner.engine.preview import Depth
from provisioner.engine.prune import Known
from provisioner.engine.unwind import RollbackFailed, RolledBack
from provisioner.errors import ForgeError, NixprovError, NotDescribed, Unreachable
from provisioner.events import BatchBegun, BugMet, Emit, Event, HostDone, Interrupted, PhaseBegun, Planned, Warned
from provisioner.forge import Forge
from provisioner.machine.journal import Run
from provisioner.model import HostSpec
from provisioner.outcome import HostResult, Outcome
from provisioner.plan import HostPlan, file_changes
from provisioner.ssh.session import Cancelled, Session, SshOptions

_LATE_HINT: Final = "what was begun there may go on: `nixprov status` tells; --timeout gives it more time"


class Verb(Enum):
    UP = "up"
    DOWN = "down"
    PLAN = "plan"
    PLAN_DOWN = "plan down"
    STATUS = "status"

    @property
    def changes(self) -> bool:
        return self in (Verb.UP, Verb.DOWN)


@dataclass(frozen=True, slots=True)
class Engine:
    """What all hosts of a run share. `diff`: plans carry the texts that would change; `depth`: and what becomes of it.

    A first interrupt sets `cancel`, a second one `stop`. `limit_s` is the time that each host has, from its first
    connection on; None is no limit.
    """

    forge: Forge
    ssh: SshOptions
    emit: Emit
    run: Run
    limits: Limits = field(default_factory=Limits)
    forks: int = 5
    diff: bool = False
    depth: Depth = Depth.FILES
    debug: bool = False
    cancel: threading.Event = field(default_factory=threading.Event)
    stop: threading.Event = field(default_factory=threading.Event)
    limit_s: float | None = None
    choices: Choices = field(default_factory=Choices)
    _machines: dict[str, str] = field(default_factory=dict, init=False)

    def execute(self, verb: Verb, hosts: Sequence[HostSpec]) -> list[HostResult]:
        """Run `verb` on every host at once; never raises for one host's failure. Results stand in the hosts' order."""
        return self.roll_out(verb, (Stage(tuple(hosts)),))

    def roll_out(self, verb: Verb, stages: Sequence[Stage]) -> list[HostResult]:
        """Run `verb` batch by batch, until the rules say stop: the hosts that are left are then SKIPPED.

        What changes nothing has nothing to be careful about, so it runs on all hosts whatever the rules.
        """
        if not verb.changes:
            stages = (Stage(tuple(host for stage in stages for host in stage.hosts)),)
        batches = [(stage, batch) for stage in stages for batch in stage.batches()]
        results: list[HostResult] = []
        stopped = ""
        for number, (stage, batch) in enumerate(batches, start=1):
            if len(batches) > 1 and not stopped:
                names = tuple(host.name for host in batch)
                self.emit(BatchBegun(number, len(batches), stage.name, names))
            standing = _Standing(stage.rules if verb.changes else None, len(batch), stopped)
            results += self._batch(verb, batch, standing)
            if standing.stopped and not stopped and (number < len(batches) or standing.is_cut_short):
                self.emit(Warned("", f"no further host is begun: {standing.stopped}"))
            stopped = standing.stopped
        return results

    def known(self, hosts: Sequence[HostSpec]) -> dict[str, Known]:
        """Which machine each host is and what its journal says, of those that answer; the others are a warning."""
        found: dict[str, Known] = {}

        def ask(host: HostSpec) -> None:
            try:
                with Session.open(host, self.ssh, cancel=self.cancel) as session:
                    run = HostRun(host, session, self.forge, self.emit, self.run, self.limits, self.cancel)
                    run.probe()
                    found[host.name] = Known(run.facts.machine, run.journal, run.facts.held_by)
            except NixprovError as error:
                self.emit(Warned(host.name, f"not asked: {error.message}"))

        with ThreadPoolExecutor(max_workers=self.forks) as pool:
            list(pool.map(ask, hosts))
        return found

    def _batch(self, verb: Verb, hosts: Sequence[HostSpec], standing: _Standing) -> list[HostResult]:
        """What runs already is never cut off by the failure of another."""
        pool: Pool[HostSpec, HostResult] = Pool(
            lambda task: self._host(verb, task),
            self._given_up,
            self.forks,
            self.limit_s,
            self.cancel,
            on_cancel=lambda: self.emit(Interrupted()),
        )
        for _, result in pool.run(hosts, standing.may_go_on):
            standing.record(self._ended(result))
        for host in hosts:
            if host.name not in standing.results:
                standing.results[host.name] = self._ended(self._not_run(host, standing.stopped))
        return [standing.results[host.name] for host in hosts]

    def _ended(self, result: HostResult) -> HostResult:
        self.emit(HostDone.of(result))
        return result

    def _not_run(self, host: HostSpec, why: str) -> HostResult:
        if self.cancel.is_set():
            return HostResult(host.name, Outcome.INTERRUPTED, 0.0)
        return HostResult(host.name, Outcome.SKIPPED, 0.0, error=f"not begun: {why}")

    def _given_up(self, task: Task[HostSpec]) -> HostResult:
        return HostResult(task.item.name, Outcome.FAILED, task.seconds, error=self._late(), hint=_LATE_HINT)

    def _late(self) -> str:
        return f"not done within {self.limit_s:g} s"

    def _host(self, verb: Verb, task: Task[HostSpec]) -> HostResult:
        account = _Account()
        error: Exception | None = None
        emit = _until_given_up(task, self.emit)
        try:
            outcome = self._connected(verb, task, emit, account)
        except NixprovError as failure:
            outcome, error = _outcome(failure), failure
        except Exception as failure:  # noqa: BLE001 - a bug must not take the other hosts with it
            outcome, error = Outcome.FAILED, failure
            # The report may be what is broken, and a thread that ends without an answer is waited for without end.
            with suppress(Exception):
                emit(BugMet(task.item.name, traceback.format_exc()))
        result = HostResult(
            task.item.name,
            outcome,
            task.seconds,
            remote_commands=account.commands,
            connections=account.connections,
            error="" if error is None else _message(error),
            hint=error.hint if isinstance(error, NixprovError) else "",
            remains=account.remains,
        )
        if task.is_late and outcome is Outcome.INTERRUPTED:
            return replace(result, outcome=Outcome.FAILED, error=self._late(), hint=_LATE_HINT)
        return result

    def _connected(self, verb: Verb, task: Task[HostSpec], emit: Emit, account: _Account) -> Outcome:
        host = task.item
        emit(PhaseBegun(host.name, "connect"))
        with Session.open(host, self.ssh, cancel=task.cancel) as session:
            for warning in session.warnings:
                emit(Warned(host.name, warning))
            run = HostRun(
                host,
                session,
                self.forge,
                emit,
                self.run,
                self.limits,
                task.cancel,
                self.choices,
                self._machines,
                self.stop,
            )
            try:
                return self._verb(verb, run, task)
            finally:
                account.commands, account.connections = session.commands, session.connections
                account.remains = tuple(run.remains)

    def _verb(self, verb: Verb, run: HostRun, task: Task[HostSpec]) -> Outcome:
        if verb is Verb.STATUS:
            run.emit(status.look_at(run))
            return Outcome.UNCHANGED
        planner, apply = _VERBS[verb]
        wanted = planner(run)
        files = file_changes(wanted, run.facts, run.journal) if self.diff else ()
        diffs = plan_diffs(wanted, files) if self.diff else ()
        own = origin.look(run, wanted)
        seen = None if verb.changes else preview.look(run, wanted, files, self.depth)
        run.emit(Planned.of(wanted, diffs, seen, check=not verb.changes))
        preview.require_good(run.host, seen)
        origin.require(run, own)
        if wanted.is_empty:
            return Outcome.UNCHANGED
        if verb.changes:
            if not task.may_change():
                raise Cancelled(run.host, "interrupted before anything was changed")
            apply(run, wanted)
        return Outcome.CHANGED


@dataclass(slots=True)
class _Standing:
    """How a batch stands: its results so far, and why no more of it is begun. Without rules nothing stops it."""

    rules: Rules | None
    size: int
    stopped: str = ""
    results: dict[str, HostResult] = field(default_factory=dict)

    def may_go_on(self) -> bool:
        return not self.stopped

    def record(self, result: HostResult) -> None:
        self.results[result.host] = result
        failed = sum(not known.outcome.is_good for known in self.results.values())
        if self.rules is not None and not self.stopped:
            self.stopped = self.rules.why_stop(failed, self.size)

    @property
    def is_cut_short(self) -> bool:
        return any(result.outcome is Outcome.SKIPPED for result in self.results.values())


def _until_given_up(task: Task[HostSpec], emit: Emit) -> Emit:
    """A thread that nobody waits for must not speak of a host whose result is out."""

    def guarded(event: Event) -> None:
        if not task.is_given_up:
            emit(event)

    return guarded


@dataclass(slots=True)
class _Account:
    """What a host's run came to, however it ended."""

    commands: int = 0
    connections: int = 0
    remains: tuple[str, ...] = ()


_VERBS: dict[Verb, tuple[Callable[[HostRun], HostPlan], Callable[[HostRun, HostPlan], None]]] = {
    Verb.UP: (up.plan, up.apply),
    Verb.PLAN: (up.plan, up.apply),
    Verb.DOWN: (down.plan, down.apply),
    Verb.PLAN_DOWN: (down.plan, down.apply),
}


def _outcome(failure: NixprovError) -> Outcome:
    match failure:
        case Cancelled():
            return Outcome.INTERRUPTED
        case RolledBack():
            return Outcome.ROLLED_BACK
        case RollbackFailed():
            return Outcome.ROLLBACK_FAILED
        case Unreachable():
            return Outcome.UNREACHABLE
        case NotDescribed():
            return Outcome.NOT_DESCRIBED
        case ForgeError():
            return Outcome.FORGE
        case _:
            return Outcome.FAILED


def _message(error: Exception) -> str:
    if isinstance(error, NixprovError):
        # Most end with what the host said, and one line can be all of that.
        whole = error.message
        return whole if len(whole) <= limits.ERROR else f"{whole[: limits.ERROR]}..."
    return f"bug in nixprov: {type(error).__name__}; run again with --debug and report it"
