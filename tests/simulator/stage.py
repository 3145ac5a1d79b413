"""A simulated world for tests of the engine: NixOS machines behind `Session`, a GitLab, operators, and one clock.

Example::

    world = World()
    host = world.add_host()
    host.broken.add("nixprov-podman.socket")
    said = world.operator().up()
    assert said.outcome is Outcome.ROLLED_BACK

The real engine runs; only `Session.open`, GitLab's client, the clock and the module's code are replaced. This is the
one file that knows how a verb is started.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self

import pytest

from provisioner.batches import Stage
from provisioner.ci.gitlab.provider import GitLab as Provider
from provisioner.engine.executor import Threads
from provisioner.engine.host import Choices, Limits
from provisioner.engine.rollout import Rollout
from provisioner.engine.visit import Brief, Visitor
from provisioner.errors import ConnectionLost, NixprovError, RemoteFailed, Unreachable
from provisioner.events import BugMet, Event, Logged, Planned, Warned
from provisioner.machine.journal import Run
from provisioner.model import Connection, HostSpec, RunnerSpec
from provisioner.outcome import HostResult, Outcome
from provisioner.ssh.errors import Cancelled
from provisioner.ssh.exec import Completed
from provisioner.ssh.session import Session, SshOptions
from provisioner.steps import wanted
from provisioner.verb import Verb
from provisioner.verbs import perform
from tests.simulator import reader
from tests.simulator.clock import Clock
from tests.simulator.gitlab import GitLab, unreachable
from tests.simulator.host import Host
from tests.simulator.reader import Command, Transact

ROUND_TRIP_S: Final = 0.1
FORKS: Final = 5
# Two files of the module's code stand for all. Each is a change at which to die, and takes its time to be read back.
MODULE: Final = {name: f"# {name}\n{{ }}\n" for name in ("default.nix", "options.nix")}


@dataclass
class Cut:
    """The connection is lost at an operator's remote command, counted from 0; `after`: it was done by then."""

    at: int
    after: bool


@dataclass
class Meanwhile:
    """`action` happens in the moment before the first command that `when` recognises."""

    when: Callable[[Command], bool]
    action: Callable[[], object]


@dataclass
class Said:
    """How a verb ended for its hosts, and its events on the way."""

    results: Sequence[HostResult]
    events: Sequence[Event]
    commands: Sequence[Command]

    @property
    def result(self) -> HostResult:
        (only,) = self.results
        return only

    @property
    def outcome(self) -> Outcome:
        return self.result.outcome

    @property
    def is_good(self) -> bool:
        return all(result.outcome.is_good for result in self.results)

    def texts(self, kind: type[Warned | Logged] = Warned) -> list[str]:
        return [event.text for event in self.events if isinstance(event, kind)]

    def plan(self) -> tuple[str, ...]:
        """The lines of the last plan."""
        return [event.changes for event in self.events if isinstance(event, Planned)][-1]


@dataclass
class Operator:
    """A person with a laptop. `fails`: GitLab's errors for this one's calls, by their names.

    `dies_at`: before which of their remote commands and calls of GitLab, counted together from 0, the program ends.
    """

    world: World
    name: str
    dies_at: int | None = None
    actions: int = 0
    cut: Cut | None = None
    meanwhile: list[Meanwhile] = field(default_factory=list)
    fails: dict[str, NixprovError] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    specs: list[HostSpec] | None = None
    commands: list[Command] = field(default_factory=list)
    sessions: list[SimulatedSession] = field(default_factory=list)
    is_dead: bool = False
    cancel: threading.Event = field(default_factory=threading.Event)
    stop: threading.Event = field(default_factory=threading.Event)
    ssh: SshOptions = field(default_factory=SshOptions)

    def up(self, **choices: Any) -> Said:
        return self.run(Verb.UP, **choices)

    def down(self, **choices: Any) -> Said:
        return self.run(Verb.DOWN, **choices)

    def plan(self, **choices: Any) -> Said:
        return self.run(Verb.PLAN, **choices)

    def status(self) -> Said:
        return self.run(Verb.STATUS)

    def run(self, verb: Verb, **choices: Any) -> Said:
        """Raises UnknownScript for a script that the simulator does not know, and nothing for faults of a host or GitLab."""
        events: list[Event] = []
        begun = len(self.commands)
        run = Run(
            f"{self.name}-{next(self.world.numbers)}", verb.value, f"{self.name}@here", "2026-01-01T00:00:00+00:00"
        )
        visitor = Visitor(Provider(self.world.gitlab.api(self._fault)), perform, self.stop)
        brief = Brief(run, verb, self.ssh, self.limits, Choices(**choices))
        rollout = Rollout(Threads(visitor, FORKS, cancel=self.cancel), events.append, brief, self.cancel)
        with self.world.entered(self):
            results = rollout.roll_out((Stage(tuple(self.specs or self.world.specs)),))
        bugs = [event.traceback for event in events if isinstance(event, BugMet)]
        assert not bugs, bugs[0]
        return Said(results, events, self.commands[begun:])

    def before(self, when: Callable[[Command], bool], action: Callable[[], object]) -> Self:
        self.meanwhile.append(Meanwhile(when, action))
        return self

    def act(self) -> None:
        """Before anything leaves for a host or for GitLab."""
        if self.actions == self.dies_at:
            self.die()
        self.actions += 1

    def _fault(self, call: str) -> NixprovError | None:
        self.act()
        return unreachable() if self.is_dead else self.fails.get(call)

    def die(self) -> None:
        """The program and its connections end; its thread waits for ever, in a time of its own."""
        self.is_dead = True
        for session in self.sessions:
            session.close()
        self.world.clock.leave()


class World:
    """One inventory, one GitLab; `specs` are the hosts of the inventory."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.hosts: dict[str, Host] = {}
        self.gitlab = GitLab([])
        self.specs: list[HostSpec] = []
        self.numbers = iter(range(1, 1_000_000))
        self._operators: dict[int, Operator] = {}

    def add_host(self, name: str = "host1", *runners: RunnerSpec) -> Host:
        host = Host(self.clock, name)
        self.hosts[name] = host
        self.gitlab.hosts.append(host)
        self.specs.append(HostSpec(name, Connection("192.0.2.1"), runners or (RunnerSpec(),)))
        return host

    def operator(self, name: str = "anna", **fields: Any) -> Operator:
        return Operator(self, name, **fields)

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @contextmanager
    def entered(self, operator: Operator) -> Iterator[None]:
        """The program of `operator` runs in this world; another one may be run from within."""
        self._operators[id(operator.ssh)] = operator
        with pytest.MonkeyPatch.context() as patch, self.clock.installed():
            patch.setattr(Session, "open", staticmethod(self._open))
            patch.setattr(wanted, "_code", lambda _side: MODULE)
            yield

    def _open(self, spec: HostSpec, options: SshOptions, *, cancel: threading.Event | None = None) -> SimulatedSession:
        session = SimulatedSession(self._operators[id(options)], self.hosts[spec.name])
        session.reconnect(cancel=cancel)
        return session


@dataclass
class SimulatedSession:
    """Behind the protocol of `Session`: each command is read, and done by the host in a moment."""

    operator: Operator
    host: Host
    commands: int = 0
    connections: int = 0
    warnings: tuple[str, ...] = ()
    process: int = 0

    def run(
        self,
        script: bytes,
        *,
        timeout_s: float,
        on_output: Callable[[bytes], None] | None = None,
        cancel: threading.Event | None = None,
        keep: bool = True,
    ) -> Completed:
        operator, host = self.operator, self.host
        command = reader.read(script)
        # Not under the lock: another operator's run has threads of its own.
        self._meanwhile(command)
        operator.act()
        with host.clock.lock:
            if operator.is_dead or self.process not in host.connections:
                raise ConnectionLost(host.name, "there is no connection")
            if cancel is not None and cancel.is_set():
                raise Cancelled(host.name, "interrupted")
            number = len(operator.commands)
            operator.commands.append(command)
            self.commands += 1
            cut = operator.cut if operator.cut and operator.cut.at == number else None
            if cut and not cut.after:
                self._lose_line()
            host.clock.advance(ROUND_TRIP_S)
            begun = host.clock.now
            said: list[bytes] = []
            done = host.do(command, self.process, said.append)
            if self.process not in host.connections:
                raise ConnectionLost(host.name, "the connection was lost while a command ran")
            if host.clock.now - begun > timeout_s:
                raise RemoteFailed(host.name, f"the command did not end within {timeout_s:g} s")
            if cut:
                self._lose_line()
            whole = replace(done, stdout=done.stdout + b"".join(said))
            if on_output is not None:
                on_output(whole.stdout)
            return whole if keep else replace(whole, stdout=b"")

    def reconnect(self, *, cancel: threading.Event | None = None) -> None:
        """Raises Unreachable, and Cancelled in the place of a second attempt."""
        self.close()
        with self.host.clock.lock:
            if self.operator.is_dead or not self.host.lets_in(self.host.system):
                if cancel is not None and cancel.is_set():
                    raise Cancelled(self.host.name, "interrupted while connecting")
                raise Unreachable(self.host.name, f"root@{self.host.name} cannot be reached: it does not answer")
            self.process = self.host.connect()
            self.connections += 1
            self.operator.sessions.append(self)

    def close(self) -> None:
        self.host.hang_up(self.process)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _meanwhile(self, command: Command) -> None:
        for one in [one for one in self.operator.meanwhile if one.when(command)]:
            self.operator.meanwhile.remove(one)
            one.action()

    def _lose_line(self) -> None:
        self.operator.cut = None
        self.close()
        raise ConnectionLost(self.host.name, "the connection was lost while a command ran")


def starts_switch(command: Command) -> bool:
    return isinstance(command, Transact) and any(said.name == "start" for said in command.shells.values())
