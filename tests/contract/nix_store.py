"""A store of a test's own, with a real daemon of some Nix in front of it, and the filter in front of that."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nixprov_lab import tree

from tests.attacks.shell import ADD
from tests.contract.conftest import listens

TEMPLATES: Final = Path(__file__).parents[2] / "templates" / "core"
TIMEOUT_S: Final = 60
_PLACES: Final = ("NIX_STORE_DIR", "NIX_STATE_DIR", "NIX_LOG_DIR")
DAEMONS: Final = ("of this computer", "of the lab")


def daemon_program(which: str) -> list[str]:
    """The command of the computer's own nix-daemon, or of the newer one that the lab's machines have."""
    if which == DAEMONS[0]:
        return ["nix-daemon"]
    # It would look for its hook where this computer has that of another Nix.
    base = tree.ensure(lambda _: None)[-1]
    libraries = ":".join(str(base / folder) for folder in ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"))
    loader = str(base / "lib64/ld-linux-x86-64.so.2")
    return [
        loader,
        "--argv0",
        "nix-daemon",
        "--library-path",
        libraries,
        str(base / "usr/bin/nix"),
        "--option",
        "build-hook",
        "",
    ]


# Hands a listening socket to a program as systemd does, after it has become nobody.
ACTIVATE = """
import os, socket, sys
path, uid, *argv = sys.argv[1:]
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
os.chmod(path, 0o666)
listener.listen(20)
os.dup2(listener.fileno(), 3)
os.set_inheritable(3, True)
os.setgroups([])
os.setgid(int(uid))
os.setuid(int(uid))
os.environ["LISTEN_FDS"] = "1"
os.execv(argv[0], argv)
"""

CONFIGURATION = """
build-users-group =
sandbox = false
substituters =
trusted-users = root
experimental-features = nix-command
"""


@dataclass(frozen=True)
class Store:
    root: Path
    environment: dict[str, str]
    daemon_pid: int

    def nix(self, *argv: str, through: str = "socket") -> subprocess.CompletedProcess[str]:
        environment = self.environment | {"NIX_REMOTE": f"unix://{self.root}/{through}"}
        return subprocess.run(
            argv, env=environment, cwd=self.root, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
        )

    def add(self, path: str, digest: str, address: str, through: str = "socket") -> None:
        program = [sys.executable, "-c", ADD, str(self.root / through), path, digest, address, "theirs"]
        subprocess.run(program, check=True, timeout=TIMEOUT_S)

    def expression(self, name: str) -> str:
        """A file that builds something new, and a hook beside it that tells that it ran."""
        hook = self.root / "hook"
        hook.write_text(f"#!/bin/sh\ntouch {self.root}/hooked\n")
        hook.chmod(0o755)
        path = self.root / f"{name}.nix"
        path.write_text(
            f'derivation {{ name = "{name}"; system = builtins.currentSystem; builder = "/bin/sh"; '
            'args = [ "-c" "echo built > $out" ]; }'
        )
        return str(path)


@contextmanager
def filtered_store(program: list[str], configuration: str = "", *, apart: bool = False) -> Iterator[Store]:
    """With more lines of nix.conf; what the daemon says is in its log.

    `apart`: the daemon knows the store as /nix/store, and can build nothing in it.
    """
    # Not below pytest's folder, which only root may enter.
    with tempfile.TemporaryDirectory(prefix="nixprov-filter-") as name:
        root = Path(name)
        root.chmod(0o755)
        environment = {"PATH": os.environ["PATH"], "HOME": name, "NIX_DAEMON_SOCKET_PATH": f"{name}/daemon"}
        for variable in ("STORE", "STATE", "LOG", "CONF"):
            directory = root / variable.lower()
            directory.mkdir()
            environment[f"NIX_{variable}_DIR"] = str(directory)
        daemons = environment
        if apart:
            daemons = {name: value for name, value in environment.items() if name not in _PLACES}
            daemons["NIX_REMOTE"] = f"local?root={root}"
        (root / "conf/nix.conf").write_text(CONFIGURATION + configuration)
        (root / "activate.py").write_text(ACTIVATE)
        parts = root / "filter"
        parts.mkdir()
        for part in TEMPLATES.glob("*.py"):
            (parts / part.name.replace("filter.py", "__main__.py")).write_text(part.read_text())
        nobody = str(pwd.getpwnam("nobody").pw_uid)
        python = shutil.which("python3", path="/usr/bin") or sys.executable
        bounds = ["--daemon", f"{name}/daemon", "--store", f"{name}/store", "--max-jobs", "1"]
        activated = [python, "-B", str(parts), *bounds]
        with (
            (root / "log-of-daemon").open("w") as log,
            subprocess.Popen(program, env=daemons, stderr=log) as daemon,
            subprocess.Popen(
                [sys.executable, str(root / "activate.py"), f"{name}/socket", nobody, *activated],
                stderr=subprocess.DEVNULL,
            ) as filter_,
        ):
            try:
                _wait_for(root / "daemon", root / "socket")
                yield Store(root, environment, daemon.pid)
            finally:
                filter_.kill()
                daemon.kill()


def _wait_for(*sockets: Path) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not all(listens(path) for path in sockets):
        assert time.monotonic() < deadline, "no socket"
        time.sleep(0.05)
