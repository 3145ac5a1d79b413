"""A transaction on a simulated host, in its script's order, with the remains of a refusal or a kill."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from provisioner.machine import transaction
from provisioner.machine.facts import digest
from provisioner.machine.lock import LOCK
from provisioner.machine.switch import DIR
from provisioner.machine.transaction import (
    JOURNAL,
    LOCKED_STATUS,
    STAGED_SUFFIX,
    STALE_STATUS,
    STATE_DIR,
    UNCHANGED_STATUS,
    KeepCopy,
    MakeDir,
    Part,
    RemoveEmptyDir,
    RemoveFile,
    RemoveTree,
    SetMtime,
    Shell,
    WriteFile,
)
from provisioner.model import Secret
from provisioner.ssh.exec import Completed
from tests.simulator import answers
from tests.simulator.answers import Refused
from tests.simulator.disk import folder_of
from tests.simulator.reader import Transact
from tests.simulator.switch_unit import AT_BOOT
from tests.simulator.texts import Said

if TYPE_CHECKING:
    from tests.simulator.host import Host

KILLED: Final = 137


def run(host: Host, command: Transact, process: int) -> Completed:
    """Its status and output; `process` serves the connection that it came over."""
    kill_at, host.kill_at = host.kill_at, None
    transacting = _Transacting(host, command, process, kill_at)
    try:
        transacting.do()
    except _Killed:
        host.kills += 1
        return Completed(KILLED, b"", "")
    except Refused as refusal:
        return Completed(transacting.taken_back(refusal.status), b"", f"{refusal}\n")
    finally:
        host.flock = False
    return answers.DONE


class _Killed(Exception):
    """`kill -9`: no trap is run, so staged files stay."""


@dataclass
class _Transacting:
    """`made` are folders that were not there; `is_touched`: something was renamed or removed already."""

    host: Host
    command: Transact
    process: int
    kill_at: int | None
    made: list[str] = field(default_factory=list)
    is_touched: bool = False

    @property
    def parts(self) -> list[Part]:
        sent = self.command.transaction
        if sent.journal is None:
            return list(sent.parts)
        return [MakeDir(STATE_DIR, 0o700), WriteFile(JOURNAL, sent.journal, 0o600), *sent.parts]

    def do(self) -> None:
        """Raises Refused, _Killed."""
        command, parts = self.command, self.parts
        self._lock(command.transaction.wait_s)
        self._expect(JOURNAL, command.transaction.journal_before)
        if command.guard:
            self._say(command.guard)
        for part in parts:
            self._check(part)
        for part in parts:
            self._stage(part)
        if command.first:
            self._say(command.first)
        self._die(0)
        self.is_touched = True
        ordered = sorted(parts, key=lambda part: not _is_secret(part))
        changes = [part for part in ordered if not isinstance(part, MakeDir)]
        for number, part in enumerate(changes, 1):
            self._die(number)
            self._change(part)
        # The flush of the last change counts as a change.
        self._die(len(list(transaction._changes(ordered))))

    def taken_back(self, status: int) -> int:
        """The trap at an early end. Returns the status that it leaves."""
        self.host.disk.remove(*(f"{path}{STAGED_SUFFIX}" for path in _places(self.parts)))
        if self.is_touched:
            return status
        for folder in self.made[::-1]:
            self.host.disk.remove_empty(folder)
        return status if status in range(81, 85) else UNCHANGED_STATUS

    def _die(self, point: int) -> None:
        if self.kill_at == point:
            raise _Killed

    def _lock(self, wait_s: float) -> None:
        if not self.host.wait(lambda: not self.host.flock, wait_s):
            raise Refused(LOCKED_STATUS, "another transaction is under way")
        self._make_folder(STATE_DIR)
        self.host.flock = True

    def _expect(self, path: str, expected: str) -> None:
        if digest(self.host.disk.read(path)) != expected:
            raise Refused(STALE_STATUS, f"{path} is not what it was a moment ago")

    def _check(self, part: Part) -> None:
        if not isinstance(part, WriteFile | RemoveFile):
            return
        if part.path in self.host.protected:
            raise Refused(UNCHANGED_STATUS, f"{part.path} is write-protected (read-only disk, or chattr +i)")
        if part.expect is not None:
            self._expect(part.path, part.expect)

    def _stage(self, part: Part) -> None:
        disk = self.host.disk
        match part:
            case MakeDir(path=path, mode=mode):
                self._make_folder(path)
                disk.entries[path].mode = mode
            case KeepCopy(path=path, copy=copy):
                found = disk.entries.get(path)
                if found is None or found.content is None or not self._has_room(copy):
                    raise Refused(1, f"cp: '{path}' cannot be copied")
                disk.write(f"{copy}{STAGED_SUFFIX}", found.content, found.mode, found.owner)
                disk.set_mtime(f"{copy}{STAGED_SUFFIX}", found.mtime)
            case WriteFile(path=path, content=content, mode=mode, owner=owner, mtime=mtime):
                if not self._has_room(path):
                    raise Refused(UNCHANGED_STATUS, f"No space left on device\n{path} cannot be written")
                data = content.reveal().encode() if isinstance(content, Secret) else content
                disk.write(f"{path}{STAGED_SUFFIX}", data, mode, owner)
                if mtime is not None:
                    disk.set_mtime(f"{path}{STAGED_SUFFIX}", mtime)
            case _:
                pass

    def _make_folder(self, path: str) -> None:
        if not self.host.disk.exists(path):
            self.made.append(path)
            # By the script's umask.
            self.host.disk.make_folder(path, 0o700)

    def _has_room(self, path: str) -> bool:
        return not self.host.full and self.host.disk.exists(folder_of(path))

    def _change(self, part: Part) -> None:
        disk = self.host.disk
        match part:
            case KeepCopy(copy=path) | WriteFile(path=path):
                disk.rename(f"{path}{STAGED_SUFFIX}", path)
            case RemoveFile(path=path):
                disk.remove(path)
            case RemoveTree(path=path):
                disk.remove_tree(path)
            case RemoveEmptyDir(path=path):
                disk.remove_empty(path)
            case SetMtime(path=path, mtime=mtime):
                disk.set_mtime(path, mtime)
            case Shell(text=text):
                self._say(self.command.shells[text])
            case MakeDir():
                pass

    def _say(self, said: Said) -> None:
        _EFFECTS[said.name](self.host, said, self.process)


def _start(host: Host, said: Said, process: int) -> None:
    if host.switch.is_alive:
        raise Refused(LOCKED_STATUS, "another switch is running: nixprov-switch.service")
    host.switch.start(said["word"], said["name"], int(said["seconds"]))


def _arm(host: Host, said: Said, process: int) -> None:
    host.disk.write(f"{DIR}/boot", host.boot_id.encode(), 0o600)
    host.disk.make_folder(folder_of(AT_BOOT))
    host.disk.write(AT_BOOT, b"[Unit]\n")


def _confirm(host: Host, said: Said, process: int) -> None:
    if "name" in said.values:
        answers.require_active(host, said["name"].split(), int(said["tries"]))
    answers.require_kept(host)


def _restart(host: Host, said: Said, process: int) -> None:
    unit = host.units.get(f"nixprov-runner-{said['word']}.service")
    if unit and unit.active == "active":
        host.start_unit(unit.name)


def _remove_generations(host: Host, said: Said, process: int) -> None:
    ours = {int(line) for line in (host.disk.read(f"{DIR}/generations") or b"").split()}
    for number in ours - {host.generation}:
        if number in host.generations and host.generations[number].revision:
            del host.generations[number]
    host.switch.stop()
    host.reset_failed()


def _make_private(host: Host, said: Said, process: int) -> None:
    if said["word"] not in host.disk.entries:
        raise Refused(1, f"chown: cannot access '{said['word']}': No such file or directory")
    entry = host.disk.entries[said["word"]]
    entry.mode, entry.owner = 0o600, "0:0"


def _nothing(host: Host, said: Said, process: int) -> None:
    """For things that a simulated host does not have: jobs, containers' watchers, a bridge."""


_EFFECTS: Final[Mapping[str, Callable[[Host, Said, int], None]]] = {
    "take": lambda host, said, process: host.hold(said["word"], process),
    "release": lambda host, *_: host.disk.remove(LOCK),
    "confirm": _confirm,
    "start": _start,
    "arm": _arm,
    "disarm": lambda host, *_: host.switch.disarm(),
    "reset failed": lambda host, *_: host.reset_failed(),
    "restart": _restart,
    "generations": _remove_generations,
    "make private": _make_private,
    "end jobs": _nothing,
    "watchers": _nothing,
    "bridge": _nothing,
}


def _places(parts: Sequence[Part]) -> Iterator[str]:
    for part in parts:
        if isinstance(part, WriteFile):
            yield part.path
        elif isinstance(part, KeepCopy):
            yield part.copy


def _is_secret(part: Part) -> bool:
    return isinstance(part, WriteFile) and isinstance(part.content, Secret)
