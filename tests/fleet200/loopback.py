"""A fleet without machines: one real sshd on loopback, and as many hosts as wanted that are all converged.

Each host has a login key of its own, and sshd answers that key with what the host's probe would say; GitLab is the lab's,
with a runner for each host. So connection, login, round trips, plan and report are real, and only the machines are not.
"""

from __future__ import annotations

import base64
import contextlib
import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from nixprov_lab.gitlab.background import in_background
from nixprov_lab.gitlab.server import Running
from nixprov_lab.gitlab.state import ROOT_ID, NewRunner

from provisioner.hooks import choose
from provisioner.inventory import play
from provisioner.machine.facts import Facts
from provisioner.machine.journal import Baseline, Journal, Phase, Run, RunnerRecord
from provisioner.model import Connection, HostSpec, Mark, RunnerType, Secret, machine_key
from provisioner.ssh.elevate import MARK
from provisioner.ssh.exec import BEGUN
from provisioner.steps import STEPS
from provisioner.steps.wanted import build
from tests.unit.hosts import SERVER, after, new_host, with_file

SSHD: Final = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
TOOLS: Final = (SSHD, shutil.which("ssh"))
START_S: Final = 10.0


@dataclass(frozen=True)
class Measured:
    """One run of the program: `peak_mb` is the most memory it had resident, `cpu_s` its own time and its helpers'."""

    code: int
    seconds: float
    cpu_s: float
    peak_mb: float
    events: list[dict[str, Any]]
    text: str

    @property
    def summary(self) -> dict[str, Any]:
        assert self.events, self.text
        return self.events[-1]


@dataclass(frozen=True)
class Fleet:
    folder: Path
    gitlab: Running

    def run(self, *arguments: str) -> Measured:
        """The real program in a process of its own, with an empty home."""
        argv = [sys.executable, "-m", "provisioner", *arguments, "-i", str(self.folder / "inventory"), "--json"]
        with (self.folder / "out").open("w+") as out, (self.folder / "err").open("w+") as err:
            started = time.monotonic()
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=self._environment())
            peak_mb = _watch(process.pid)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            seconds = time.monotonic() - started
            events = [json.loads(line) for line in _content(out).splitlines()]
            cpu_s = usage.ru_utime + usage.ru_stime
            return Measured(process.returncode, seconds, cpu_s, peak_mb, events, _content(err))

    def _environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "VIRTUAL_ENV", "PYTHONPATH") if name in os.environ}
        mine = {"NIXPROV_GITLAB_URL": self.gitlab.url, "NIXPROV_GITLAB_TOKEN_FILE": str(self.folder / "gitlab.token")}
        return {**kept, **mine, "HOME": str(self.folder / "home"), "NO_PROXY": "*"}


def _watch(pid: int) -> float:
    """Wait for the end of a process and give its peak in MB; getrusage would count what its parent had at the fork."""
    peak_kb = 0
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        peak_kb = max(peak_kb, _peak_kb(pid))
        time.sleep(0.05)
    return peak_kb / 1024


def _peak_kb(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")), 0)


def _content(file: Any) -> str:
    file.seek(0)
    return str(file.read())


@contextlib.contextmanager
def fleet(size: int) -> Iterator[Fleet]:
    """`size` converged hosts, named h001 and so on; gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="nixprov-fleet-") as name, in_background(Path(name)) as gitlab:
        folder = Path(name)
        (folder / "home").mkdir()
        with _sshd(folder) as port:
            lines = [_add_host(folder, gitlab, number, port) for number in range(1, size + 1)]
            options = f"-o UserKnownHostsFile={folder}/known_hosts -o GlobalKnownHostsFile=/dev/null"
            head = f"[all:vars]\nansible_ssh_common_args='{options} -o IdentitiesOnly=yes'\n[fleet]\n"
            (folder / "inventory").write_text(head + "\n".join(lines) + "\n")
            yield Fleet(folder, gitlab)


@contextlib.contextmanager
def _sshd(folder: Path) -> Iterator[int]:
    with socket.socket() as kept:
        # Both ask for it, and this one never listens: so it keeps others from the port and not sshd (socket(7)).
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.bind(("127.0.0.1", 0))
        port: int = kept.getsockname()[1]
        yield from _sshd_at(folder, port)


def _sshd_at(folder: Path, port: int) -> Iterator[int]:
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    public = _make_key(folder / "host_key")
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {public}\n")
    (folder / "authorized_keys").touch()
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host_key\nAuthorizedKeysFile {folder}/authorized_keys\n"
        "PidFile none\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\n"
        "MaxStartups 1000\nLogLevel ERROR\n"
    )
    argv = [str(SSHD), "-D", "-e", "-f", str(folder / "sshd_config")]
    with (folder / "sshd.log").open("wb") as log, subprocess.Popen(argv, stderr=log) as process:
        try:
            _wait_for(port)
            yield port
        finally:
            process.terminate()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.02)
    raise AssertionError("sshd does not answer")


def _add_host(folder: Path, gitlab: Running, number: int, port: int) -> str:
    """Make the host's key, its runner and its answer; give its line of the inventory."""
    name, machine_id = f"h{number:03}", f"{number:032x}"
    [shipped] = play.read(str(play.shipped()))
    spec = HostSpec(name, Connection("127.0.0.1"), tuple(runner.spec() for runner in shipped.runners))
    runner_id = _add_runner(gitlab, spec, machine_key(machine_id))
    answer = folder / f"{name}.answer"
    answer.write_bytes(BEGUN + _answer(spec, machine_id, RunnerRecord(runner_id, gitlab.url, "a-run")))
    public = _make_key(folder / f"{name}.key")
    say = f"cat >/dev/null; printf '%s\\\\n' {MARK.decode().strip()} >&2; exec cat {answer}"
    with (folder / "authorized_keys").open("a") as file:
        file.write(f'restrict,command="{say}" {public}\n')
    where = f"ansible_host=127.0.0.1 ansible_port={port} ansible_user={getpass.getuser()}"
    return f"{name} {where} ansible_ssh_private_key_file={folder}/{name}.key"


def _add_runner(gitlab: Running, spec: HostSpec, machine: str) -> int:
    """As GitLab has it after `up`: with the mark, and polled by its process."""
    state, wanted = gitlab.lab.state, spec.runners[0]
    mark = Mark(spec.name, wanted.name, machine)
    runner = state.add_runner(
        NewRunner(
            RunnerType.INSTANCE,
            state.users[ROOT_ID],
            mark.describe(wanted.description),
            run_untagged=wanted.run_untagged,
            tags=wanted.tags,
        )
    )
    state.heartbeat(runner, f"s_{machine}")
    return runner.id


def _answer(spec: HostSpec, machine_id: str, record: RunnerRecord) -> bytes:
    """What the probe of a converged host says."""
    names = [runner.name for runner in spec.runners]
    records = dict.fromkeys(names, record)
    new = Facts(spec.name, {**new_host().records, "machine-id": machine_id.encode()})
    target = build(spec, replace(SERVER, url=record.url), records, {name: Secret("glrt-x") for name in names})
    parts = [part for step in STEPS for part in step.write(target, new, Journal())]
    units = "\n\n".join(f"Id=nixprov-runner-{name}.service\nActiveState=active\nSubState=running" for name in names)
    revision = target.revision.encode()
    system = {"revision": revision, "revision-at-boot": revision, "units": units.encode(), "probe-end": b"yes\n"}
    journal = Journal(
        host=spec.name,
        machine=new.machine,
        phase=Phase.CONFIRMED,
        run=Run("a-run", "up", "somebody@somewhere", "2026-01-01T00:00:00+00:00"),
        baseline=Baseline(new.generation, new.system),
        hook=choose(new).record(new),
        runners=records,
    )
    found = {**after(new, parts).records, **system}
    found = with_file(found, "journal", "/var/lib/nixprov/journal.json", journal.render(), 0o600)
    return b"".join(name.encode() + b" " + base64.b64encode(value) + b"\n" for name, value in found.items())


def _make_key(file: Path) -> str:
    """An ed25519 key in OpenSSH's format; gives the public half as known_hosts and authorized_keys have it."""
    key = Ed25519PrivateKey.generate()
    file.touch(mode=0o600)
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
