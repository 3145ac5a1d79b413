"""nixprov.slice of a machine with its limits in force.

On a host of ours systemd enforces them. So it does in the lab where the computer has cgroups v2 alone. A computer with
v1 beside it keeps the controllers there, and systemd in the machine only carries the numbers: then the computer's v1
groups get the very same numbers, and the slice's processes are put into them. What is not seen there is systemd's own
handing of the numbers to the kernel.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from nixprov_lab.running import Lab, wait_until

V1 = Path("/sys/fs/cgroup")
SLICE = "nixprov.slice"


@dataclass(frozen=True)
class Limits:
    """As the unit carries them: processes and threads, bytes."""

    tasks: int
    memory: int


def limits(lab: Lab, host: str) -> Limits:
    shown = lab.run(host, ["systemctl", "show", SLICE, "--property=TasksMax,MemoryMax"]).stdout
    found = dict(re.findall(r"^(\w+)=(\d+)$", shown, re.MULTILINE))
    return Limits(int(found["TasksMax"]), int(found["MemoryMax"]))


@dataclass(frozen=True)
class Enforced:
    """`pids` and `memory` are the groups that hold the limits, v1 or v2."""

    pids: Path
    memory: Path

    def tasks(self) -> int:
        return int((self.pids / "pids.current").read_text())

    def was_stopped_at_its_tasks(self) -> bool:
        return bool(_counted(self.pids / "pids.events", "max"))

    def oom_kills(self) -> int:
        v2 = self.memory / "memory.events"
        return _counted(v2 if v2.exists() else self.memory / "memory.oom_control", "oom_kill")


def _counted(file: Path, name: str) -> int:
    found = re.search(rf"^{name} (\d+)$", file.read_text(), re.MULTILINE)
    return int(found[1]) if found else 0


@contextmanager
def enforced(lab: Lab, host: str) -> Iterator[Enforced]:
    unified = _slice(lab, host)
    if (unified / "pids.max").exists() and (unified / "memory.max").exists():
        yield Enforced(unified, unified)
        return
    # They start with the first connection, and only what runs already can be put into a group from outside.
    lab.run(host, ["systemctl", "start", "nixprov-nix-daemon.service", "nixprov-nix-filter.service"])
    told = limits(lab, host)
    groups = {"pids": _own_group("pids") / f"nixprov-{lab.id}", "memory": _own_group("memory") / f"nixprov-{lab.id}"}
    try:
        for group in groups.values():
            group.mkdir()
        (groups["pids"] / "pids.max").write_text(str(told.tasks))
        for name in ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"):
            (groups["memory"] / name).write_text(str(told.memory))
        for group in groups.values():
            _move(_processes(unified), group)
        yield Enforced(groups["pids"], groups["memory"])
    finally:
        for group in groups.values():
            _remove(group)


# The job's own container, and what the engine was told of its processes.
CONTAINER = r"""
engine=$(systemctl cat nixprov-podman.service | sed -n 's/^ExecStart=\(.*\) system service.*/\1/p')
$engine ps --quiet --no-trunc --filter label=com.gitlab.gitlab-runner.type=build |
  xargs $engine inspect --format '{{.Id}} {{.HostConfig.PidsLimit}}'
"""


@dataclass(frozen=True)
class Container:
    """`limit` is what the engine was told; `pids` is the group that holds it, v1 or v2."""

    limit: int
    pids: Path

    def was_stopped(self) -> bool:
        return bool(_counted(self.pids / "pids.events", "max"))


@contextmanager
def enforced_container(lab: Lab, host: str) -> Iterator[Container]:
    """The container of the one job that runs. On cgroups v1 its limit is handed over as `enforced` does with the slice."""
    name, limit = lab.run(host, ["bash", "-c", CONTAINER]).stdout.split()
    [unified] = _groups(lab, host, f"libpod-{name}")
    if (unified / "pids.max").exists():
        yield Container(int(limit), unified)
        return
    group = _own_group("pids") / f"nixprov-{lab.id}-container"
    try:
        group.mkdir()
        (group / "pids.max").write_text(limit)
        _move(_processes(unified), group)
        yield Container(int(limit), group)
    finally:
        _remove(group)


def _groups(lab: Lab, host: str, name: str) -> list[Path]:
    # Path.rglob raises for a group that goes while it looks, as those of other units do.
    folders = [Path(folder) for folder, _, _ in os.walk(Path(lab.state.cgroup) / host)]
    return [folder for folder in folders if folder.name.removesuffix(".scope") == name]


def _slice(lab: Lab, host: str) -> Path:
    found = _groups(lab, host, SLICE)
    assert len(found) == 1, found
    return found[0]


def _own_group(controller: str) -> Path:
    """Where this computer lets us make groups: below the one that we are in."""
    lines = (line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines())
    return next(V1 / controller / path.lstrip("/") for _, names, path in lines if controller in names.split(","))


def _processes(group: Path) -> list[str]:
    found = []
    for folder, _, _ in os.walk(group):
        with suppress(OSError):  # it has ended since
            found += Path(folder, "cgroup.procs").read_text().split()
    return found


def _move(pids: list[str], group: Path) -> None:
    for pid in pids:
        try:
            (group / "cgroup.procs").write_text(pid)
        except ProcessLookupError:
            continue


def _remove(group: Path) -> None:
    if not group.exists():
        return

    def is_gone() -> bool:
        _move((group / "cgroup.procs").read_text().split(), group.parent)
        try:
            group.rmdir()
        except OSError:
            return False
        return True

    wait_until(is_gone, time.monotonic() + 20, f"{group} is not to be emptied")
