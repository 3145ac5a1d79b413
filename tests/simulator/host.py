"""A simulated NixOS machine: files, journal, lock, units, generations, the switch; and its answer to each command.

It is no kinder than the real one. A refused or killed transaction leaves the same files as the shell would. Tests hold
both side by side (tests/contract/test_simulator.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

from provisioner import steps
from provisioner.machine.lock import LOCK
from provisioner.machine.switch import DIR
from provisioner.machine.things import Remnant, of_kind
from provisioner.machine.transaction import JOURNAL, STATE_DIR
from provisioner.ssh.exec import Completed
from tests.simulator import answers, probe, reader, transacting
from tests.simulator.clock import Clock
from tests.simulator.disk import Disk
from tests.simulator.reader import Abort, Active, Command, Follow, Keep, Leave, Origin, Probe, Transact
from tests.simulator.switch_unit import SwitchUnit
from tests.simulator.systems import CONFIGURATION, FOLDER, BuildFailed, System, evaluate
from tests.unit.hosts import CONFIGURATION as USERS_FILE

SECRETS: Final = f"{STATE_DIR}/secrets"
_POLL_S: Final = 3.0


@dataclass
class Unit:
    """`token` is the one that a runner's unit read as it started."""

    name: str
    active: str
    sub: str
    since: float
    restarts: int = 0
    token: str = ""


@dataclass
class Host:
    """Tests set its faults.

    `broken`: units that do not start. `fails_to_build`: the reason, for a system that cannot be built. `activation`: the
    status with which a system's activation ends. `lets_in`: whether the system that runs takes a new connection.
    `other_switch_until`: until when somebody else's switch holds the lock. `kill_at`: before which change (0: with all
    staged) the script of the next transaction is killed; `kills` counts. `full`: the disk takes no content. `protected`: files that
    even root cannot replace. `reaches_gitlab`: whether its jobs' way to GitLab is open.
    """

    clock: Clock
    name: str = "host1"
    broken: set[str] = field(default_factory=set)
    fails_to_build: Callable[[System], str] = lambda _: ""
    activation: Callable[[System], int] = lambda _: 0
    lets_in: Callable[[System], bool] = lambda _: True
    other_switch_until: float = 0.0
    kill_at: int | None = None
    kills: int = 0
    full: bool = False
    protected: set[str] = field(default_factory=set)
    reaches_gitlab: bool = True
    has_generations: bool = True
    nix_version: str = "2.35.3"
    trusted_users: str = "root"
    build_s: float = 20.0
    activate_s: float = 5.0
    boot_loader_status: int = 0
    boots: int = 1
    flock: bool = False
    connections: set[int] = field(default_factory=set)
    units: dict[str, Unit] = field(default_factory=dict)
    systems: dict[str, System] = field(default_factory=dict)
    built: System | None = None
    machine_id: str = field(init=False)
    disk: Disk = field(init=False)
    system: System = field(init=False)
    generations: dict[int, System] = field(init=False)
    generation: int = 4
    switched_at: int = 0
    switch: SwitchUnit = field(init=False)

    def __post_init__(self) -> None:
        self.machine_id = sha256(self.name.encode()).hexdigest()[:32]
        self.disk = Disk(self.clock)
        for folder in ("/etc/nixos", "/etc/systemd", "/var/lib", "/var/cache", "/run", "/nix/var/nix/gcroots"):
            self.disk.make_folder(folder)
        self.disk.write(CONFIGURATION, USERS_FILE, 0o640)
        self.disk.write("/etc/nixos/hardware-configuration.nix", b"{ }\n")
        self.switched_at = self.clock.epoch - 1_000_000
        for path in (*self.disk.in_("/etc/nixos"), "/etc/nixos"):
            self.disk.set_mtime(path, self.switched_at)
        self.system = self.evaluate({})
        self.generations = {self.generation: self.system}
        self.switch = SwitchUnit(self)

    @property
    def boot_id(self) -> str:
        return f"boot-{self.boots}"

    @property
    def profile(self) -> System:
        return self.generations[self.generation]

    @property
    def journal(self) -> dict[str, Any]:
        """The document, empty where there is none."""
        found: dict[str, Any] = json.loads(self.disk.read(JOURNAL) or b"{}")
        return found

    def system_of(self, path: str) -> System:
        return self.systems[path]

    def connect(self) -> int:
        """The number of the process that serves the new connection."""
        process = 1000 * self.boots + len(self.connections) + int(self.clock.now * 10) % 97 + 1
        while process in self.connections:
            process += 1
        self.connections.add(process)
        return process

    def hang_up(self, process: int) -> None:
        self.connections.discard(process)

    def hold(self, run: str, process: int) -> None:
        """The lock's file names the run, and the process that serves its connection."""
        self.disk.write(LOCK, f"{run} {process} {process} {self.boot_id}\n".encode(), 0o600)

    def reboot(self) -> None:
        """Power is lost and comes back: the profile's system boots."""
        self.boots += 1
        self.connections.clear()
        self.flock = False
        self.switch.lose_power()
        self.units.clear()
        self.system = self.profile
        self._start_units(self.system)
        self.switch.at_boot()

    def evaluate(self, edits: dict[str, bytes | None]) -> System:
        """Raises BuildFailed."""
        names = (path for path in self.disk.below(FOLDER) if path.endswith(".nix"))
        files = {path: content for path in names if (content := self.disk.read(path)) is not None}
        changed = {path: content for path, content in {**files, **edits}.items() if content is not None}
        system = evaluate(changed)
        return self.systems.setdefault(system.path, system)

    def build(self) -> System:
        """Raises BuildFailed."""
        system = self.evaluate({})
        if why := self.fails_to_build(system):
            raise BuildFailed(why)
        self.disk.make_folder(f"{DIR}/build")
        self.disk.write(f"{DIR}/build/result", system.path.encode())
        return system

    def activate(self, system: System) -> int:
        """The status as switch.sh tells it: only with 0 and 4 the system runs."""
        status = self.activation(system)
        if status not in (0, 4):
            return status
        before, self.system = self.system, system
        for name in [name for name in self.units if name not in system.units and name.startswith("nixprov-")]:
            del self.units[name]
        if before.revision != system.revision:
            self._start_units(system)
        failed = any(unit.active == "failed" for unit in self.units.values())
        return 4 if failed else status

    def _start_units(self, system: System) -> None:
        for name in system.units:
            self.start_unit(name)
        if system.revision:
            for remnant in of_kind(steps.things(), Remnant):
                self.disk.make_folder(remnant.path)

    def start_unit(self, name: str) -> None:
        runner = name.removeprefix("nixprov-runner-").removesuffix(".service")
        token = (self.disk.read(f"{SECRETS}/{runner}.token") or b"").decode()
        is_whole = name not in self.broken and (bool(token) or not name.startswith("nixprov-runner-"))
        active, sub = ("active", "running") if is_whole else ("failed", "failed")
        self.units[name] = Unit(name, active, sub, self.clock.now, token=token)

    def reset_failed(self) -> None:
        """systemctl reset-failed 'nixprov-*'."""
        failed = [name for name, unit in self.units.items() if unit.active == "failed"]
        for name in failed:
            if name.startswith("nixprov-"):
                del self.units[name]
        if self.switch.substate == "failed":
            self.switch.substate = "dead"

    def polls_with(self, token: str) -> bool:
        """A unit of a runner asks GitLab for jobs with this token, and has done so at least once."""
        there = [unit for unit in self.units.values() if unit.token == token and unit.active == "active"]
        return self.reaches_gitlab and any(self.clock.now - unit.since >= _POLL_S for unit in there)

    def shell(self, script: bytes, process: int = 0, say: Callable[[bytes], None] = lambda _: None) -> Completed:
        """Act as `sh -s` would; `process` serves the connection, `say` gets the output as it comes."""
        return self.do(reader.read(script), process, say)

    def do(self, command: Command, process: int, say: Callable[[bytes], None]) -> Completed:
        match command:
            case Probe():
                if command.waits:
                    self.wait(lambda: not self.flock, 30)
                return Completed(0, probe.answer(self, command.script), "")
            case Transact():
                return transacting.run(self, command, process)
            case Follow():
                return answers.follow(self, command, process, say)
            case Active():
                return answers.active(self, command)
            case Keep():
                return answers.keep(self)
            case Abort():
                return answers.abort(self)
            case Leave():
                return answers.leave(self)
            case Origin():
                return answers.origin(self, command)

    def wait(self, done: Callable[[], bool], limit_s: float, step_s: float = 0.2) -> bool:
        end = self.clock.now + limit_s
        while not done():
            if self.clock.now >= end:
                return False
            self.clock.advance(step_s)
        return True
