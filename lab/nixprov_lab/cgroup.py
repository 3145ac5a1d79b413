"""One cgroup for a lab, with one below it for each machine.

Owns the second defence against leaks: every process of the lab is in its cgroup and is killed with it.
Machines need one each, because systemd-nspawn --keep-unit makes its `payload` group beside its own group. Two machines
in the same group would share one `payload`, and each would take the other's processes for its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from nixprov_lab.errors import LabError


def lab_cgroup(lab_id: str) -> Path:
    """The lab's directory in the cgroup v2 hierarchy, pure or beside v1. Raises LabError when there is none."""
    for mountpoint in _mountpoints("cgroup2"):
        return mountpoint / _name(lab_id)
    raise LabError("no cgroup v2 hierarchy is mounted on this computer", hint="mount one at /sys/fs/cgroup/unified")


def remove_lab(lab_id: str) -> None:
    """Remove a lab's empty cgroups, also those of the same name that systemd-nspawn makes beside v1 (name=systemd)."""
    for mountpoint in _mountpoints("cgroup2", "cgroup"):
        remove(mountpoint / _name(lab_id))


def inside(cgroup: Path, argv: list[str]) -> list[str]:
    """The command that runs `argv` in a cgroup, made when missing. Raises LabError when none can be made."""
    try:
        cgroup.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LabError(f"cannot make the cgroup {cgroup}: {error.strerror}") from error
    return ["/bin/sh", "-c", 'echo $$ >"$0" && exec "$@"', str(cgroup / "cgroup.procs"), *argv]


def is_populated(cgroup: Path) -> bool:
    try:
        return "populated 1" in (cgroup / "cgroup.events").read_text()
    except FileNotFoundError:
        return False


def kill(cgroup: Path, timeout_s: float = 20) -> None:
    """End every process in and below a cgroup and wait until they are gone. Raises LabError when they stay."""
    deadline = time.monotonic() + timeout_s
    while is_populated(cgroup):
        if time.monotonic() > deadline:
            raise LabError(f"processes of the lab do not end: see {cgroup}/cgroup.procs and below")
        _signal_all(cgroup)
        time.sleep(0.02)


def remove(cgroup: Path, timeout_s: float = 5) -> None:
    """Remove an empty cgroup and those below it, leaves first; a missing one is fine."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            for directory, _, _ in os.walk(cgroup, topdown=False):
                Path(directory).rmdir()
        except OSError as error:  # busy for a moment more after its last process has ended
            if time.monotonic() > deadline:
                raise LabError(f"cannot remove the cgroup {cgroup}: {error.strerror}") from error
            time.sleep(0.02)
        else:
            return


def _signal_all(cgroup: Path) -> None:
    if (switch := cgroup / "cgroup.kill").exists():  # since Linux 5.14
        switch.write_text("1")
        return
    for folder, _, _ in os.walk(cgroup):
        with suppress(OSError):  # it has ended since
            for pid in Path(folder, "cgroup.procs").read_text().split():
                _kill_if_there(int(pid))


def _kill_if_there(pid: int) -> None:
    if pid:
        try:
            os.kill(pid, 9)
        except ProcessLookupError:
            return


def _name(lab_id: str) -> str:
    return f"nixprov-lab-{lab_id}"


def _mountpoints(*kinds: str) -> Iterator[Path]:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mountpoint, kind, *_ = line.split()
        if kind in kinds:
            yield Path(mountpoint)
