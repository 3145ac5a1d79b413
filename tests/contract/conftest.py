"""Real Nix that evaluates without a store, a daemon or a network; the lab's GitLab on loopback, and forges connected to it."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from nixprov_lab.gitlab.background import in_background
from nixprov_lab.gitlab.faults import Fault
from nixprov_lab.gitlab.records import AccessToken, Role
from nixprov_lab.gitlab.server import Running

from provisioner.ci.gitlab.access import Access
from provisioner.ci.gitlab.api import Api
from provisioner.ci.gitlab.client import Client
from provisioner.ci.gitlab.values import Runner
from provisioner.model import Mark, RunnerSpec, Secret
from provisioner.transport import Patience

NixEval = Callable[[str], object]


class Waits(list[float]):
    """Stands for the clock's sleep: notes how long was waited, and does not."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def listens(path: Path) -> bool:
    """Whether connections to a unix socket are taken; its file is there a moment earlier."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


class Connect(Protocol):
    def __call__(self, token: str = "", url: str = "", timeout_s: float = 30.0, **patience: Any) -> Client: ...


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture(scope="module")
def gitlab_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with in_background(tmp_path_factory.mktemp("gitlab")) as running:
        yield running


@pytest.fixture
def gitlab(gitlab_server: Running) -> Iterator[Running]:
    """The module's server without faults and runners of an earlier test."""
    gitlab_server.lab.faults.clear()
    gitlab_server.lab.state.runners.clear()
    gitlab_server.lab.state.jobs.clear()
    yield gitlab_server
    gitlab_server.lab.faults.clear()


@pytest.fixture
def waits() -> Waits:
    return Waits()


@pytest.fixture
def connect(gitlab: Running, waits: Waits) -> Iterator[Connect]:
    """Open clients with the administrator's token or another; they are closed at the end."""
    opened: list[Client] = []

    def open_one(token: str = "", url: str = "", timeout_s: float = 30.0, **patience: Any) -> Client:
        settings = Access(url or gitlab.url, Secret(token or gitlab.token), timeout_s=timeout_s)
        opened.append(Client(settings, Patience(sleep=waits, **patience)))
        return opened[-1]

    yield open_one
    for api in opened:
        api.close()


@pytest.fixture
def api(connect: Connect) -> Client:
    return connect()


def find(api: Api, mark: Mark, spec: RunnerSpec) -> tuple[Runner, ...]:
    """The runners that carry the mark, with all details, oldest first."""
    listed = [one for one in api.runners(spec.type, spec.owner) if one.mark and one.mark.is_same_runner(mark)]
    detailed = [api.get(one.id) for one in sorted(listed, key=lambda one: one.id)]
    return tuple(one for one in detailed if one)


def token_for(gitlab: Running, *scopes: str, username: str = "root", roles: dict[str, Role] | None = None) -> str:
    state = gitlab.lab.state
    user = state.user_named(username) or state.add_user(username, roles=roles)
    text = f"glpat-{username}-{len(state.tokens)}"
    state.add_token(AccessToken(text, user, frozenset(scopes)))
    return text


def break_once(gitlab: Running, kind: str, method: str | None = None, path: str | None = None, **more: Any) -> None:
    gitlab.lab.faults.append(Fault(kind, method, re.compile(path) if path else None, **more))


def calls(gitlab: Running, since: int = 0) -> list[tuple[object, object]]:
    return [(entry["method"], entry["path"]) for entry in gitlab.lab.journal.entries[since:]]


@pytest.fixture(scope="session")
def nix_eval(tmp_path_factory: pytest.TempPathFactory) -> NixEval:
    """Evaluate an expression strictly and give its JSON as Python values; AssertionError carries what Nix said."""
    program = shutil.which("nix-instantiate")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("nix-instantiate is missing, and in CI these tests are not skipped")
        pytest.skip("nix-instantiate is not installed (Debian package nix-bin)")
    home = tmp_path_factory.mktemp("nix-home")
    command = [program, "--store", "dummy://", "--readonly-mode", "--eval", "--strict", "--json"]

    def evaluate(expression: str) -> object:
        file = home / "expression.nix"
        file.write_bytes(expression.encode())
        done = _run([*command, str(file)], home)
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return json.loads(done.stdout)

    return evaluate


def _run(command: list[str], home: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, env={"HOME": str(home)}, stdin=subprocess.DEVNULL, capture_output=True, check=False)
