"""The labs on this computer, dead and alive.

Owns the directory of labs, the claim on an id and its addresses, and the removal of a lab's traces.
A lab lives as long as a process holds the lock on its lease: first the starter, then the supervisor. There is one way
to end a lab, dead or alive. Everything in its cgroup is killed, then the rest is removed that the kernel leaves. So
nothing depends on the orderly end of a process.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from fcntl import LOCK_EX, flock
from ipaddress import IPv4Network
from pathlib import Path
from typing import Self

from nixprov_lab import cgroup, network
from nixprov_lab.errors import LabError
from nixprov_lab.paths import LabFiles, cache_dir, runtime_dir
from nixprov_lab.process import locked, try_lock


@dataclass(frozen=True, slots=True)
class HostState:
    """One machine. `machine_id` is the content of its /etc/machine-id, the same after every restart."""

    name: str
    address: str
    machine_id: str


@dataclass(frozen=True, slots=True)
class LabState:
    """The record of a lab from before its first process: enough to remove every trace of it.

    `lower` are the directories of the tree, uppermost first. `disks` is the directory of the machines' own files.
    `started` is in seconds since 1970.
    """

    id: str
    started: float
    bridge: str
    subnet: str
    cgroup: str
    disks: str
    lower: tuple[str, ...]
    hosts: tuple[HostState, ...]

    @property
    def gateway(self) -> str:
        return network.gateway(IPv4Network(self.subnet))

    @property
    def gitlab_url(self) -> str:
        return f"http://{self.gateway}:8080"

    @classmethod
    def load(cls, file: Path) -> Self:
        """Read a state file; raises OSError and ValueError."""
        data = json.loads(file.read_text())
        hosts = tuple(HostState(**host) for host in data.pop("hosts"))
        return cls(**{**data, "lower": tuple(data["lower"]), "hosts": hosts})

    def save(self, file: Path) -> None:
        fresh = file.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(self), indent=2) + "\n")
        fresh.rename(file)


@dataclass(frozen=True, slots=True)
class Claim:
    """A lab that has a name and addresses and nothing else; `lease` is the open, locked file."""

    files: LabFiles
    state: LabState
    lease: int


def lock() -> AbstractContextManager[None]:
    """Hold the registry: no lab is claimed or removed meanwhile."""
    runtime_dir().mkdir(mode=0o700, parents=True, exist_ok=True)
    return locked(runtime_dir() / "lock")


def entries() -> list[LabFiles]:
    """All labs with a directory, oldest first."""
    found = []
    for path in runtime_dir().glob("*"):
        with suppress(FileNotFoundError):  # removed at this moment
            if path.is_dir():
                found.append((path.stat().st_ctime, path))
    return [LabFiles(root) for _, root in sorted(found)]


def is_alive(files: LabFiles) -> bool:
    try:
        fd = os.open(files.lease, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not try_lock(fd)
    finally:
        os.close(fd)


def claim(hosts: int, lower: tuple[Path, ...]) -> Claim:
    """Take a new id with its addresses, after the removal of dead labs' leftovers.

    Everything that may have to be removed is recorded before it is made. Raises LabError when no subnet is free.
    """
    with lock():
        sweep()
        lab_id = _free_id()
        files = LabFiles(runtime_dir() / lab_id)
        try:
            return _write(files, lab_id, hosts, lower)
        except BaseException:  # an interruption too: no other process knows of this lab yet
            remove(files)
            raise


def _write(files: LabFiles, lab_id: str, hosts: int, lower: tuple[Path, ...]) -> Claim:
    files.root.mkdir(mode=0o700)
    lease = os.open(files.lease, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    flock(lease, LOCK_EX)
    state = _new_state(lab_id, hosts, lower)
    state.save(files.state)
    disks = Path(state.disks)
    disks.mkdir(mode=0o700, parents=True)
    (disks / "lab").symlink_to(files.root)
    files.hosts.symlink_to(disks)
    return Claim(files, state, lease)


def sweep() -> list[str]:
    """Remove dead labs' leftovers and return the labs' ids. The registry must be locked."""
    dead = [files for files in entries() if not is_alive(files)]
    for files in dead:
        remove(files)
    for disks in _orphaned_disks():
        _remove_directory(disks)
    return [files.id for files in dead]


def remove(files: LabFiles) -> None:
    """End a lab and remove every trace of it; safe to repeat after an interruption. Raises LabError."""
    cgroup.kill(cgroup.lab_cgroup(files.id))
    cgroup.remove_lab(files.id)
    for link in _links(files.id):
        network.remove_link(link)
    if disks := _disks(files):
        _remove_directory(disks)
    _remove_directory(files.root)


def _new_state(lab_id: str, hosts: int, lower: tuple[Path, ...]) -> LabState:
    subnet = network.subnet_of(lab_id)
    return LabState(
        id=lab_id,
        started=time.time(),
        bridge=network.bridge_of(lab_id),
        subnet=str(subnet),
        cgroup=str(cgroup.lab_cgroup(lab_id)),
        disks=str(cache_dir() / "machines" / lab_id),
        lower=tuple(str(path) for path in lower),
        hosts=tuple(
            HostState(f"host{number}", network.address(subnet, number), uuid.uuid4().hex)
            for number in range(1, hosts + 1)
        ),
    )


def _free_id() -> str:
    taken = network.networks_in_use() + [network.subnet_of(files.id) for files in entries()]
    for _ in range(1000):
        lab_id = secrets.token_hex(3)
        if network.is_free(network.subnet_of(lab_id), taken):
            return lab_id
    raise LabError("no free network in 10.0.0.0/8 for the lab", hint="see: ip route show table all")


def _links(lab_id: str) -> Iterator[str]:
    for link in Path("/sys/class/net").glob(network.link_of(lab_id, "*")):
        yield link.name
    yield network.bridge_of(lab_id)


def _disks(files: LabFiles) -> Path | None:
    try:
        return Path(LabState.load(files.state).disks)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _orphaned_disks() -> list[Path]:
    """Disks whose lab is gone. A restart of the computer clears the registry, which is in memory."""
    links = (cache_dir() / "machines").glob("*/lab")
    return [link.parent for link in links if link.is_symlink() and not link.exists()]


def _remove_directory(path: Path) -> None:
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise LabError(f"cannot remove {path}: {error.strerror}") from error
