"""Runs verbs over hosts: a bounded pool of threads, one session each, one result each; what happens is emitted."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import Enum

from provisioner.engine import down, status, up
from provisioner.engine.host import HostRun, Limits
from provisioner.engine.unwind import RollbackFailed, RolledBack
from provisioner.errors import ForgeError, NixprovError, Unreachable
from provisioner.events import Emit, Event, HostResult, Outcome
from provisioner.forge import Forge
from provisioner.hosts.journal import Run
from provisioner.hosts.ssh import Cancelled, Session, SshOptions
from provisioner.model import HostSpec
from provisioner.plan import HostPlan, file_changes


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
    """What all hosts of a run share. `diff` makes plans carry the texts that would change."""

    forge: Forge
    ssh: SshOptions
    emit: Emit
    run: Run
    limits: Limits = field(default_factory=Limits)
    forks: int = 5
    diff: bool = False
    debug: bool = False
    cancel: threading.Event = field(default_factory=threading.Event)

    def execute(self, verb: Verb, hosts: Sequence[HostSpec]) -> list[HostResult]:
        """Run `verb` on every host; never raises for one host's failure. Results stand in the hosts' order."""
        with ThreadPoolExecutor(max_workers=max(1, min(self.forks, len(hosts)))) as pool:
            return list(pool.map(lambda host: self._host(verb, host), hosts))

    def _host(self, verb: Verb, host: HostSpec) -> HostResult:
        started = time.monotonic()
        count = _Count()
        try:
            outcome = Outcome.INTERRUPTED if self.cancel.is_set() else self._connected(verb, host, count)
            error: Exception | None = None
        except NixprovError as failure:
            outcome, error = _outcome(failure), failure
        except Exception as failure:  # noqa: BLE001 - a bug must not take the other hosts with it
            outcome, error = Outcome.FAILED, failure
            self.emit(Event("bug", host.name, {"traceback": traceback.format_exc()}))
        result = HostResult(
            host.name,
            outcome,
            time.monotonic() - started,
            remote_commands=count.commands,
            connections=count.connections,
            error="" if error is None else _message(error),
            hint=error.hint if isinstance(error, NixprovError) else "",
        )
        self.emit(Event("host", host.name, {"result": result}))
        return result

    def _connected(self, verb: Verb, host: HostSpec, count: _Count) -> Outcome:
        self.emit(Event("phase", host.name, {"phase": "connect"}))
        with Session.open(host, self.ssh, cancel=self.cancel) as session:
            for warning in session.warnings:
                self.emit(Event("warning", host.name, {"text": warning}))
            try:
                run = HostRun(host, session, self.forge, self.emit, self.run, self.limits, self.cancel)
                return self._verb(verb, run)
            finally:
                count.commands, count.connections = session.commands, session.connections

    def _verb(self, verb: Verb, run: HostRun) -> Outcome:
        if verb is Verb.STATUS:
            run.emit("status", report=status.look_at(run))
            return Outcome.UNCHANGED
        planner, apply = _VERBS[verb]
        wanted = planner(run)
        files = file_changes(wanted, run.facts, run.journal) if self.diff else ()
        run.emit("plan", plan=wanted, files=files, check=not verb.changes)
        if wanted.is_empty:
            return Outcome.UNCHANGED
        if verb.changes:
            apply(run, wanted)
        return Outcome.CHANGED


@dataclass(slots=True)
class _Count:
    commands: int = 0
    connections: int = 0


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
        case ForgeError():
            return Outcome.FORGE
        case _:
            return Outcome.FAILED


def _message(error: Exception) -> str:
    if isinstance(error, NixprovError):
        return error.message
    return f"bug in nixprov: {type(error).__name__}; run again with --debug and report it"
