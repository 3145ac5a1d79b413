"""A running lab, asked from any process: all of its state is in its directory.

Owns the conversation with the supervisor and, through ssh, with the machines; knows nothing of a lab's start.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from nixprov_lab import network, registry
from nixprov_lab.errors import LabError
from nixprov_lab.gitlab_client import GitLabControl
from nixprov_lab.paths import LabFiles
from nixprov_lab.process import clean_environment
from nixprov_lab.registry import HostState, LabState

LAB_VARIABLE: Final = "NIXPROV_LAB"
BOOT_S: Final = 90
POLL_S: Final = 0.05
HEALTHY: Final = ("running", "degraded")
SSH_PORT: Final = 22


class Lab:
    """One running lab. All methods raise LabError for a lab, host or machine that fails or does not answer."""

    def __init__(self, files: LabFiles, state: LabState) -> None:
        self.files = files
        self.state = state
        self.gitlab = GitLabControl(files.gitlab_control)

    @property
    def id(self) -> str:
        return self.state.id

    @property
    def is_alive(self) -> bool:
        return registry.is_alive(self.files)

    @property
    def supervisor_pids(self) -> list[int]:
        """The processes whose end is the end of the lab; empty when it has ended."""
        try:
            return [int(pid) for pid in Path(self.state.cgroup, "supervisor/cgroup.procs").read_text().split()]
        except FileNotFoundError:
            return []

    def describe(self) -> dict[str, Any]:
        """The object of `lab start --json`: paths and addresses as strings, `hosts` a list of {name, address}."""
        return {
            "id": self.id,
            "directory": str(self.files.root),
            "inventory": str(self.files.inventory),
            "gitlab_url": self.state.gitlab_url,
            "gitlab_token_file": str(self.files.gitlab_token),
            "gitlab_control": str(self.files.gitlab_control),
            "gitlab_calls": str(self.files.gitlab_calls),
            "ssh_key": str(self.files.ssh_key),
            "known_hosts": str(self.files.known_hosts),
            "hosts": [{"name": host.name, "address": host.address} for host in self.state.hosts],
        }

    def status(self) -> dict[str, Any]:
        """As `describe`, with `alive`, `gitlab` ("up", "down") and each host `power` ("on", "off") and `ssh` (bool)."""
        power = self._supervisor("status")["power"] if self.is_alive else {}
        hosts = [
            {
                "name": host.name,
                "address": host.address,
                "power": power.get(host.name, "off"),
                "ssh": answers(host.address, SSH_PORT),
            }
            for host in self.state.hosts
        ]
        return {
            **self.describe(),
            "alive": self.is_alive,
            "gitlab": "up" if self.gitlab.is_up() else "down",
            "hosts": hosts,
        }

    def ssh_argv(self, host: str) -> list[str]:
        """The ssh command for a host, without a remote command; the operator's own ssh settings play no part."""
        return [
            "ssh",
            *("-F", "/dev/null", "-i", str(self.files.ssh_key)),
            *("-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=5"),
            *("-o", f"UserKnownHostsFile={self.files.known_hosts}", "-o", "GlobalKnownHostsFile=/dev/null"),
            *("-o", "StrictHostKeyChecking=yes"),
            f"root@{self._host(host).address}",
        ]

    def run(
        self, host: str, argv: Sequence[str], *, stdin: str = "", check: bool = True, timeout_s: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as root on a host, each word quoted. With `check` raises LabError for a status other than 0."""
        try:
            done = subprocess.run(
                [*self.ssh_argv(host), shlex.join(argv)],
                env=clean_environment(),
                input=stdin,
                capture_output=True,
                text=True,
                check=False,
                timeout=timeout_s,
            )
        except subprocess.TimeoutExpired as error:
            raise LabError(f"{host}: {argv[0]} takes longer than {timeout_s:.0f} s") from error
        if check and done.returncode != 0:
            raise LabError(f"{host}: {shlex.join(argv)} ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
        return done

    def wait_until_up(self, host: str) -> str:
        """Wait until a host has booted; the state by `systemctl is-system-running`, running or degraded."""
        address = self._host(host).address
        deadline = time.monotonic() + BOOT_S
        wait_until(lambda: answers(address, SSH_PORT), deadline, f"{host} does not answer ssh", self.doom)
        while True:
            said = self.run(host, ["systemctl", "is-system-running", "--wait"], check=False).stdout.strip()
            if said in HEALTHY:
                return said
            if time.monotonic() > deadline:
                raise LabError(f"{host} does not finish booting: {said or 'no answer'}")
            time.sleep(POLL_S)

    def failed_units(self, host: str) -> list[str]:
        listed = self.run(host, ["systemctl", "list-units", "--failed", "--plain", "--no-legend"]).stdout
        return [line.split()[0] for line in listed.splitlines() if line.strip()]

    def reboot(self, host: str) -> None:
        """Shut a host down in order and start it on the same disks; returns when it is up again."""
        self._supervisor("restart", host)
        self.wait_until_up(host)

    def stop_host(self, host: str, *, hard: bool = False) -> None:
        """Shut a host down, or with `hard` pull its plug; returns when it is off."""
        self._supervisor("unplug" if hard else "switch-off", host)

    def start_host(self, host: str) -> None:
        self._supervisor("switch-on", host)
        self.wait_until_up(host)

    def cut_network(self, host: str) -> None:
        """Pull a host's cable: connections hang, as with a lost network. A restarted host has a new cable."""
        network.set_link(network.link_of(self.id, self._host(host).name), up=False)

    def restore_network(self, host: str) -> None:
        network.set_link(network.link_of(self.id, self._host(host).name), up=True)

    def stop(self) -> None:
        """End the lab and remove all of it."""
        with registry.lock():
            registry.remove(self.files)

    def _host(self, name: str) -> HostState:
        for host in self.state.hosts:
            if host.name == name:
                return host
        names = ", ".join(host.name for host in self.state.hosts)
        raise LabError(f"the lab has no host {name}", hint=f"its hosts: {names}")

    def doom(self) -> str:
        """The reason why waiting for the lab is in vain; empty when there is none."""
        return "" if self.is_alive else "the lab has ended"

    def _supervisor(self, action: str, host: str = "") -> dict[str, Any]:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(BOOT_S)
                connection.connect(str(self.files.control))
                connection.sendall(json.dumps({"do": action, "host": host}).encode() + b"\n")
                with connection.makefile() as lines:
                    answer: dict[str, Any] = json.loads(lines.readline())
        except (OSError, ValueError) as error:
            raise LabError(f"the lab's supervisor does not answer: {error}") from error
        if "error" in answer:
            raise LabError(str(answer["error"]))
        return answer


def find() -> Lab:
    """The running lab that NIXPROV_LAB names, else the newest. Raises LabError when there is none."""
    lab = chosen()
    if lab is None:
        wanted = os.environ.get(LAB_VARIABLE)
        raise LabError(f"the lab {wanted} is not running" if wanted else "no lab is running", hint="nixprov lab start")
    return lab


def chosen() -> Lab | None:
    """As `find`, but None when there is none."""
    wanted = os.environ.get(LAB_VARIABLE)
    return next((lab for lab in reversed(all_running()) if wanted in (None, "", lab.id)), None)


def all_running() -> list[Lab]:
    """All running labs of this computer, oldest first."""
    found = []
    for files in registry.entries():
        with suppress(OSError, ValueError):  # removed at this moment
            if registry.is_alive(files):
                found.append(Lab(files, LabState.load(files.state)))
    return found


def answers(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=0.5).close()
    except OSError:
        return False
    return True


def wait_until(
    condition: Callable[[], bool], deadline: float, failure: str, doomed: Callable[[], str] = lambda: ""
) -> None:
    """Poll a condition until time.monotonic() is at the deadline. Raises LabError then, or for a reason of `doomed`."""
    while not condition():
        if reason := doomed():
            raise LabError(f"{failure}: {reason}")
        if time.monotonic() > deadline:
            raise LabError(failure)
        time.sleep(POLL_S)
