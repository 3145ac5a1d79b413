"""The filter between a real Nix client and a real daemon of this computer, whatever its version, as on an old host.

The daemon is the plain one, and the filter runs as an unprivileged user: that is how a host is served whose Nix has no
daemon that trusts nobody. The store is the test's own.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
import tally

from tests.attacks.shell import ADD
from tests.contract.conftest import listens

TEMPLATES = Path(__file__).parents[2] / "templates"
TIMEOUT_S = 60
needs_nix = pytest.mark.skipif(
    shutil.which("nix-daemon") is None or os.geteuid() != 0, reason="needs root and the package nix-bin"
)
pytestmark = needs_nix

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


@pytest.fixture
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """With more lines of nix.conf, where a test has some."""
    # Not below pytest's folder, which only root may enter.
    with tempfile.TemporaryDirectory(prefix="nixprov-filter-") as name:
        root = Path(name)
        root.chmod(0o755)
        environment = {"PATH": os.environ["PATH"], "HOME": name, "NIX_DAEMON_SOCKET_PATH": f"{name}/daemon"}
        for variable in ("STORE", "STATE", "LOG", "CONF"):
            directory = root / variable.lower()
            directory.mkdir()
            environment[f"NIX_{variable}_DIR"] = str(directory)
        (root / "conf/nix.conf").write_text(CONFIGURATION + getattr(request, "param", ""))
        (root / "activate.py").write_text(ACTIVATE)
        program = root / "filter"
        program.mkdir()
        for part in TEMPLATES.glob("*.py"):
            (program / part.name.replace("filter.py", "__main__.py")).write_text(part.read_text())
        nobody = str(pwd.getpwnam("nobody").pw_uid)
        python = shutil.which("python3", path="/usr/bin") or sys.executable
        activated = [
            python,
            "-B",
            str(program),
            "--daemon",
            f"{name}/daemon",
            "--store",
            f"{name}/store",
            "--max-jobs",
            "1",
        ]
        with (
            subprocess.Popen(["nix-daemon"], env=environment, stderr=subprocess.DEVNULL) as daemon,
            subprocess.Popen(
                [sys.executable, str(root / "activate.py"), f"{name}/socket", nobody, *activated],
                stderr=subprocess.DEVNULL,
            ) as filter_,
        ):
            try:
                _wait_for(root / "daemon", root / "socket")
                yield Store(root, environment)
            finally:
                filter_.kill()
                daemon.kill()


def _wait_for(*sockets: Path) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not all(listens(path) for path in sockets):
        assert time.monotonic() < deadline, "no socket"
        time.sleep(0.05)


def test_a_build_and_what_belongs_to_it(store: Store) -> None:
    built = store.nix("nix-build", store.expression("built"))
    assert built.returncode == 0, built.stderr
    path = built.stdout.strip()
    assert Path(path).read_text() == "built\n"
    (store.root / "source").write_text("x" * 1_000_000)
    assert store.nix("nix-store", "--add", "./source").returncode == 0
    for question in (
        ["nix-store", "-q", "--references", path],
        ["nix", "path-info", "--all"],
        ["nix-store", "-r", path],
    ):
        answer = store.nix(*question)
        assert answer.returncode == 0, answer.stderr
    # The root of `result` is the client's business only.
    assert not any((store.root / "state/gcroots/auto").glob("*"))


def test_what_is_counted_is_what_nix_says(store: Store) -> None:
    expression = store.expression("counted")
    path = store.nix("nix-build", "--no-out-link", expression).stdout.strip().encode()
    drv = store.nix("nix-instantiate", expression).stdout.strip().encode()
    size = int(store.nix("nix-store", "-q", "--size", path.decode()).stdout)
    with closing(tally.Store(str(store.root / "daemon"))) as asked:
        assert asked.paths(drv, b"*") == asked.paths(drv, b"out") == [path]
        assert asked.size(drv) == asked.path_size(path) == size
        assert asked.paths(drv.replace(b"counted", b"missing"), b"*") == []
        # The connection lives on after an error.
        assert asked.path_size(path.replace(b"counted", b"missing")) is None
        assert asked.path_size(path) == size


@pytest.mark.parametrize(
    "question",
    [["--gc"], ["--verify"], ["--optimise"], ["--gc", "--print-roots"], ["--delete", "/x"]],
    ids=lambda question: question[0] + question[-1],
)
def test_the_stores_upkeep_is_refused(store: Store, question: list[str]) -> None:
    built = store.nix("nix-build", "--no-out-link", store.expression("kept")).stdout.strip()
    answer = store.nix("nix-store", *[built if word == "/x" else word for word in question])
    assert answer.returncode != 0
    assert "refused to jobs" in answer.stderr
    assert Path(built).exists()


@pytest.mark.parametrize(("through", "hooked"), [("socket", False), ("daemon", True)])
def test_root_behind_the_filter_is_nobody_to_the_daemon(store: Store, through: str, hooked: bool) -> None:
    expression = store.expression("hook")
    hook = ["--option", "post-build-hook", f"{store.root}/hook"]
    built = store.nix("nix-build", "--no-out-link", *hook, expression, through=through)
    assert built.returncode == 0, built.stderr
    assert (store.root / "hooked").exists() is hooked


@pytest.mark.parametrize(("through", "after"), [("socket", "mine\n"), ("daemon", "theirs\n")])
def test_what_is_there_is_not_replaced(store: Store, through: str, after: str) -> None:
    """By anybody's content under a content-addressed name, which needs no signature: the daemon alone lets it happen."""
    (store.root / "source").write_text("mine\n")
    victim = store.nix("nix-store", "--add", "./source").stdout.strip()
    digest = store.nix("nix-hash", "--type", "sha256", victim).stdout.strip()
    address = "fixed:r:sha256:" + store.nix("nix-hash", "--type", "sha256", "--base32", victim).stdout.strip()
    store.add(victim, digest, address, through)
    assert Path(victim).read_text() == after


@pytest.mark.parametrize(
    ("store", "taken"), [("require-sigs = true", False), ("require-sigs = false", True)], indirect=["store"]
)
def test_signatures_alone_keep_out_what_nobody_built(store: Store, taken: bool) -> None:
    """A host may do without them; the module then refuses such a Nix as this one, and its own daemon asks for them."""
    (store.root / "source").write_text("theirs\n")
    digest = store.nix("nix-hash", "--type", "sha256", "./source").stdout.strip()
    victim = store.root / "store" / f"{'0' * 32}-poison"
    store.add(str(victim), digest, "")
    assert victim.exists() is taken
