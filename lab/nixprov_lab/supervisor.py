"""The main process of a lab: its machines, its bridge and its GitLab end with this one.

    python -m nixprov_lab.supervisor LAB_DIRECTORY LEASE_FD CHANNEL_FD

Started by control.start as process 1 of its own pid namespace, with its own mount namespace. So the kernel ends every
process and mount with it, even after a kill. LEASE_FD is the locked lease, held open until the end.

CHANNEL_FD is a socket to the process that starts the lab. Lines of JSON go out: {"progress": text}, {"error": text} or
{"ready": true}. `keep` comes in when the lab is up. An end of file without it means that the starter died, and ends
the lab.

On LAB/supervisor.control it answers one line of JSON per connection:

    {"do": "status" | "switch-on" | "switch-off" | "unplug" | "restart", "host": NAME}
    gives {"power": {NAME: "on" | "off"}} or {"error": text}
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Network
from pathlib import Path
from types import FrameType

from nixprov_lab import cgroup, network
from nixprov_lab.errors import LabError
from nixprov_lab.machine import Identity, Machine
from nixprov_lab.paths import LabFiles
from nixprov_lab.process import clean_environment, last_line, run
from nixprov_lab.registry import LabState

log = logging.getLogger("nixprov.lab")
RUNNER_VARIABLE = "NIXPROV_LAB_GITLAB_RUNNER"


class Supervisor:
    def __init__(self, files: LabFiles, channel: socket.socket) -> None:
        self.files = files
        self.state = LabState.load(files.state)
        self.machines = {host.name: Machine(self.state, host, self._on_exit) for host in self.state.hosts}
        self._channel = channel
        self._kept = threading.Event()
        self._over = threading.Event()

    def run(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        try:
            self._set_up()
            self._tell(ready=True)
            self._over.wait()
        except (LabError, OSError) as error:
            log.exception("the lab does not start")
            self._tell(error=str(error))
        finally:
            network.remove_link(self.state.bridge)

    def answer(self, request: Mapping[str, object]) -> dict[str, object]:
        """Obey a line on the control socket. Raises LabError for an unknown action or host."""
        action = request.get("do")
        if action != "status":
            self._act(str(action), str(request.get("host")))
        return {"power": {name: machine.power.value for name, machine in self.machines.items()}}

    def _act(self, action: str, host: str) -> None:
        machine = self.machines.get(host)
        if machine is None:
            raise LabError(f"the lab has no host {host}")
        actions: dict[str, Callable[[], None]] = {
            "switch-on": machine.switch_on,
            "switch-off": machine.switch_off,
            "unplug": lambda: machine.switch_off(hard=True),
            "restart": machine.restart,
        }
        if action not in actions:
            raise LabError(f"the supervisor cannot do {action}")
        log.info("%s: %s", host, action)
        actions[action]()

    def _set_up(self) -> None:
        threading.Thread(target=self._watch_starter, daemon=True).start()
        _hide_nspawn_directory()
        network.create_bridge(self.state.bridge, IPv4Network(self.state.subnet))
        self._start_gitlab()
        with ThreadPoolExecutor(max_workers=8) as pool:
            list(pool.map(self._boot, self.machines.values()))
        threading.Thread(target=self._serve, args=(_listener(self.files.control),), daemon=True).start()

    def _boot(self, machine: Machine) -> None:
        runner = os.environ.get(RUNNER_VARIABLE)
        identity = Identity(
            authorized_keys=self.files.ssh_key.with_suffix(".pub").read_text(),
            host_key=(machine.disk / "ssh_host_ed25519_key").read_text(),
            host_key_public=(machine.disk / "ssh_host_ed25519_key.pub").read_text(),
        )
        machine.prepare(identity, Path(runner) if runner else None)
        machine.switch_on()
        self._tell(progress=f"{machine.host.name}: starting at {machine.host.address}")

    def _start_gitlab(self) -> None:
        files = self.files
        argv = [
            *(sys.executable, "-m", "nixprov_lab.gitlab"),
            *("--host", self.state.gateway, "--port", "8080"),
            *("--control-socket", str(files.gitlab_control), "--token-file", str(files.gitlab_token)),
            *("--calls", str(files.gitlab_calls)),
        ]
        with files.gitlab_log.open("ab") as output:
            child = subprocess.Popen(
                cgroup.inside(Path(self.state.cgroup) / "gitlab", argv),
                env=clean_environment(PYTHONPATH=os.environ.get("PYTHONPATH", "")),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        threading.Thread(target=lambda: self._on_exit("gitlab", child.wait()), daemon=True).start()

    def _on_exit(self, name: str, status: int) -> None:
        log.info("%s: ended with %s", name, status)
        if not self._kept.is_set() and not self._over.is_set():
            said = self.files.gitlab_log if name == "gitlab" else self.files.hosts / name / "console.log"
            self._tell(error=f"{name} ended with {status}: {last_line(said.read_text(errors='replace'))}")

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        log.info("signal %s: ending", number)
        self._over.set()

    def _watch_starter(self) -> None:
        """Wait for the starter's `keep`, or for its death."""
        words = self._channel.recv(64)
        if words.strip() == b"keep":
            self._kept.set()
        else:
            log.info("the starter is gone: ending")
            self._over.set()

    def _serve(self, listener: socket.socket) -> None:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _converse(self, connection: socket.socket) -> None:
        with connection, connection.makefile() as lines:
            try:
                answer = self.answer(json.loads(lines.readline()))
            except (LabError, OSError, ValueError) as error:
                answer = {"error": str(error)}
            connection.sendall(json.dumps(answer).encode() + b"\n")

    def _tell(self, **message: object) -> None:
        try:
            self._channel.sendall(json.dumps(message).encode() + b"\n")
        except OSError:  # the starter is gone, and _watch_starter ends the lab
            log.info("nobody hears: %s", message)


def _listener(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    return listener


def _hide_nspawn_directory() -> None:
    """Mount a directory for systemd-nspawn's locks and sockets that goes with this mount namespace."""
    directory = Path("/run/systemd/nspawn")
    directory.mkdir(parents=True, exist_ok=True)
    run(["mount", "-t", "tmpfs", "-o", "mode=0755", "lab", str(directory)])


def main(argv: list[str]) -> None:
    files, lease, channel = LabFiles(Path(argv[0])), int(argv[1]), int(argv[2])
    os.set_inheritable(lease, False)
    os.umask(0o022)  # files in the machines get the usual modes, independent of the operator's umask
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    Supervisor(files, socket.socket(fileno=channel)).run()


if __name__ == "__main__":
    main(sys.argv[1:])
