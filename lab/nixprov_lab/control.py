"""Start, find and stop labs, for the command line and the tests.

Owns the start of a lab and the files for its users; they get a `Lab` of running.py.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import nixprov_lab
import provisioner
from nixprov_lab import cgroup, network, registry, tree
from nixprov_lab.errors import LabError
from nixprov_lab.paths import cache_dir
from nixprov_lab.process import (
    INOTIFY_INSTANCES,
    Progress,
    allow_inotify,
    clean_environment,
    last_line,
    require_lab,
    run,
)
from nixprov_lab.registry import Claim
from nixprov_lab.running import BOOT_S, Lab, all_running, chosen, find, wait_until
from nixprov_lab.supervisor import RUNNER_VARIABLE

__all__ = ["Lab", "all_running", "find", "start", "stop_all", "stop_one"]

INVENTORY: Final = """\
# Machines of the lab {id}: throw-away containers, gone with `nixprov lab stop`.
[lab]
{hosts}
[lab:vars]
ansible_user=root
ansible_ssh_private_key_file={key}
ansible_ssh_common_args='-o UserKnownHostsFile={known_hosts}'
"""
_ACCEPTS: Final = """\
# What is known against Nix 2.26.3, by which a job becomes root of these machines. A real one has a newer Nix instead.
nixprov_accept_advisories={accepted}
"""
# Judged by the version alone, without Debian's patches.
ACCEPTED: Final = ("CVE-2025-46415", "CVE-2025-52993", "CVE-2026-39860", "CVE-2026-44028")


def start(hosts: int = 2, progress: Progress = lambda _: None, nix_from: str = "") -> Lab:
    """Start a lab and return it when all its hosts and its GitLab answer.

    `nix_from` is another suite of Debian, and the machines get its Nix. No advisory is accepted for that one.

    The first start on a computer builds the tree, which takes minutes and needs Debian's mirror. `progress` gets lines
    for people. An interrupted start takes the lab down; after a killed one the supervisor does. Raises LabError.
    """
    require_lab()
    if not 1 <= hosts <= network.MOST_HOSTS:
        raise LabError(f"a lab has 1 to {network.MOST_HOSTS} hosts, not {hosts}")
    allow_inotify(progress)
    environment = _supervisor_environment()
    in_use = [Path(path) for lab in all_running() for path in lab.state.lower]
    lower = tree.ensure(progress, in_use, nix_from=nix_from)
    claim = registry.claim(hosts, lower)
    lab = Lab(claim.files, claim.state)
    try:
        _write_files(lab, "" if nix_from else _ACCEPTS.format(accepted=",".join(ACCEPTED)))
        with _launch(claim, environment) as channel:
            _wait_for(lab, channel, progress)
            channel.sendall(b"keep\n")
    except BaseException as error:
        logs = _save_logs(lab)
        lab.stop()
        if isinstance(error, LabError) and not error.hint:
            raise LabError(error.message, hint=_hint(logs)) from error
        raise
    finally:
        os.close(claim.lease)
    return lab


def stop_all() -> list[str]:
    """End every lab of this computer, and remove leftovers of dead labs and interrupted builds. Returns the ids."""
    tree.remove_leftovers()
    with registry.lock():
        running = [files for files in registry.entries() if registry.is_alive(files)]
        for files in running:
            registry.remove(files)
        return [files.id for files in running] + registry.sweep()


def stop_one() -> list[str]:
    """End the lab that `find` finds, if any, and remove leftovers of dead ones. Returns the ids of all."""
    with registry.lock():
        swept = registry.sweep()
    running = chosen()
    if running is None:
        return swept
    running.stop()
    return [running.id, *swept]


def _write_files(lab: Lab, accepts: str) -> None:
    """Write the keys, the known hosts and the inventory, before any machine runs."""
    files = lab.files
    _make_key(files.ssh_key, f"nixprov-lab-{lab.id}")
    known = []
    for host in lab.state.hosts:
        disk = Path(lab.state.disks) / host.name
        disk.mkdir(mode=0o700)
        public = _make_key(disk / "ssh_host_ed25519_key", host.name)
        known.append(f"{host.address} {' '.join(public.split()[:2])}\n")
    files.known_hosts.write_text("".join(known))
    hosts = "".join(f"{host.name} ansible_host={host.address}\n" for host in lab.state.hosts)
    text = INVENTORY.format(id=lab.id, hosts=hosts, key=files.ssh_key, known_hosts=files.known_hosts)
    files.inventory.write_text(f"{text}{accepts}")


def _make_key(path: Path, comment: str) -> str:
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)])
    return path.with_suffix(".pub").read_text()


def _save_logs(lab: Lab) -> Path:
    """Copy the logs of a lab that did not start to a fixed place. The next failure replaces them."""
    saved = cache_dir() / "last-failure"
    shutil.rmtree(saved, ignore_errors=True)
    saved.mkdir()
    for log in [*lab.files.root.glob("*.log"), *lab.files.hosts.glob("*/console.log")]:
        name = log.name if log.parent == lab.files.root else f"{log.parent.name}.{log.name}"
        shutil.copyfile(log, saved / name)
    return saved


def _hint(logs: Path) -> str:
    where = f"its logs are in {logs}"
    if any(b"inotify" in log.read_bytes() and b"Too many open files" in log.read_bytes() for log in logs.iterdir()):
        return f"too few inotify instances: sysctl -w fs.inotify.max_user_instances={INOTIFY_INSTANCES}; {where}"
    return where


def _launch(claim: Claim, environment: dict[str, str]) -> socket.socket:
    """Start the supervisor, detached from this process, and return the socket to it."""
    ours, theirs = socket.socketpair()
    argv = [
        *("setsid", "--fork", "unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"),
        *(sys.executable, "-m", "nixprov_lab.supervisor"),
        *(str(claim.files.root), str(claim.lease), str(theirs.fileno())),
    ]
    with theirs, claim.files.supervisor_log.open("ab") as output:
        subprocess.run(
            cgroup.inside(Path(claim.state.cgroup) / "supervisor", argv),
            env=environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(claim.lease, theirs.fileno()),
            check=True,
        )
    return ours


def _supervisor_environment() -> dict[str, str]:
    """The supervisor's environment. It keeps only the paths of this package and of a real gitlab-runner."""
    environment = clean_environment(PYTHONPATH=os.pathsep.join(_packages()))
    if runner := os.environ.get(RUNNER_VARIABLE):
        if not Path(runner).is_file():
            raise LabError(f"{RUNNER_VARIABLE} names {runner}, which is no file")
        environment[RUNNER_VARIABLE] = str(Path(runner).resolve())
    return environment


def _packages() -> list[str]:
    """The folders from which this package and nixprov were imported."""
    return [str(Path(package.__file__ or "").parent.parent) for package in (provisioner, nixprov_lab)]


def _wait_for(lab: Lab, channel: socket.socket, progress: Progress) -> None:
    """Wait for the supervisor, GitLab and all hosts."""
    _listen_until_ready(lab, channel, progress)
    wait_until(
        lambda: lab.files.gitlab_token.exists() and lab.gitlab.is_up(),
        time.monotonic() + BOOT_S,
        "the lab's GitLab does not start",
        lab.doom,
    )
    with ThreadPoolExecutor(max_workers=8) as pool:
        for line in pool.map(lambda host: _wait_for_host(lab, host.name), lab.state.hosts):
            progress(line)


def _wait_for_host(lab: Lab, host: str) -> str:
    said = lab.wait_until_up(host)
    reach = ["timeout", "5", "bash", "-c", f": < /dev/tcp/{lab.state.gateway}/8080"]
    if lab.run(host, reach, check=False).returncode != 0:
        raise LabError(
            f"{host} does not reach the lab's GitLab at {lab.state.gitlab_url}",
            hint=f"let the bridge {lab.state.bridge} through this computer's firewall",
        )
    return f"{host}: {said}" + (f" ({', '.join(lab.failed_units(host))})" if said == "degraded" else "")


def _listen_until_ready(lab: Lab, channel: socket.socket, progress: Progress) -> None:
    channel.settimeout(BOOT_S)
    try:
        with channel.makefile() as lines:
            for line in lines:
                message = json.loads(line)
                if "error" in message:
                    raise LabError(f"the lab does not start: {message['error']}")
                if "ready" in message:
                    return
                progress(message["progress"])
    except TimeoutError as error:
        raise LabError("the lab does not start in time") from error
    raise LabError(f"the lab does not start: {last_line(lab.files.supervisor_log.read_text())}")
