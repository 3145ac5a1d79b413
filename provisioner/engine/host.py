"""One host in the hands of a verb: a constant context, the remote machine, and a ledger of changes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

from provisioner import steps
from provisioner.ci.base import Provider, RunnerAction, Words
from provisioner.engine import crash
from provisioner.errors import (
    CiError,
    ConnectionLost,
    Locked,
    NothingChanged,
    RemoteFailed,
    SwitchFailed,
)
from provisioner.events import Emit, Logged, PhaseBegun, Warned
from provisioner.hooks import Hook
from provisioner.machine import lock, switch
from provisioner.machine.facts import Facts
from provisioner.machine.journal import Checked, Journal, Phase, Run, RunnerRecord
from provisioner.machine.origin import Origin
from provisioner.machine.preview import Preview
from provisioner.machine.switch import SwitchResult
from provisioner.machine.transaction import (
    LOCKED_STATUS,
    STALE_STATUS,
    UNCHANGED_STATUS,
    KeepCopy,
    Part,
    Transaction,
    unchanged_because,
)
from provisioner.model import HostSpec, Identity, Mark, Secret
from provisioner.plan import FileChange, HostPlan, file_changes, hook_of
from provisioner.ssh.exec import Completed
from provisioner.ssh.session import Cancelled, Session
from provisioner.verb import Verb

TRANSACTION_S: Final = 15
RECONNECT_WAITS_S: Final = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)


@dataclass(frozen=True, slots=True)
class Limits:
    """Time limits in seconds. `confirm_s`: the host's own limit until it is confirmed; 0 needs no confirmation.

    `transaction_s`: a transaction may write a boot loader, flush a busy disk or remove gigabytes of job files.
    `switch_s`: builds take hours, and so may the jobs of a unit that stops. A dead line is noticed without it.
    """

    command_s: float = 60.0
    transaction_s: float = 900.0
    switch_s: float = 24 * 3600.0
    unit_s: int = 30
    contact_s: float = 90.0
    confirm_s: int = 180
    drain_s: float = 3600.0
    poll_s: float = 0.5
    second_thoughts_s: float = 3.0
    overtaken_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Choices:
    """The operator's decisions for all hosts."""

    take_over: bool = False
    force: bool = False
    new_tokens: bool = False
    downgrade: bool = False
    adopt_configuration: bool = False


class Depth(Enum):
    """How far a plan looks into the system to come. Only the store ever changes."""

    FILES = "files"
    EVALUATE = "evaluate"
    BUILD = "build"


@dataclass(frozen=True, slots=True)
class Context:
    """One host's share of a run: its specification, the provider, the run and its limits.

    Only `names` changes: each machine of the whole run, with the first name that led to it. `diff`: plans carry the
    texts that would change. `depth`: how far a plan looks into the system to come.
    """

    spec: HostSpec
    ci: Provider
    emit: Emit
    run: Run
    verb: Verb
    limits: Limits = field(default_factory=Limits)
    choices: Choices = field(default_factory=Choices)
    names: dict[str, str] = field(default_factory=dict)
    diff: bool = False
    depth: Depth = Depth.FILES

    @property
    def host(self) -> str:
        return self.spec.name

    @property
    def words(self) -> Words:
        return self.ci.server.words

    @property
    def goes_on(self) -> str:
        """A hint for a run that this verb can resume."""
        return f"`nixprov {self.verb.command}` goes on from here"

    def enter(self, phase: str) -> None:
        self.emit(PhaseBegun(self.host, phase))

    def warn(self, text: str) -> None:
        self.emit(Warned(self.host, text))

    def log(self, text: str) -> None:
        self.emit(Logged(self.host, text))


@dataclass(slots=True)
class Machine:
    """The host as it can be reached: its session, its facts and its journal as last read or written.

    All remote work passes through here, so counting, locking and reconnecting are in one place. A first interrupt sets
    `cancel`: leave well. A second one sets `stop`: end and roll back the switch.
    """

    context: Context
    session: Session
    cancel: threading.Event = field(default_factory=threading.Event)
    stop: threading.Event = field(default_factory=threading.Event)
    facts: Facts = field(init=False)
    journal: Journal = field(init=False)

    def probe(self, *, after: str = "") -> None:
        """Read the host anew, when the shell of `after` has ended: one remote command. Raises HostError."""
        done = self.command(after.encode() + steps.probe())
        self.facts = Facts.parse(self.context.host, done.stdout)
        # A claim makes the journal this machine's from here on. A later run must not find another machine's runners in
        # it.
        self.journal = Journal.read(self.facts).of_machine(self.facts.machine)

    @property
    def is_ours(self) -> bool:
        """Whether the last transaction there was this run's."""
        return self.journal.run is not None and self.journal.run.id == self.context.run.id

    @property
    def is_free(self) -> bool:
        return self.facts.held_by in ("", self.context.run.id)

    @property
    def holder(self) -> str:
        run = self.journal.run
        if run is None:
            return "an unknown run"
        return f"{run.by} (`{run.verb}` since {run.age()}, run {run.id}, {self.journal.phase.value})"

    @property
    def what_goes_on(self) -> str:
        return f"a switch of {self.holder} goes on: {switch.stage(self.facts.text('switch-result'))}"

    def journal_for(self, phase: Phase, **changes: object) -> Journal:
        """The journal as this run would write it next."""
        run = self.context.run
        base = replace(self.journal, host=self.context.host, machine=self.facts.machine, phase=phase, run=run)
        return replace(base, **changes)  # type: ignore[arg-type]

    def transact(
        self, name: str, parts: Sequence[Part], journal: Journal | None, *, guard: str = "", keep: bool = True
    ) -> None:
        """Do `parts` under the lock, the journal first; `keep`: this run goes on holding the host.

        An interrupt comes before or after the transaction. Cut in the middle, it would go on remotely while this run
        unwinds. Raises Cancelled before it, Locked, NothingChanged, RemoteFailed.
        """
        if self.cancel.is_set():
            raise Cancelled(self.context.host, "interrupted", hint=self.context.goes_on)
        content = None if journal is None else journal.render()
        first = lock.take(self.context.run.id) if keep else lock.RELEASE
        at = crash.in_transaction(name)
        # Another run's transaction takes a moment. Waiting for it lets the error name its changes.
        transaction = Transaction(parts, self.journal.sha256, content, guard, first, TRANSACTION_S, crash_at=at)
        limit_s = self.context.limits.transaction_s
        self._answer(self.session.run(transaction.script(), timeout_s=limit_s, cancel=None), name)
        if journal is not None:
            self.journal = journal.written()
        for kept in parts:
            if isinstance(kept, KeepCopy):
                self.context.warn(f"{kept.path} was edited by hand: what it said is kept in {kept.copy}")

    def command(self, script: bytes) -> Completed:
        """Run a read-only script. Raises HostError, SwitchFailed by the status that machine/switch.py knows."""
        return self._answer(self.session.run(script, timeout_s=self.context.limits.command_s, cancel=self.cancel))

    def stream(self, script: bytes, on_output: Callable[[bytes], None]) -> Completed:
        """Run a script that takes as long as a switch, with any status. Its answer passes through `on_output`."""
        limit_s = self.context.limits.switch_s
        return self.session.run(script, timeout_s=limit_s, on_output=on_output, cancel=self.cancel, keep=False)

    def persist(self, action: Callable[[], object], what: str, *, fresh: bool = False) -> None:
        """Do `action`, again over new connections after a loss, with growing pauses; `fresh`: over a new one at once.

        Raises ConnectionLost when no connection comes back.
        """
        for wait in (*RECONNECT_WAITS_S, None):
            try:
                if fresh:
                    self._reconnect()
                action()
            except ConnectionLost as lost:
                if wait is None:
                    raise ConnectionLost(self.context.host, "the connection did not come back") from lost
            else:
                return
            self.context.warn(f"{what}; again in {wait:g} s")
            self.cancel.wait(wait)
            fresh = True

    def wait_until(self, limit_s: float, done: Callable[[], bool], *, pause_s: float | None = None) -> bool:
        """Poll `done()` until it is true or `limit_s` passed. Raises Cancelled."""
        end = time.monotonic() + limit_s
        while not done():
            if self.cancel.wait(self.context.limits.poll_s if pause_s is None else pause_s):
                raise Cancelled(self.context.host, "interrupted", hint=self.context.goes_on)
            if time.monotonic() > end:
                return False
        return True

    def shield(self) -> None:
        """Ignore interrupts from here on: unwinding must not end half-way."""
        self.cancel = threading.Event()

    def _reconnect(self) -> None:
        try:
            self.session.reconnect(cancel=self.cancel)
        except (Cancelled, ConnectionLost):
            raise
        except Exception as error:  # every way in which a machine can still be away
            raise ConnectionLost(self.context.host, str(error)) from error

    def _answer(self, done: Completed, transaction: str = "") -> Completed:
        crash.after_transaction(transaction, done.status)
        if done.status == 0:
            return done
        host = self.context.host
        said = " / ".join(line for line in done.stderr.splitlines()[-8:] if line.strip())
        if done.status == LOCKED_STATUS:
            raise Locked(host, said, hint="wait for it to end, then run again")
        if done.status == STALE_STATUS:
            raise Locked(host, f"another operator changed the host meanwhile: {said}", hint="run again")
        if done.status == UNCHANGED_STATUS:
            why, hint = unchanged_because(done.stderr)
            raise NothingChanged(host, why, hint=hint)
        if done.status in (switch.NOT_ACTIVE_STATUS, switch.UNCONFIRMED_STATUS):
            raise SwitchFailed(host, said, hint="see its log on the host with journalctl")
        raise RemoteFailed(host, f"a remote command ended with status {done.status}: {said or 'no message'}")


@dataclass(slots=True)
class Ledger:
    """The changes of this run so far, for unwinding. `remains`: lines about things that unwinding could not undo.

    `before`: facts and journal before the first change. `switched`: how the switch ended. `created`: this run's runners
    at the provider. `ended`: names of runners with an earlier token that may have ended. `records`, `tokens`: of each
    runner with a new token. `pending`: runners that the provider refused to withdraw.
    """

    before: tuple[Facts, Journal] = field(init=False)
    switched: SwitchResult = field(init=False)
    checked: Checked | None = None
    created: list[Identity] = field(default_factory=list)
    ended: set[str] = field(default_factory=set)
    records: dict[str, RunnerRecord] = field(default_factory=dict)
    tokens: dict[str, Secret] = field(default_factory=dict)
    updated: list[RunnerAction] = field(default_factory=list)
    pending: list[tuple[RunnerRecord, CiError]] = field(default_factory=list)
    remains: list[str] = field(default_factory=list)
    is_claimed: bool = False
    is_drained: bool = False
    is_written: bool = False

    @property
    def has_changes(self) -> bool:
        """Whether more than the lock was taken; the end of such a run is reported as rolled back."""
        return bool(self.is_written or self.is_drained or self.records)


@dataclass(slots=True)
class Host:
    """One host in one run, handed from phase to phase. The looks' findings are None until then.

    `own`: whether the configuration describes the running system. `preview`: the system to come.
    """

    context: Context
    machine: Machine
    ledger: Ledger = field(default_factory=Ledger)
    plan: HostPlan = field(init=False)
    hook: Hook = field(init=False)
    files: tuple[FileChange, ...] = ()
    own: Origin | None = None
    preview: Preview | None = None

    @property
    def name(self) -> str:
        return self.context.host

    def mark(self, runner: str) -> Mark:
        """The mark of ours at the provider."""
        return Mark(self.name, runner, self.machine.facts.machine)

    def decide(self, plan: HostPlan) -> None:
        """Keep the plan and its hook, and the texts behind it when the operator wants to see them."""
        facts, journal = self.machine.facts, self.machine.journal
        self.plan = plan
        self.hook = hook_of(plan, facts, journal)
        if self.context.diff:
            self.files = file_changes(plan, facts, journal)

    def claim(self, phase: Phase, **changes: object) -> None:
        """Take the host for this run, before anything else anywhere is changed. Raises Locked."""
        self.ledger.before = (self.machine.facts, self.machine.journal)
        with crash.around("claim"):
            self.machine.transact("claim", (), self.machine.journal_for(phase, **changes))
        self.ledger.is_claimed = True

    def write(self, parts: Sequence[Part], journal: Journal, *, keep: bool) -> None:
        """The one transaction that changes files. From its first change on, unwinding undoes everything."""
        self.ledger.is_written = True
        try:
            with crash.around("write"):
                self.machine.transact("write", parts, journal, keep=keep)
        except NothingChanged:
            self.ledger.is_written = False
            raise
