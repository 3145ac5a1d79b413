"""A verb rolled out over hosts: batch by batch, one session each, one result each; what happens is emitted."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias, TypeVar

from provisioner import limits
from provisioner.batches import Rules, Stage
from provisioner.engine.host import Choices, Context, Depth, Host, Limits, Machine
from provisioner.engine.pool import Pool, Task
from provisioner.engine.unwind import RollbackFailed, RolledBack
from provisioner.errors import ForgeError, NixprovError, NotDescribed, Unreachable
from provisioner.events import BatchBegun, BugMet, Emit, Event, HostDone, Interrupted, Warned
from provisioner.forge import Forge
from provisioner.machine.journal import Run
from provisioner.model import HostSpec
from provisioner.outcome import HostResult, Outcome
from provisioner.ssh.session import Cancelled, Session, SshOptions
from provisioner.verb import Verb

T = TypeVar("T")
# A verb at a host; what it is given beside tells, once, whether it may still begin to change something.
Perform: TypeAlias = Callable[[Host, Callable[[], bool]], Outcome]

_LATE_HINT: Final = "what was begun there may go on: `nixprov status` tells; --timeout gives it more time"


@dataclass(frozen=True, slots=True)
class Rollout:
    """What all hosts of a run share. `diff`: plans carry the texts that would change; `depth`: and what becomes of it.

    A first interrupt sets `cancel`, a second one `stop`. `limit_s` is the time that each host has, from its first
    connection on; None is no limit.
    """

    forge: Forge
    ssh: SshOptions
    emit: Emit
    run: Run
    verb: Verb
    perform: Perform
    limits: Limits = field(default_factory=Limits)
    forks: int = 5
    diff: bool = False
    depth: Depth = Depth.FILES
    cancel: threading.Event = field(default_factory=threading.Event)
    stop: threading.Event = field(default_factory=threading.Event)
    limit_s: float | None = None
    choices: Choices = field(default_factory=Choices)
    _names: dict[str, str] = field(default_factory=dict, init=False)

    def roll_out(self, stages: Sequence[Stage]) -> list[HostResult]:
        """Do the verb batch by batch, until the rules say stop: the hosts that are left are then SKIPPED.

        Never raises for one host's failure. Results stand in the hosts' order. What changes nothing has nothing to be
        careful about, so it is done on all hosts whatever the rules.
        """
        if not self.verb.changes:
            stages = (Stage(tuple(host for stage in stages for host in stage.hosts)),)
        batches = [(stage, batch) for stage in stages for batch in stage.batches()]
        results: list[HostResult] = []
        stopped = ""
        for number, (stage, batch) in enumerate(batches, start=1):
            if len(batches) > 1 and not stopped:
                names = tuple(host.name for host in batch)
                self.emit(BatchBegun(number, len(batches), stage.name, names))
            standing = _Standing(stage.rules if self.verb.changes else None, len(batch), stopped)
            results += self._batch(batch, standing)
            if standing.stopped and not stopped and (number < len(batches) or standing.is_cut_short):
                self.emit(Warned("", f"no further host is begun: {standing.stopped}"))
            stopped = standing.stopped
        return results

    def probe(self, hosts: Sequence[HostSpec], found: Callable[[Machine], T]) -> dict[str, T]:
        """What `found` makes of each host that answers, by name; the others are a warning. Changes nothing."""
        answers: dict[str, T] = {}

        def ask(host: HostSpec) -> None:
            try:
                with Session.open(host, self.ssh, cancel=self.cancel) as session:
                    machine = Machine(self._context(host, self.emit), session, self.cancel)
                    machine.probe()
                    answers[host.name] = found(machine)
            except NixprovError as error:
                self.emit(Warned(host.name, f"not asked: {error.message}"))

        with ThreadPoolExecutor(max_workers=self.forks) as pool:
            list(pool.map(ask, hosts))
        return answers

    def _batch(self, hosts: Sequence[HostSpec], standing: _Standing) -> list[HostResult]:
        """What has begun is never cut off by the failure of another."""
        pool: Pool[HostSpec, HostResult] = Pool(
            self._host,
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

    def _host(self, task: Task[HostSpec]) -> HostResult:
        account = _Account()
        error: Exception | None = None
        emit = _until_given_up(task, self.emit)
        try:
            outcome = self._connected(task, emit, account)
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
            error="" if error is None else told(error),
            hint=error.hint if isinstance(error, NixprovError) else "",
            remains=account.remains,
        )
        if task.is_late and outcome is Outcome.INTERRUPTED:
            return replace(result, outcome=Outcome.FAILED, error=self._late(), hint=_LATE_HINT)
        return result

    def _connected(self, task: Task[HostSpec], emit: Emit, account: _Account) -> Outcome:
        context = self._context(task.item, emit)
        context.enter("connect")
        with Session.open(task.item, self.ssh, cancel=task.cancel) as session:
            for warning in session.warnings:
                context.warn(warning)
            host = Host(context, Machine(context, session, task.cancel, self.stop))
            try:
                return self.perform(host, task.may_change)
            finally:
                account.commands, account.connections = session.commands, session.connections
                account.remains = tuple(host.ledger.remains)

    def _context(self, spec: HostSpec, emit: Emit) -> Context:
        return Context(
            spec,
            self.forge,
            emit,
            self.run,
            self.verb,
            self.limits,
            self.choices,
            self._names,
            diff=self.diff,
            depth=self.depth,
        )


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
    """What a host came to, however it ended."""

    commands: int = 0
    connections: int = 0
    remains: tuple[str, ...] = ()


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


def told(error: Exception) -> str:
    if isinstance(error, NixprovError):
        # Most end with what the host said, and one line can be all of that.
        whole = error.message
        return whole if len(whole) <= limits.ERROR else f"{whole[: limits.ERROR]}..."
    return f"bug in nixprov: {type(error).__name__}; run again with --debug and report it"
