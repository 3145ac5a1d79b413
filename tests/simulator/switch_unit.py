"""The unit of the switch: machine/switch.sh as a generator, line for line, whose yields are the seconds that pass.

Its state lies where the program's does, in files of the simulated host: result, open, confirmed, aborted, expired.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Final, NoReturn

from provisioner.machine.switch import BUSY, DIR, NO_REVISION
from tests.simulator.disk import folder_of
from tests.simulator.systems import BuildFailed, System

if TYPE_CHECKING:
    from tests.simulator.host import Host

Process = Generator[float, None, int]
PATIENCE_S: Final = 600.0
AT_BOOT: Final = "/etc/systemd/system.control/nixprov-back.service"
_ALIVE: Final = "running"


class _Exit(Exception):
    """`exit STATUS`, from wherever it stands."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class SwitchUnit:
    """`substate` is systemd's: dead, running, exited or failed; `log` is its journal."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.substate = "dead"
        self.log: list[str] = []
        self._process: Process | None = None
        self._at = ""
        self._why = ""
        self._left = 0.0
        self._limit = 0

    @property
    def is_alive(self) -> bool:
        return self.substate == _ALIVE

    @property
    def active(self) -> str:
        """systemd's word for it; a unit that ended well is active until it is stopped."""
        return {"exited": "active", "running": "active", "failed": "failed"}.get(self.substate, "inactive")

    @property
    def waits(self) -> bool:
        """It asks for a verdict."""
        phase, status = self.result[:2]
        return self._has("open") and phase == "activate" and status not in ("running", "waiting")

    @property
    def tries_on(self) -> bool:
        return self.result[1].startswith("tries:")

    @property
    def result(self) -> list[str]:
        """PHASE STATUS GENERATION WHY ..., of which the first two are always there."""
        return [*(self.host.disk.read(f"{DIR}/result") or b"").decode().split(), "", ""]

    def start(self, verb: str, argument: str, limit: int) -> None:
        for name in ("result", "failed", "open", "confirmed", "aborted", "expired", "leave", "old", "menu"):
            self._remove(name)
        self.log, self._at, self._why, self._limit = [], "", "", limit
        self.substate = _ALIVE
        self._process = self._switch(argument) if verb == "switch" else self._rollback(int(argument))
        self._step(self._process)

    def stop(self) -> None:
        """`systemctl stop`: the process is ended, and the switch settled."""
        was_alive, self._process = self.is_alive, None
        if was_alive:
            self._settle()
        self.substate = "dead"

    def lose_power(self) -> None:
        self._process, self.substate = None, "dead"

    def at_boot(self) -> None:
        """The work of `run.sh boot`, if it was set for the next boot."""
        if not self.host.disk.exists(AT_BOOT) or self._read("boot") == self.host.boot_id:
            return
        if self._has("confirmed"):
            self.disarm()
            return
        old = self._read("old").split()
        if old and self.host.system.revision != self.host.system_of(old[1]).revision:
            self.disarm()
            return
        self._give_back()
        for name in ("open", "aborted", "expired"):
            self._remove(name)
        self._result("back", "0", "power")
        self._forget()

    def disarm(self) -> None:
        self.host.disk.remove(AT_BOOT)
        self.host.disk.remove_empty(folder_of(AT_BOOT))

    def _step(self, process: Process) -> None:
        """Until the next pause; a process that another start or a stop has replaced is over."""
        if process is not self._process:
            return
        try:
            pause = next(process)
        except (StopIteration, _Exit) as end:
            status = end.status if isinstance(end, _Exit) else int(end.value)
            self._process = None
            self._settle()
            self.substate = "exited" if status == 0 else "failed"
        else:
            self.host.clock.after(pause, lambda: self._step(process))

    def _settle(self) -> None:
        """ExecStopPost: an interrupted switch is ended. Nothing here takes time but a way back, which is not awaited."""
        if self._has("leave"):
            return
        self._rename("open", "aborted")
        process = self._settlement()
        try:
            while True:
                next(process)
        except (StopIteration, _Exit):
            pass

    def _settlement(self) -> Process:
        if self._has("confirmed"):
            yield from self._commit(self.host.built or self.host.system)
        if self._has("expired"):
            yield from self._back("expired")
        if self._has("aborted"):
            yield from self._back("ended")
        if self.result[:2] == ["build", "running"]:
            self._unbuilt("build", 20, "ended")
        return 0

    def _switch(self, wanted: str) -> Process:
        host = self.host
        self._write("old", f"{host.generation} {host.profile.path}\n")
        self._phase("build")
        yield host.build_s
        try:
            host.built = system = host.build()
        except BuildFailed as error:
            self.log += str(error).splitlines()
            self._unbuilt("build", 20)
        found = system.revision or NO_REVISION
        if found != wanted:
            self.log.append(f"the system that was built has nixprov revision {found} instead of {wanted}")
            self._unbuilt("check", 21)
        if self._limit == 0:
            return (yield from self._at_once(system))
        self._write("open", "")
        self._phase("activate")
        self._left = PATIENCE_S
        status = yield from self._switched(system)
        if status == BUSY:
            self._unbuilt("activate", BUSY)
        self._failed_units()
        self._result("activate", str(status))
        yield from self._await_verdict()
        if self._has("confirmed"):
            yield from self._commit(system)
        yield from self._back("expired" if self._has("expired") else "aborted")
        return 0

    def _at_once(self, system: System) -> Process:
        self._at, self._left = "activate", PATIENCE_S
        if not (yield from self._await_lock()):
            self._ended("activate", BUSY)
        self._phase("profile")
        number = self.host.generation
        self._set_profile(system)
        self._forget()
        self._phase("activate")
        status = yield from self._switched(system)
        if status == BUSY:
            self.host.generation = number
            self._ended("activate", BUSY)
        self._failed_units()
        self._result("activate", str(status))
        return status

    def _rollback(self, generation: int) -> Process:
        self._phase("rollback")
        self.host.generation = generation
        status = yield from self._surely(self.host.profile)
        self._ended("activate", status)

    def _switched(self, system: System) -> Generator[float, None, int]:
        """The status of the activation as switch.sh's looked_at tells it, or BUSY."""
        if not (yield from self._await_lock()):
            return BUSY
        yield self.host.activate_s
        return self.host.activate(system)

    def _await_lock(self) -> Generator[float, None, bool]:
        host = self.host
        if host.clock.now >= host.other_switch_until:
            return True
        self.log.append("nixprov: somebody else's switch holds the lock: waiting for its end")
        self._result(self._at, "waiting", f"{self._why or '-'} process 7")
        while host.clock.now < host.other_switch_until:
            yield 2.0
            self._left -= 2
            if self._left <= 0 or not self._is_wanted_still():
                return False
        self._result(self._at, "running")
        return True

    def _is_wanted_still(self) -> bool:
        if self._at == "activate":
            return self._limit == 0 or self._has("open")
        return not self._has("leave")

    def _surely(self, system: System) -> Generator[float, None, int]:
        while True:
            self._left = PATIENCE_S
            status = yield from self._switched(system)
            if status != BUSY and self.host.system == system:
                return status
            self._result(self._at, f"tries:{status}", f"{self._why or '-'} process 7")
            self.log.append(f"nixprov: the old system does not come back yet (status {status}): trying again")
            for _ in range(15):
                if not self._is_wanted_still():
                    raise _Exit(0)
                yield 2.0
            self._result(self._at, "running")

    def _await_verdict(self) -> Generator[float, None, None]:
        left = self._limit * 5
        while self._has("open"):
            left -= 1
            if left <= 0:
                self.log.append(f"nobody confirmed the new system within {self._limit} s: going back")
                self._rename("open", "expired")
            yield 0.2

    def _commit(self, system: System) -> Process:
        host = self.host
        self._phase("commit")
        self._left = PATIENCE_S / 2
        if not (yield from self._await_lock()):
            return (yield from self._cannot_keep("busy"))
        if host.system.revision != system.revision:
            return (yield from self._cannot_keep("overtaken"))
        if host.system == system or host.system != host.profile:
            self._set_profile(system)
        if host.boot_loader_status:
            self._result("commit", str(host.boot_loader_status))
            raise _Exit(host.boot_loader_status)
        self._forget()
        self._ended("commit", 0)

    def _cannot_keep(self, why: str) -> Process:
        self._rename("confirmed", "aborted")
        return (yield from self._back(why))

    def _back(self, why: str) -> Process:
        host = self.host
        self._why = why
        self._phase("back")
        number, noted = self._read("old").split()
        old = host.profile
        if old.path != noted and (old == host.built or old.revision != host.system_of(noted).revision):
            host.generation = int(number)
            old = host.profile
        status = yield from self._surely(old)
        # A transaction of the program may hold the lock of the files, as this one will.
        while host.flock:
            yield 0.1
        self._give_back()
        self._forget()
        self._ended("back", status, why)

    def _set_profile(self, system: System) -> None:
        host = self.host
        if host.profile == system:
            return
        number = max(host.generations) + 1
        host.disk.append(f"{DIR}/generations", f"{number}\n{number}\n")
        host.generations[number] = system
        host.generation, host.switched_at = number, host.clock.epoch

    def _unbuilt(self, phase: str, status: int, why: str = "") -> NoReturn:
        self._give_back()
        self._forget()
        self._ended(phase, status, why)

    def _give_back(self) -> None:
        undo = self.host.disk.read(f"{DIR}/undo.sh")
        if undo is not None and self.host.shell(undo).status:
            self.log.append("the files could not all be given back: `nixprov up` or `down` goes on")

    def _forget(self) -> None:
        self.disarm()
        for name in ("build/result", "undo.sh", "old", "menu"):
            self._remove(name)

    def _ended(self, phase: str, status: int, why: str = "") -> NoReturn:
        self._result(phase, str(status), why)
        for name in ("open", "confirmed", "aborted", "expired"):
            self._remove(name)
        raise _Exit(0)

    def _phase(self, name: str) -> None:
        self._at = name
        self._result(name, "running")
        self.log.append(f"nixprov: {name}")

    def _result(self, phase: str, status: str, why: str = "") -> None:
        self._write("result", f"{phase} {status} {self.host.generation} {why}\n")

    def _failed_units(self) -> None:
        failed = [unit.name for unit in self.host.units.values() if unit.active == "failed"]
        self._write("failed", "".join(f"{name}\n" for name in failed))

    def _has(self, name: str) -> bool:
        return self.host.disk.exists(f"{DIR}/{name}")

    def _read(self, name: str) -> str:
        return (self.host.disk.read(f"{DIR}/{name}") or b"").decode().strip()

    def _write(self, name: str, text: str) -> None:
        self.host.disk.make_folder(DIR, 0o700)
        self.host.disk.write(f"{DIR}/{name}", text.encode())

    def _remove(self, name: str) -> None:
        self.host.disk.remove(f"{DIR}/{name}")

    def _rename(self, before: str, after: str) -> None:
        self.host.disk.rename(f"{DIR}/{before}", f"{DIR}/{after}")
