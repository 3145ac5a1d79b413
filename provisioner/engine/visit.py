"""One host of a run, from a job to its result. All are values, so another process may do it."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeAlias

from provisioner import limits
from provisioner.ci.base import Provider
from provisioner.engine.host import Choices, Context, Depth, Host, Limits, Machine
from provisioner.engine.pool import Task
from provisioner.engine.unwind import RollbackFailed, RolledBack
from provisioner.errors import CiError, NixprovError, NotDescribed, Unreachable
from provisioner.events import BugMet, Emit
from provisioner.machine.journal import Run
from provisioner.model import HostSpec
from provisioner.outcome import HostResult, Outcome
from provisioner.ssh.session import Cancelled, Session, SshOptions
from provisioner.verb import Verb

# A verb at a host. Its second argument tells, once, whether it may still begin to change something.
Perform: TypeAlias = Callable[[Host, Callable[[], bool]], Outcome]


@dataclass(frozen=True, slots=True)
class Brief:
    """All hosts' share of a run. `diff`: plans carry the texts that would change; `depth`: how far a plan looks."""

    run: Run
    verb: Verb
    ssh: SshOptions = field(default_factory=SshOptions)
    limits: Limits = field(default_factory=Limits)
    choices: Choices = field(default_factory=Choices)
    diff: bool = False
    depth: Depth = Depth.FILES


@dataclass(frozen=True, slots=True)
class Job:
    """A host, and the verb for it. Pickles; a password in it travels by `sealing.Sealer` only."""

    spec: HostSpec
    brief: Brief


@dataclass(frozen=True, slots=True)
class Visitor:
    """A process' own part in its jobs. `stop` is set by a second interrupt: switches end and are rolled back.

    `names`: the machines of its jobs, each with the first name that led to it. Two names of one machine are noticed
    within one process only.
    """

    ci: Provider
    perform: Perform
    stop: threading.Event = field(default_factory=threading.Event)
    names: dict[str, str] = field(default_factory=dict)

    def visit(self, task: Task[Job], emit: Emit) -> HostResult:
        """Do the task's job; never raises."""
        job, account = task.item, _Account()
        error: Exception | None = None
        try:
            outcome = self._connected(task, emit, account)
        except NixprovError as failure:
            outcome, error = _outcome(failure), failure
        except Exception as failure:  # noqa: BLE001 - a bug must not take the other hosts with it
            outcome, error = Outcome.FAILED, failure
            # The report itself may be broken, and a thread that ends without an answer is waited for without end.
            with suppress(Exception):
                emit(BugMet(job.spec.name, traceback.format_exc()))
        return HostResult(
            job.spec.name,
            outcome,
            task.seconds,
            remote_commands=account.commands,
            connections=account.connections,
            error="" if error is None else told(error),
            hint=error.hint if isinstance(error, NixprovError) else "",
            remains=account.remains,
        )

    def probe(self, job: Job, emit: Emit, cancel: threading.Event) -> Machine:
        """Read the host and hang up. Raises HostError."""
        with Session.open(job.spec, job.brief.ssh, cancel=cancel) as session:
            machine = Machine(self._context(job, emit), session, cancel)
            machine.probe()
            return machine

    def _connected(self, task: Task[Job], emit: Emit, account: _Account) -> Outcome:
        context = self._context(task.item, emit)
        context.enter("connect")
        with Session.open(task.item.spec, task.item.brief.ssh, cancel=task.cancel) as session:
            for warning in session.warnings:
                context.warn(warning)
            host = Host(context, Machine(context, session, task.cancel, self.stop))
            try:
                return self.perform(host, task.may_change)
            finally:
                account.commands, account.connections = session.commands, session.connections
                account.remains = tuple(host.ledger.remains)

    def _context(self, job: Job, emit: Emit) -> Context:
        brief = job.brief
        return Context(
            job.spec,
            self.ci,
            emit,
            brief.run,
            brief.verb,
            brief.limits,
            brief.choices,
            self.names,
            diff=brief.diff,
            depth=brief.depth,
        )


@dataclass(slots=True)
class _Account:
    """The numbers of one host, after success or failure."""

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
        case CiError():
            return Outcome.CI
        case _:
            return Outcome.FAILED


def told(error: Exception) -> str:
    if isinstance(error, NixprovError):
        # Most messages end with the host's own output, and one line can be all of that.
        whole = error.message
        return whole if len(whole) <= limits.ERROR else f"{whole[: limits.ERROR]}..."
    return f"bug in nixprov: {type(error).__name__}; run again with --debug and report it"
