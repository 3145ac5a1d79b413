"""One host during one run: its session, what is known of it, and the few things every verb does with it.

Everything that leaves for the host goes through here, so counting, locking and reconnecting are in one place.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from provisioner import limits
from provisioner.engine import crash
from provisioner.errors import (
    ConnectionLost,
    HostError,
    HostRefused,
    Locked,
    NothingChanged,
    RemoteFailed,
    SwitchFailed,
)
from provisioner.events import Emit, Logged, PhaseBegun, Warned
from provisioner.forge import Forge
from provisioner.machine import lock, switch, trust
from provisioner.machine.facts import Facts, probe_script
from provisioner.machine.flaws import Flaws
from provisioner.machine.journal import Checked, Journal, Phase, Run
from provisioner.machine.switch import Followed, SwitchResult
from provisioner.machine.transaction import (
    LOCKED_STATUS,
    PATH,
    STALE_STATUS,
    UNCHANGED_STATUS,
    KeepCopy,
    Part,
    Transaction,
    unchanged_because,
)
from provisioner.model import HostSpec
from provisioner.ssh.exec import Completed
from provisioner.ssh.session import Cancelled, Session
from provisioner.ssh.stream import Lines
from provisioner.steps import STEPS

TRANSACTION_S: Final = 15
RECONNECT_WAITS_S: Final = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)


@dataclass(frozen=True, slots=True)
class Limits:
    """How long things may take, in seconds. `confirm_s`: how long a host waits to be confirmed; 0: it does not.

    `transaction_s`: one may write a boot loader, flush a busy disk or remove what gigabytes of jobs have left.
    `switch_s`: builds take hours, and jobs that a unit waits for as it stops; a dead line is noticed without it.
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
    """What the operator decided for all hosts."""

    take_over: bool = False
    force: bool = False
    new_tokens: bool = False
    downgrade: bool = False
    adopt_configuration: bool = False


class Detached(ConnectionLost):
    """The switch goes on without us, because the connection is gone for good: nothing may be unwound now."""


class DetachedByUser(Cancelled):
    """The same, because the operator said so."""


class Stopped(HostError):
    """The operator wants the switch stopped and everything taken back."""


@dataclass(slots=True)
class HostRun:
    """Mutable on purpose: facts and journal are replaced as the run goes on; everything in them is frozen.

    `machines`: the machines that the whole run is at, with the name by which it came to each; shared by its hosts.
    `stop` is set by a second interrupt: end the switch and take it back.
    `checked`: what this run knows of the running system's origin; None when there was no need to ask.
    `remains`: what this run could not take back, in words.
    """

    spec: HostSpec
    session: Session
    forge: Forge
    emit: Emit
    run: Run
    limits: Limits = field(default_factory=Limits)
    cancel: threading.Event = field(default_factory=threading.Event)
    choices: Choices = field(default_factory=Choices)
    machines: dict[str, str] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)
    facts: Facts = field(init=False)
    journal: Journal = field(init=False)
    checked: Checked | None = None
    remains: list[str] = field(default_factory=list)

    @property
    def host(self) -> str:
        return self.spec.name

    def phase(self, name: str) -> None:
        self.emit(PhaseBegun(self.host, name))

    def warn(self, text: str) -> None:
        self.emit(Warned(self.host, text))

    def log(self, text: str) -> None:
        self.emit(Logged(self.host, text))

    def probe(self, *, after: str = "") -> None:
        """Read the host anew, when the shell of `after` has ended: one remote command. Raises HostError."""
        done = self._command(after.encode() + probe_script(step.probe() for step in STEPS))
        self.facts = Facts.parse(self.host, done.stdout)
        # From here on: a claim makes the journal this machine's, and who comes after it must not find them there.
        self.journal = Journal.read(self.facts).of_machine(self.facts.machine)

    @property
    def flaws(self) -> Flaws:
        return Flaws.of(self.spec.module, self.facts)

    def warn_of_trust(self) -> None:
        """What lets jobs have more of the host than they should, by what is wanted or by what its Nix is."""
        for text in (*trust.warnings(self.spec.module.trust, self.facts), *self.flaws.warnings()):
            self.warn(text)

    def settle(self) -> None:
        """Probe, refuse a host that another run holds; `up` and `down` end what a dead one left, a plan only names it.

        Raises Locked, HostRefused, HostError.
        """
        self.phase("probe")
        self.probe()
        self._require_one_name()
        self._require_free()
        if not self.facts.is_switching:
            return
        if self.run.verb not in ("up", "down"):
            # A plan changes nothing, and whoever left this switch to itself means to come back to it.
            self.warn(self.what_goes_on())
            return
        self.warn(f"a switch of {self.holder()} is still running: following it to its end")
        result = self.follow()
        if result.tries_on:
            self._leave(result)
        if result.waits:
            same = (self.journal.phase is Phase.WRITTEN) == (self.run.verb == "up")
            # That we are here shows that the host can be reached; what else it must be is checked after the next plan.
            with crash.around("settle"):
                self.script(switch.confirm((), 0) if same and result.is_done else switch.abort(), status_ok=True)
        self.probe()

    def _leave(self, result: SwitchResult) -> None:
        """Somebody else's switch is waited for, like another run; in any other way it is this run that goes on."""
        if result.is_busy and not self.choices.take_over:
            hint = "`nixprov status` tells when it is back; --take-over goes on from what is there now"
            raise Locked(self.host, result.explain(), hint=hint)
        self.warn(f"{result.explain()}; this run goes on from there instead")
        with crash.around("settle"):
            self.script(switch.leave(), status_ok=True)

    def require_back(self) -> None:
        """After a probe: the host does not try on to go back. Raises SwitchFailed."""
        if self.facts.is_switching and (trying := switch.trying(self.facts.text("switch-result"))):
            raise SwitchFailed(self.host, trying.explain())

    def _require_one_name(self) -> None:
        """The lock keeps other runs out; under a second name this one would be its own neighbour."""
        if not self.facts.text("machine-id"):
            return
        first = self.machines.setdefault(self.facts.machine, self.host)
        if first != self.host:
            raise HostRefused(
                self.host,
                f"it has the machine id of {first}, which this run is at",
                hint="name a machine once; a clone needs an id of its own (systemd-machine-id-setup)",
            )

    def _require_free(self) -> None:
        if self.facts.held_by in ("", self.run.id):
            return
        if self.choices.take_over:
            self.warn(f"taken over from {self.holder()}")
            return
        raise Locked(
            self.host,
            f"{self.holder()} holds it, and its connection is open",
            hint="wait for it to end; if that program is surely dead, run again with --take-over",
        )

    def require_ours(self) -> None:
        """After a claim and a probe: nobody has taken the host over meanwhile. Raises Locked."""
        if not self._is_ours:
            raise Locked(self.host, f"taken over by another operator: {self.holder()}", hint="nothing was undone")

    @property
    def _is_ours(self) -> bool:
        return self.journal.run is not None and self.journal.run.id == self.run.id

    def what_goes_on(self) -> str:
        return f"a switch of {self.holder()} goes on: {switch.stage(self.facts.text('switch-result'))}"

    def holder(self) -> str:
        run = self.journal.run
        if run is None:
            return "an unknown run"
        return f"{run.by} (`{run.verb}` since {run.age()}, run {run.id}, {self.journal.phase.value})"

    def claim(self, phase: Phase, **changes: object) -> None:
        """Take the host for this run, before anything else anywhere is changed. Raises Locked."""
        with crash.around("claim"):
            self.transact("claim", (), self.journal_for(phase, **changes))

    def transact(
        self, name: str, parts: Sequence[Part], journal: Journal | None, *, guard: str = "", keep: bool = True
    ) -> None:
        """Do `parts` under a lock, the journal first; `keep`: the host stays ours.

        An interrupt comes before or after it: cut in the middle, it would go on over there while we take it back.
        Raises Cancelled before it, Locked, NothingChanged, RemoteFailed.
        """
        if self.cancel.is_set():
            raise Cancelled(self.host, "interrupted", hint=f"`nixprov {self.run.verb}` goes on from here")
        content = None if journal is None else journal.render()
        first = lock.take(self.run.id) if keep else lock.RELEASE
        at = crash.in_transaction(name)
        # Another run's transaction takes a moment; what it changed then is told better than that it was under way.
        transaction = Transaction(parts, self.journal.sha256, content, guard, first, TRANSACTION_S, crash_at=at)
        self._command(transaction.script(), name)
        if journal is not None:
            self.journal = journal.written()
        for kept in parts:
            if isinstance(kept, KeepCopy):
                self.warn(f"{kept.path} was edited by hand: what it said is kept in {kept.copy}")

    def commit(self, phase: Phase, guard: str, *, keep: bool) -> None:
        """The new system becomes the one that boots, if `guard` agrees. Raises as `transact` does, and SwitchFailed."""
        try:
            with crash.around("commit"):
                self.transact("commit", (), self.journal_for(phase), guard=guard, keep=keep)
        except Locked:
            # Perhaps it was the host that changed its journal, when it had waited in vain, or is about to: then nobody
            # else is at work.
            self.probe(after=lock.WAIT)
            if self.journal.phase is Phase.WENT_BACK and self._is_ours:
                raise SwitchFailed(self.host, switch.EXPIRED) from None
            raise

    def script(self, script: bytes | str, *, status_ok: bool = False) -> Completed:
        """Run something that is no transaction: ending a switch."""
        text = script.encode() if isinstance(script, str) else script
        prologue = PATH.encode() + b'fail() { printf \'%s\\n\' "$2" >&2; exit "$1"; }\n'
        if not status_ok:
            return self._command(prologue + text)
        return self._run(prologue + text, self.limits.switch_s, _Follower(self))

    def login_again(self) -> None:
        """A connection from nothing: proof that the machine, as it is now, lets us in. Raises ConnectionLost."""
        with crash.around("login"):
            self._again(lambda: None, "the host does not let us in after the switch", fresh=True)

    def shield(self) -> None:
        """From here on an interrupt stops nothing: taking back must not end half-way."""
        self.cancel = threading.Event()

    def journal_for(self, phase: Phase, **changes: object) -> Journal:
        """The journal as this run would write it next."""
        base = replace(self.journal, host=self.host, machine=self.facts.machine, phase=phase, run=self.run)
        return replace(base, **changes)  # type: ignore[arg-type]

    def follow(self) -> SwitchResult:
        """Stream the switch's log until it ended or waits for us, over as many connections as it takes.

        Raises Detached, DetachedByUser: it goes on without us; Stopped: the operator wants it back.
        """
        follower = _Follower(self)
        try:
            self._again(lambda: self._follow(follower), "connection lost during the switch, which goes on")
        except Cancelled as cancelled:
            raise self._interrupted() from cancelled
        if follower.result is None:
            raise RemoteFailed(self.host, "the switch ended without a result", hint=f"see journalctl -u {switch.UNIT}")
        return replace(follower.result, failed=follower.failed)

    def _follow(self, follower: _Follower) -> None:
        # Over a new connection the host would look free, for as long as a build takes.
        script = lock.keep(self.run.id).encode() + switch.follow(follower.begin())
        self._run(script, self.limits.switch_s, follower)

    def _again(self, action: Callable[[], object], what: str, *, fresh: bool = False) -> None:
        """Do `action`, over new connections with growing pauses while they get lost; `fresh`: over a new one at once.

        Raises Detached when all were in vain.
        """
        for wait in (*RECONNECT_WAITS_S, None):
            try:
                if fresh:
                    self._reconnect()
                action()
            except ConnectionLost as lost:
                if wait is None:
                    raise self._gone() from lost
            else:
                return
            self.warn(f"{what}; again in {wait:g} s")
            self.cancel.wait(wait)
            fresh = True

    def insist(self, action: Callable[[], object], what: str) -> None:
        """Do `action`, over new connections when this one is lost. Raises ConnectionLost when none comes."""
        try:
            self._again(action, what)
        except Detached as gone:
            raise ConnectionLost(self.host, "the connection did not come back") from gone

    def _gone(self) -> Detached:
        back = "the host goes back by itself unless it is confirmed: " if self.limits.confirm_s else ""
        return Detached(
            self.host,
            "the connection did not come back; the switch goes on without us",
            hint=f"{back}`nixprov status` tells how it ended, `nixprov {self.run.verb}` goes on from there",
        )

    def _interrupted(self) -> Cancelled | Stopped:
        """Once: leave. Twice within a moment: stop. So the first Ctrl-C waits for a second one."""
        self.warn("interrupted: leaving the switch to itself; Ctrl-C again stops it and takes it back")
        if self.stop.wait(self.limits.second_thoughts_s):
            return Stopped(self.host, "stopped by the operator")
        limit = f" within {self.limits.confirm_s} s, or it goes back" if self.limits.confirm_s else ""
        return DetachedByUser(
            self.host,
            "interrupted; the switch goes on without us",
            hint=f"`nixprov {self.run.verb}` takes it up again and confirms it{limit}; `nixprov status` tells",
        )

    def _reconnect(self) -> None:
        try:
            self.session.reconnect(cancel=self.cancel)
        except (Cancelled, ConnectionLost):
            raise
        except Exception as error:  # every way in which a machine can still be away
            raise ConnectionLost(self.host, str(error)) from error

    def _command(self, script: bytes, transaction: str = "") -> Completed:
        cancel = None if transaction else self.cancel
        limit_s = self.limits.transaction_s if transaction else self.limits.command_s
        done = self.session.run(script, timeout_s=limit_s, cancel=cancel)
        crash.after_transaction(transaction, done.status)
        if done.status == 0:
            return done
        said = " / ".join(line for line in done.stderr.splitlines()[-8:] if line.strip())
        if done.status == LOCKED_STATUS:
            raise Locked(self.host, said, hint="wait for it to end, then run again")
        if done.status == STALE_STATUS:
            raise Locked(self.host, f"another operator changed the host meanwhile: {said}", hint="run again")
        if done.status == UNCHANGED_STATUS:
            why, hint = unchanged_because(done.stderr)
            raise NothingChanged(self.host, why, hint=hint)
        if done.status in (switch.NOT_ACTIVE_STATUS, switch.UNCONFIRMED_STATUS):
            raise SwitchFailed(self.host, said, hint="see its log on the host with journalctl")
        raise RemoteFailed(self.host, f"a remote command ended with status {done.status}: {said or 'no message'}")

    def _run(self, script: bytes, timeout_s: float, follower: _Follower | None) -> Completed:
        keep = follower is None
        done = self.session.run(script, timeout_s=timeout_s, on_output=follower, cancel=self.cancel, keep=keep)
        if follower is not None:
            follower.release()
        return done


@dataclass(slots=True)
class _Follower:
    """Cuts the follower's stream into lines, emits the log, remembers where to go on.

    A line is emitted with the cursor behind it: one whose cursor a cut connection swallowed comes again over the next.
    """

    run: HostRun
    cursor: str = ""
    failed: tuple[str, ...] = ()
    result: SwitchResult | None = None
    lines: Lines = field(default_factory=Lines)
    _held: list[str] = field(default_factory=list)
    _size: int = 0

    def begin(self) -> str:
        """Forget what the connection before did not finish; the cursor to go on from."""
        self.lines, self._held, self._size = Lines(), [], 0
        return self.cursor

    def release(self) -> None:
        for text in self._held:
            self.run.log(text)
        self._held, self._size = [], 0

    def __call__(self, chunk: bytes) -> None:
        for line, goes_on in self.lines.feed(chunk):
            # Where a line was cut is no line's beginning: there it could say anything of how the switch ended.
            self._line(Followed(log=line) if goes_on else Followed.parse(line))

    def _line(self, said: Followed) -> None:
        if said.log is not None:
            self._held.append(said.log)
            self._size += len(said.log) + 1
        if said.cursor or self._size > limits.HELD_LOG:
            self.release()
        self.cursor = said.cursor or self.cursor
        self.failed = self.failed if said.failed is None else said.failed
        self.result = said.result or self.result


def wait_until(run: HostRun, limit_s: float, done: Callable[[], bool], *, pause_s: float | None = None) -> bool:
    """Poll `done()` until it is true or `limit_s` passed. Raises Cancelled."""
    end = time.monotonic() + limit_s
    while not done():
        if run.cancel.wait(run.limits.poll_s if pause_s is None else pause_s):
            raise Cancelled(run.host, "interrupted", hint=f"`nixprov {run.run.verb}` goes on from here")
        if time.monotonic() > end:
            return False
    return True
