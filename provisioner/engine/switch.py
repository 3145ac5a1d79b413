"""One change of a running system: pushed, started, followed, judged, and then committed or rolled back.

The switch is a unit of the machine's own (machine/switch.sh). It outlives every connection, so a later run can take it
up. Unless its run confirms it, the machine rolls back by itself (ADR 0008, 0016). A busy lock is waited for (ADR 0022).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from provisioner import limits
from provisioner.engine import crash
from provisioner.engine.host import Context, Machine
from provisioner.engine.undo import undo
from provisioner.errors import ConnectionLost, HostError, Locked, RemoteFailed, SwitchFailed
from provisioner.hooks import Hook
from provisioner.machine import lock
from provisioner.machine import switch as scripts
from provisioner.machine.journal import Journal, Phase
from provisioner.machine.switch import Followed, SwitchResult
from provisioner.machine.transaction import PATH, Part, Shell, Transaction
from provisioner.ssh.session import Cancelled
from provisioner.ssh.stream import Lines

DISARM: Final = Shell(scripts.DISARM)
_PROLOGUE: Final = PATH.encode() + b'fail() { printf \'%s\\n\' "$2" >&2; exit "$1"; }\n'
# No switch restarts the unit, which still polls with the old token. The unit waits for its jobs; this run does not.
_RESTART: Final = "systemctl try-restart --no-block nixprov-runner-{name}.service || :"
_UNDO_WAIT_S: Final = 60


class Detached(ConnectionLost):
    """The switch goes on without us, because the connection is gone for good: nothing may be unwound now."""


class DetachedByUser(Cancelled):
    """The same, on the operator's request."""


class Stopped(HostError):
    """The operator wants the switch stopped and rolled back."""


@dataclass(frozen=True, slots=True)
class Switch:
    """The one switch that a machine can be at, no matter which run started it.

    The order of calls:

        parts = switch.to(revision, parts, journal)  # pushed and started by the transaction that writes the parts
        result = switch.follow()
        switch.judge(result)
        switch.log_in_again()
        switch.commit(phase, units, keep=False)  # or switch.roll_back()
    """

    machine: Machine

    # Push and start: parts of the transaction that writes the files to build from.

    def to(self, hook: Hook, revision: str, parts: Sequence[Part], journal: Journal) -> list[Part]:
        """`parts` with the switch behind them, and before them their undoing, for a machine that is not confirmed.

        `journal` is the one written with `parts`.
        """
        confirm_s = self.machine.context.limits.confirm_s
        undoing = self._undoing(hook, parts, journal) if confirm_s else None
        build = hook.configuration.build
        start = scripts.start("switch", revision, *build, confirm_s=confirm_s, crash=crash.in_unit())
        return [*scripts.push(undoing), *parts, start]

    def back_to(self, generation: int) -> list[Part]:
        """The switch to a generation that exists: nothing is built, and it needs no confirmation."""
        return [*scripts.push(), scripts.start("rollback", str(generation), crash=crash.in_unit())]

    def _undoing(self, hook: Hook, parts: Sequence[Part], journal: Journal) -> bytes:
        machine = self.machine
        run = machine.context.run.id
        renewed = [name for name, record in journal.runners.items() if record.token_version == run]
        gone_back = replace(journal, phase=Phase.WENT_BACK, nixprov=machine.journal.nixprov)
        undone = (*undo(parts, machine.facts, hook), *restarts(renewed))
        return Transaction(undone, journal.written().sha256, gone_back.render(), wait_s=_UNDO_WAIT_S).script()

    # Follow and judge.

    def follow(self) -> SwitchResult:
        """Stream its log until it ended or waits for a verdict, over as many connections as it takes.

        Raises Detached, DetachedByUser: it goes on without us; Stopped: the operator wants it back.
        """
        follower = Follower(self.machine.context)
        try:
            self._persist(lambda: self._stream_log(follower), "connection lost during the switch, which goes on")
        except Cancelled as cancelled:
            raise self._interrupted() from cancelled
        if follower.result is None:
            hint = f"see journalctl -u {scripts.UNIT}"
            raise RemoteFailed(self.machine.context.host, "the switch ended without a result", hint=hint)
        return replace(follower.result, failed=follower.failed)

    def judge(self, result: SwitchResult) -> None:
        """Raises SwitchFailed, unless the new system is active; failed units are for the caller to weigh."""
        if result.is_done or result.only_units_failed:
            return
        hint = "nixos-rebuild build on the host shows the whole error" if result.phase == "build" else ""
        hint = "wait for the other switch to end, then run again" if result.is_busy else hint
        raise SwitchFailed(self.machine.context.host, result.explain(), hint=hint)

    def require_active(self, units: Sequence[str]) -> None:
        """Raises SwitchFailed with the last lines of a unit that is not active."""
        self.machine.command(_PROLOGUE + scripts.active(units, 1).encode())

    # Log in again; then commit, or roll back.

    def log_in_again(self) -> None:
        """A wholly new connection: proof that the machine, as it is now, lets us in. Raises Detached."""
        with crash.around("login"):
            self._persist(lambda: None, "the host does not let us in after the switch", fresh=True)

    def commit(self, phase: Phase, units: Sequence[str] = (), *, keep: bool) -> None:
        """The new system becomes the one that boots, if `units` are active, and the journal says `phase`.

        Raises as `transact` does, and SwitchFailed.
        """
        machine = self.machine
        guard = scripts.confirm(units, machine.context.limits.unit_s)
        try:
            with crash.around("commit"):
                machine.transact("commit", (), machine.journal_for(phase), guard=guard, keep=keep)
        except Locked:
            # Perhaps the host itself changed its journal after waiting in vain, or is about to. No other run is at work
            # then.
            machine.probe(after=lock.WAIT)
            if machine.journal.phase is Phase.WENT_BACK and machine.is_ours:
                raise SwitchFailed(machine.context.host, scripts.EXPIRED) from None
            raise

    def roll_back(self) -> None:
        """End it, and wait until the machine is back on the old system. Raises ConnectionLost, HostError."""
        self._end(scripts.abort())

    def keep(self) -> None:
        """Confirm a switch that a dead run has left waiting: its system becomes the one that boots.

        The journal stays as it is.
        """
        self._end(scripts.confirm((), 0).encode())

    def stop_trying(self) -> None:
        """Tell a machine that cannot roll back yet to stop trying."""
        self._end(scripts.leave())

    def require_rolled_back(self) -> None:
        """After a probe: raises SwitchFailed if the machine still tries to roll back."""
        facts = self.machine.facts
        if facts.is_switching and (trying := scripts.trying(facts.text("switch-result"))):
            raise SwitchFailed(self.machine.context.host, trying.explain())

    def _end(self, script: bytes) -> None:
        self.machine.stream(_PROLOGUE + script, Follower(self.machine.context, has_cursors=False))

    def _stream_log(self, follower: Follower) -> None:
        # Over a new connection the host would look free, for as long as a build takes.
        script = lock.keep(self.machine.context.run.id).encode() + scripts.follow(follower.begin())
        self.machine.stream(script, follower)
        follower.release()

    def _persist(self, action: Callable[[], object], what: str, *, fresh: bool = False) -> None:
        try:
            self.machine.persist(action, what, fresh=fresh)
        except ConnectionLost as lost:
            context = self.machine.context
            back = "the host goes back by itself unless it is confirmed: " if context.limits.confirm_s else ""
            raise Detached(
                context.host,
                "the connection did not come back; the switch goes on without us",
                hint=f"{back}`nixprov status` tells how it ended, `nixprov {context.verb.command}` goes on from there",
            ) from lost

    def _interrupted(self) -> Cancelled | Stopped:
        """One interrupt leaves the switch, two within a moment stop it. So the first Ctrl-C waits for a second one."""
        context = self.machine.context
        context.warn("interrupted: leaving the switch to itself; Ctrl-C again stops it and takes it back")
        if self.machine.stop.wait(context.limits.second_thoughts_s):
            return Stopped(context.host, "stopped by the operator")
        limit = f" within {context.limits.confirm_s} s, or it goes back" if context.limits.confirm_s else ""
        return DetachedByUser(
            context.host,
            "interrupted; the switch goes on without us",
            hint=f"`nixprov {context.verb.command}` takes it up again and confirms it{limit}; `nixprov status` tells",
        )


def restarts(names: Iterable[str]) -> list[Part]:
    """Restarts of runners with new tokens, when no switch follows; they come after the files."""
    return [Shell(_RESTART.format(name=name)) for name in names]


@dataclass(slots=True)
class Follower:
    """Cuts a switch's stream into lines, emits the log, remembers the cursor.

    A line is emitted only with the cursor behind it. A cut connection may swallow the cursor; the line then comes
    again. Without cursors lines are emitted as they come.
    """

    context: Context
    has_cursors: bool = True
    cursor: str = ""
    failed: tuple[str, ...] = ()
    result: SwitchResult | None = None
    lines: Lines = field(default_factory=Lines)
    _held: list[str] = field(default_factory=list)
    _size: int = 0

    def begin(self) -> str:
        """Forget the unfinished lines of the last connection; the cursor to go on from."""
        self.lines, self._held, self._size = Lines(), [], 0
        return self.cursor

    def release(self) -> None:
        for text in self._held:
            self.context.log(text)
        self._held, self._size = [], 0

    def __call__(self, chunk: bytes) -> None:
        for line, goes_on in self.lines.feed(chunk):
            # The rest of a cut line is not parsed: its text could pose as a result of the switch.
            self._line(Followed(log=line) if goes_on else Followed.parse(line))

    def _line(self, said: Followed) -> None:
        if said.log is not None:
            self._held.append(said.log)
            self._size += len(said.log) + 1
        if said.cursor or not self.has_cursors or self._size > limits.HELD_LOG:
            self.release()
        self.cursor = said.cursor or self.cursor
        self.failed = self.failed if said.failed is None else said.failed
        self.result = said.result or self.result
