"""Real sshd processes on loopback, each with its own configuration, host keys and log; never the developer's ~/.ssh."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import pytest

from provisioner.model import Connection, FrozenDict, HostSpec
from provisioner.ssh.session import Session, SshOptions

USER = getpass.getuser()
SSHD = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
TOOLS = (SSHD, shutil.which("ssh"), shutil.which("ssh-keygen"))
# What a busy machine needs longer for, it gets: a test that waits for an end says when itself.
PATIENCE_S = 30.0


def _make_key(file: Path, kind: str = "ed25519", passphrase: str = "") -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", file.name, "-f", str(file)], check=True)
    return file


def public(key: Path) -> str:
    return " ".join(Path(f"{key}.pub").read_text().split()[:2])


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"not within {PATIENCE_S} s: {condition}")


@dataclass
class Sshd:
    """One sshd in `folder`; restart it with other `settings` or host `keys` by calling `start` again."""

    folder: Path
    client_key: Path
    place: socket.socket
    kinds: tuple[str, ...] = ("ed25519",)
    settings: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    @property
    def final_log(self) -> str:
        """Once nobody is served any more: sshd writes a line when the client may be further already."""
        until(lambda: not self.sessions())
        return self.log

    @property
    def port(self) -> int:
        port: int = self.place.getsockname()[1]
        return port

    @property
    def name(self) -> str:
        return f"[127.0.0.1]:{self.port}"

    def host_key(self, kind: str = "ed25519") -> Path:
        file = self.folder / f"host_{kind}"
        return file if file.exists() else _make_key(file, kind)

    def known_hosts(self, *kinds: str, name: str = "") -> str:
        return "".join(f"{name or self.name} {public(self.host_key(k))}\n" for k in kinds or self.kinds)

    def start(self) -> None:
        # Not the developer's home: bash reads ~/.bashrc for a command of sshd's.
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        wanted = {"PATH": path, "HOME": str(self.folder)} | self.environment
        environment = " ".join(f'"{name}={value}"' for name, value in wanted.items())
        (self.folder / "authorized_keys").write_text(public(self.client_key) + "\n")
        config = [
            f"ListenAddress 127.0.0.1:{self.port}",
            *self.settings,
            f"AuthorizedKeysFile {self.folder / 'authorized_keys'}",
            f"PidFile {self.folder / 'pid'}",
            *(f"HostKey {self.host_key(kind)}" for kind in self.kinds),
            "PermitRootLogin yes",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "StrictModes no",
            "UsePAM no",
            f"SetEnv {environment}",
        ]
        (self.folder / "config").write_text("\n".join(config) + "\n")
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [str(SSHD), "-D", "-e", "-f", str(self.folder / "config")],
                stdin=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )
        until(self._is_listening)

    def _is_listening(self) -> bool:
        if self.process is not None and self.process.poll() is not None:
            raise AssertionError(f"sshd did not start: {self.log}")
        addresses = (self.folder / "config").read_text().count("ListenAddress")
        return self.log.count("Server listening") == addresses

    def sessions(self) -> list[int]:
        """The processes that serve connections: the children of the listener, and theirs."""
        assert self.process is not None
        return _children(self.process.pid)

    def signal_sessions(self, number: signal.Signals) -> None:
        for pid in self.sessions():
            with contextlib.suppress(ProcessLookupError):  # a helper of a login, which has ended since
                os.kill(pid, number)

    def stop(self) -> None:
        if self.process is None:
            return
        for pid in (*self.sessions(), self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(10)
        self.process = None


def _children(pid: int) -> list[int]:
    try:
        own = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []
    return [grand for child in own for grand in (child, *_children(child))]


@dataclass
class Lab:
    """What a test needs to connect: servers, a client key, an own ssh_config and known_hosts."""

    folder: Path
    key: Path
    servers: list[Sshd] = field(default_factory=list)
    sessions: list[Session] = field(default_factory=list)
    options: SshOptions = field(default_factory=SshOptions)

    @property
    def config(self) -> Path:
        return self.folder / "ssh_config"

    @property
    def known(self) -> Path:
        return self.folder / "known_hosts"

    def configure(self, text: str) -> None:
        """Put `text` in front of the defaults of the client's configuration: the first value wins."""
        defaults = f"Host *\n  GlobalKnownHostsFile none\n  UserKnownHostsFile {self.known}\n"
        self.config.write_text(f"{text}\n{defaults}")

    def server(self, *, kinds: tuple[str, ...] = ("ed25519",), settings: tuple[str, ...] = (), **env: str) -> Sshd:
        folder = self.folder / f"sshd{len(self.servers)}"
        folder.mkdir()
        (folder / "bin").mkdir()
        server = Sshd(folder, self.key, _place(), kinds, settings, env)
        self.servers.append(server)
        server.start()
        return server

    def trust(self, *servers: Sshd) -> None:
        with self.known.open("a") as file:
            file.writelines(server.known_hosts() for server in servers)

    def spec(self, server: Sshd, address: str = "127.0.0.1", **changes: Any) -> HostSpec:
        connection = Connection(address, server.port, USER, str(self.key))
        changes["options"] = FrozenDict(changes.get("options", {}))
        return HostSpec("host1", replace(connection, **changes))

    def open(self, spec: HostSpec, **options: Any) -> Session:
        session = Session.open(spec, replace(self.options, **options))
        self.sessions.append(session)
        return session


def _place() -> socket.socket:
    """A port that nobody else is given, while sshd is down neither: bound, and left to whom names it and reuses it."""
    place = socket.socket()
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    place.bind(("127.0.0.1", 0))
    return place


class MakeKey(Protocol):
    def __call__(self, file: Path, kind: str = ..., passphrase: str = ...) -> Path: ...


@pytest.fixture(scope="session")
def make_key() -> MakeKey:
    return _make_key


@pytest.fixture(scope="session")
def client_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _make_key(tmp_path_factory.mktemp("client") / "id")


@pytest.fixture
def lab(tmp_path: Path, client_key: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    if None in TOOLS:
        why = "needs sshd, ssh and ssh-keygen (Debian: openssh-server, openssh-client)"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(why)
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    lab = Lab(tmp_path, client_key)
    lab.configure("")
    lab.options = SshOptions(connect_timeout_s=PATIENCE_S, retries=0, config_file=lab.config)
    try:
        yield lab
        for session in lab.sessions:
            session.close()
    finally:
        for server in lab.servers:
            server.stop()
            server.place.close()


@pytest.fixture
def server(lab: Lab) -> Sshd:
    """A server that is known and lets us in."""
    server = lab.server()
    lab.trust(server)
    return server
