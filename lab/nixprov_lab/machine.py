"""One machine of the lab: its disks, its own files, and the container that runs on them.

Owns the overlay and the systemd-nspawn command; knows nothing of GitLab and of requests for machines. The flags were
tried one by one on cgroup v1 with a unified mount. Each flag that is not plain has its reason beside it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from nixprov_lab import cgroup, network
from nixprov_lab.errors import LabError
from nixprov_lab.process import clean_environment, run
from nixprov_lab.registry import HostState, LabState

# The exit status of `systemd-nspawn --keep-unit` for a reboot of the machine. systemd-nspawn@.service has the same
# number in RestartForceExitStatus=133 (systemd.exec).
REBOOT_STATUS: Final = 133
NOT_STARTED: Final = 127
SHUTDOWN_S: Final = 30
NETWORK_UNIT: Final = "lab-network.service"
UNIT_DIRECTORY: Final = "usr/local/lib/systemd/system"  # /etc/systemd/system belongs to the stand-in NixOS


class Power(Enum):
    ON = "on"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Identity:
    """The contents of the files that make a machine known to its users, and them to it."""

    authorized_keys: str
    host_key: str
    host_key_public: str


class Machine:
    """A machine that can be switched on and off; safe to use from several threads."""

    def __init__(self, lab: LabState, host: HostState, on_exit: Callable[[str, int], None]) -> None:
        self.lab = lab
        self.host = host
        self.disk = Path(lab.disks) / host.name
        self._on_exit = on_exit
        self._lock = threading.Lock()
        self._wanted = Power.OFF
        self._container: subprocess.Popen[bytes] | None = None
        self._keeper: threading.Thread | None = None

    @property
    def root(self) -> Path:
        return self.disk / "root"

    @property
    def _cgroup(self) -> Path:
        return Path(self.lab.cgroup) / self.host.name

    @property
    def power(self) -> Power:
        return Power.ON if self._keeper is not None and self._keeper.is_alive() else Power.OFF

    def prepare(self, identity: Identity, runner: Path | None) -> None:
        """Mount the root and write this machine's own files. `runner` replaces the stand-in for gitlab-runner."""
        for name in ("upper", "work", "root"):
            (self.disk / name).mkdir(parents=True)
            (self.disk / name).chmod(0o755)
        self._mount_root()
        # podman's storage is an overlay and the kernel refuses an upper directory on an overlay: /var is a plain one.
        run(["cp", "-a", str(self.root / "var"), str(self.disk / "var")])
        (self.disk / "var/log/journal").mkdir(exist_ok=True)  # as on NixOS, the journal outlives a restart
        self._write_identity(identity)
        self._write_network()
        if runner:
            shutil.copyfile(runner, self.root / "opt/lab/gitlab-runner")
            (self.root / "opt/lab/gitlab-runner").chmod(0o755)

    def switch_on(self) -> None:
        with self._lock:
            if self.power is Power.ON:
                return
            self._wanted = Power.ON
            self._keeper = threading.Thread(target=self._keep, name=self.host.name, daemon=True)
            self._keeper.start()

    def switch_off(self, *, hard: bool = False) -> None:
        """Shut the machine down in order, within a time limit. With `hard` end it at once, as by pulling the plug."""
        with self._lock:
            self._wanted = Power.OFF
            keeper, container = self._keeper, self._container
        if keeper is None or not keeper.is_alive():
            return
        if container is not None and not hard:
            container.terminate()
            keeper.join(SHUTDOWN_S)
        if container is not None:
            container.kill()
        keeper.join()

    def restart(self) -> None:
        self.switch_off()
        self.switch_on()

    def _keep(self) -> None:
        """Run the container, again after each reboot, until it is switched off or ends by itself."""
        while True:
            with self._lock:
                if self._wanted is Power.OFF:
                    return
                try:
                    self._container = self._start_container()
                except (LabError, OSError):
                    self._on_exit(self.host.name, NOT_STARTED)
                    raise
            status = self._container.wait()
            # After a kill some processes are still dying, and hold its cable and its cgroup.
            cgroup.kill(self._cgroup)
            if status != REBOOT_STATUS:
                self._on_exit(self.host.name, status)
                return

    def _start_container(self) -> subprocess.Popen[bytes]:
        cgroup.remove(self._cgroup)
        # A killed machine's cable goes with its network namespace, a little later; but the name must be free now.
        network.remove_link(network.link_of(self.lab.id, self.host.name))
        with (self.disk / "console.log").open("ab") as console:
            return subprocess.Popen(
                cgroup.inside(self._cgroup, self._nspawn()),
                env=clean_environment(SYSTEMD_NSPAWN_UNIFIED_HIERARCHY="1"),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )

    def _nspawn(self) -> list[str]:
        return [
            "systemd-nspawn",
            f"--directory={self.root}",
            "--boot",
            # The computer's systemd is not used, so it needs none.
            *("--register=no", "--keep-unit"),
            f"--machine={network.machine_of(self.lab.id, self.host.name)}",
            f"--hostname={self.host.name}",
            f"--network-bridge={self.lab.bridge}",
            f"--bind={self.disk / 'var'}:/var",
            *("--console=read-only", "--resolv-conf=off", "--timezone=off", "--link-journal=no"),
            # For containers in the container: crun needs bpf to set up devices, and the keyring calls for a session.
            *("--capability=all", "--system-call-filter=bpf keyctl add_key"),
        ]

    def _mount_root(self) -> None:
        options = ",".join(
            (
                f"lowerdir={':'.join(self.lab.lower)}",
                f"upperdir={self.disk / 'upper'}",
                f"workdir={self.disk / 'work'}",
                # Directories of the tree can be renamed, as on any disk; the rest is the kernel's default, written out.
                *("redirect_dir=on", "index=off", "metacopy=off"),
            )
        )
        run(["mount", "-t", "overlay", "-o", options, "lab", str(self.root)])

    def _write_identity(self, identity: Identity) -> None:
        self._write("etc/machine-id", f"{self.host.machine_id}\n", 0o444)
        if not (self.root / "etc/hostname").is_symlink():  # a link is the stand-in's: its configuration names the host
            self._write("etc/hostname", f"{self.host.name}\n")
        self._write("root/.ssh/authorized_keys", identity.authorized_keys, 0o600)
        (self.root / "root/.ssh").chmod(0o700)
        self._write("etc/ssh/ssh_host_ed25519_key", identity.host_key, 0o600)
        self._write("etc/ssh/ssh_host_ed25519_key.pub", identity.host_key_public)

    def _write_network(self) -> None:
        subnet = self.lab.subnet.partition("/")[2]
        unit = NETWORK_UNIT_TEXT.format(address=f"{self.host.address}/{subnet}")
        self._write(f"{UNIT_DIRECTORY}/{NETWORK_UNIT}", unit)
        for target in ("multi-user.target", "network-online.target"):
            wants = self.root / UNIT_DIRECTORY / f"{target}.wants"
            wants.mkdir(parents=True, exist_ok=True)
            (wants / NETWORK_UNIT).symlink_to(f"../{NETWORK_UNIT}")

    def _write(self, path: str, text: str, mode: int = 0o644) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(fd, "w") as out:
            out.write(text)
        file.chmod(mode)


NETWORK_UNIT_TEXT: Final = """\
[Unit]
Description=The lab's network
DefaultDependencies=no
After=local-fs.target
Before=network.target network-online.target
Wants=network.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/sbin/ip link set dev lo up
ExecStart=/usr/sbin/ip address replace {address} dev host0
ExecStart=/usr/sbin/ip link set dev host0 up
"""
