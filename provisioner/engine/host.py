"""One host during one run: its session, what is known of it, and the few things every verb does with it.

Everything that leaves for the host goes through here, so counting, locking and reconnecting are in one place.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from provisioner.errors import ConnectionLost, Locked, RemoteFailed, SwitchFailed
from provisioner.events import Emit, Event
from provisioner.forge import Forge
from provisioner.hosts import switch
from provisioner.hosts.facts import Facts, probe_script
from provisioner.hosts.journal import Journal, Phase, Run
from provisioner.hosts.script import LOCKED_STATUS, STALE_STATUS, Part, Transaction
from provisioner.hosts.ssh import Cancelled, Session
from provisioner.hosts.ssh_run import Completed
from provisioner.hosts.switch import Followed, SwitchResult
from provisioner.model import HostSpec
from provisioner.steps import STEPS

RECONNECT_WAITS_S: Final = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)


@dataclass(frozen=True, slots=True)
class Limits:
    """How long things may take, in seconds."""

    command_s: float = 60.0
    switch_s: float = 3600.0
    unit_s: int = 30
    contact_s: float = 90.0
    drain_s: float = 3600.0
    poll_s: float = 0.5


@dataclass(slots=True)
class HostRun:
    """Mutable on purpose: facts and journal are replaced as the run goes on; everything in them is frozen."""

    spec: HostSpec
    session: Session
    forge: Forge
    emit_event: Emit
    run: Run
    limits: Limits = field(default_factory=Limits)
    cancel: threading.Event = field(default_factory=threading.Event)
    facts: Facts = field(init=False)
    journal: Journal = field(init=False)

    @property
    def host(self) -> str:
        return self.spec.name

    def emit(self, kind: str, **fields: object) -> None:
        self.emit_event(Event(kind, self.host, fields))

    def phase(self, name: str) -> None:
        self.emit("phase", phase=name)

    def probe(self) -> None:
        """Read the host anew: one remote command. Raises HostError."""
        done = self._command(probe_script(step.probe() for step in STEPS))
        self.facts = Facts.parse(self.host, done.stdout)
        self.journal = Journal.read(self.facts)

    def transact(self, parts: Sequence[Part], journal: Journal | None, *, guard: str = "") -> None:
        """Do `parts` under a lock, the journal first. Raises Locked, RemoteFailed: then nothing was renamed."""
        content = None if journal is None else journal.render()
        self._command(Transaction(parts, self.journal.sha256, content, guard).script())
        if journal is not None:
            self.journal = journal.written()

    def journal_for(self, phase: Phase, **changes: object) -> Journal:
        """The journal as this run would write it next."""
        base = replace(self.journal, host=self.host, machine=self.facts.machine, phase=phase, run=self.run)
        return replace(base, **changes)  # type: ignore[arg-type]

    def follow(self) -> SwitchResult:
        """Stream the switch's log until it ended, over as many connections as it takes. Raises ConnectionLost."""
        follower = _Follower(self)
        waits = iter(RECONNECT_WAITS_S)
        while True:
            try:
                self._run(switch.follow(follower.cursor), self.limits.switch_s, follower)
                break
            except Cancelled as cancelled:
                raise _detached(self.host) from cancelled
            except ConnectionLost as lost:
                wait = next(waits, None)
                if wait is None:
                    raise _detached(self.host) from lost
                self.emit("warning", text=f"connection lost during the switch, which goes on; again in {wait:g} s")
                self.cancel.wait(wait)
                self._reconnect()
        if follower.result is None:
            raise RemoteFailed(self.host, "the switch ended without a result", hint=f"see journalctl -u {switch.UNIT}")
        return follower.result

    def _reconnect(self) -> None:
        try:
            self.session.reconnect(cancel=self.cancel)
        except (Cancelled, ConnectionLost):
            raise
        except Exception as error:  # every way in which a machine can still be away
            raise ConnectionLost(self.host, str(error)) from error

    def _command(self, script: bytes) -> Completed:
        done = self._run(script, self.limits.command_s, None)
        if done.status == 0:
            return done
        said = " / ".join(line for line in done.stderr.splitlines()[-8:] if line.strip())
        if done.status == LOCKED_STATUS:
            raise Locked(self.host, said, hint="wait for it to end, then run again")
        if done.status == STALE_STATUS:
            raise Locked(self.host, f"another operator changed the host meanwhile: {said}", hint="run again")
        if done.status == switch.NOT_ACTIVE_STATUS:
            raise SwitchFailed(self.host, said, hint="see its log on the host with journalctl")
        raise RemoteFailed(self.host, f"a remote command ended with status {done.status}: {said or 'no message'}")

    def _run(self, script: bytes, timeout_s: float, follower: _Follower | None) -> Completed:
        return self.session.run(script, timeout_s=timeout_s, on_output=follower, cancel=self.cancel)


def _detached(host: str) -> ConnectionLost:
    return ConnectionLost(
        host,
        "the connection did not come back; the switch goes on without us",
        hint="`nixprov status` tells how it ended, `nixprov up` goes on from there",
    )


@dataclass(slots=True)
class _Follower:
    """Cuts the follower's stream into lines, emits the log, remembers where to go on."""

    run: HostRun
    cursor: str = ""
    result: SwitchResult | None = None
    rest: bytes = b""

    def __call__(self, chunk: bytes) -> None:
        *lines, self.rest = (self.rest + chunk).split(b"\n")
        for line in lines:
            self._line(Followed.parse(line.decode("utf-8", "replace")))

    def _line(self, said: Followed) -> None:
        if said.log is not None:
            self.run.emit("log", text=said.log)
        self.cursor = said.cursor or self.cursor
        self.result = said.result or self.result


def wait_until(run: HostRun, limit_s: float, done: Callable[[], bool]) -> bool:
    """Poll `done()` until it is true or `limit_s` passed or the run was cancelled."""
    end = time.monotonic() + limit_s
    while not done():
        if time.monotonic() > end or run.cancel.wait(run.limits.poll_s):
            return False
    return True
