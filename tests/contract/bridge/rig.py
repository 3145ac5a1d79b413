"""Both sides of a bridge on loopback: git over HTTP, GitHub's API, GitLab's API, and a clock that tests move."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from nixprov_lab.gitlab.background import in_background
from nixprov_lab.gitlab.records import AccessToken, Pipeline, Project, Role
from nixprov_lab.gitlab.server import Running

from provisioner.bridge.config import Tables
from provisioner.bridge.git import Git, GitLimits, Remote
from provisioner.bridge.github import GitHub
from provisioner.bridge.gitlab import GitLab
from provisioner.bridge.policy import Refs
from provisioner.bridge.reconcile import Bridge, Decision
from provisioner.bridge.store import Store
from provisioner.model import Secret
from provisioner.transport import Patience
from tests.contract.bridge import githttp
from tests.contract.bridge import github as github_double
from tests.contract.bridge.githttp import Moved, Repository

CI = ".gitlab-ci.yml"
MAIN = "refs/heads/main"


@cache
def app_key() -> tuple[str, str]:
    """A private key of an App and its public half, in PEM."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private.decode(), public.decode()


class Clock:
    """The same seconds for the bridge and both stand-ins."""

    def __init__(self, lab: Any) -> None:
        self._lab = lab

    def __call__(self) -> float:
        return float(self._lab.now())

    def advance(self, seconds: float) -> None:
        self._lab.advance(seconds)


@dataclass
class Rig:
    folder: Path
    github: github_double.GitHub
    gitlab: Running
    project: Project
    source: Repository
    target: Repository
    clock: Clock
    tables: Tables
    api_token: str
    push_token: str
    decisions: list[Decision] = field(default_factory=list)
    opened: list[Any] = field(default_factory=list)

    @property
    def owner(self) -> github_double.User:
        return self.github.users["owner"]

    def stranger(self, name: str = "stranger") -> github_double.User:
        return self.github.users.get(name) or self.github.user(name)

    def commit(self, text: str = "", **files: str) -> str:
        """A commit on top of main; the text makes it different from others."""
        everything = {CI: "build: {script: make}\n", "file": text or secrets.token_hex(4), **files}
        return self.source.commit(everything, self.source.refs().get(MAIN, ""))

    def changed(self, **tables: dict[str, Any]) -> None:
        said = self.tables.model_dump()
        for name, table in tables.items():
            said[name] = {**(said[name] or {}), **table} if isinstance(table, dict) else table
        self.tables = Tables.model_validate(said)

    def bridge(self, state: str = "state", **limits: Any) -> Bridge:
        """A new process's view: only what is in the folder of its state is remembered."""
        tables = self.tables
        folder = self.folder / state
        store = Store(folder)
        patience = Patience(repetitions=0, deadline_s=5, sleep=lambda _seconds: None)
        api = GitHub(
            tables.github.api,
            tables.github.repository,
            77,
            7,
            Secret(app_key()[0]),
            write_interval_s=0,
            patience=patience,
            clock=self.clock,
        )
        gitlab = GitLab(tables.gitlab.url, tables.gitlab.project, Secret(self.api_token), patience)
        refs = Refs(tables.pulls.prefix, tables.mirror.branches)
        source = Remote(f"{tables.github.git}/{tables.github.repository}.git", "x-access-token", api.token)
        target = Remote(self.target_url, "oauth2", lambda: Secret(self.push_token))
        git = Git(source, target, folder, refs, GitLimits(**limits))
        self.opened += [store, api, gitlab]
        return Bridge(tables, api, gitlab, git, store, tell=self.decisions.append, now=self.clock)

    @property
    def target_url(self) -> str:
        return f"{self.tables.github.git}/lab/demo.git"

    def settle(self, **more: Any) -> None:
        self.bridge(**more).settle()

    def close(self) -> None:
        for one in self.opened:
            one.close()
        self.opened.clear()

    # --- what is there

    def ref(self, number: int) -> str:
        return self.target.refs().get(f"refs/heads/pr-{number}", "")

    def check(self, head: str) -> github_double.CheckRun:
        (check,) = self.github.checks_of(head)
        return check

    def pipeline(self, head: str) -> Pipeline:
        return max((one for one in self.gitlab.lab.state.pipelines.values() if one.sha == head), key=lambda one: one.id)

    def run_pipeline(self, head: str, status: str) -> None:
        self.gitlab.lab.state.set_pipeline(self.pipeline(head), status)

    def came(self) -> list[str]:
        """Every commit that was ever under the prefix on GitLab."""
        return [move.new for move in self.target.moves if move.new and move.ref.startswith("refs/heads/pr-")]


@contextmanager
def rig(folder: Path, **tables: Any) -> Iterator[Rig]:
    """A repository with a main branch and its owner, mirrored once the first pass is over."""
    source = Repository(folder / "source.git")
    target = Repository(folder / "target.git", password=f"push-{secrets.token_hex(12)}")
    elsewhere = Repository(source.folder)
    repositories = {"owner/name.git": source, "lab/demo.git": target, "elsewhere/name.git": elsewhere}
    with in_background(folder) as gitlab, githttp.serving(repositories) as git_url:
        clock = Clock(gitlab.lab.clock)
        github = github_double.GitHub(source, app_key()[1], clock)
        github.user("owner", "admin")
        with github_double.serving(github) as api_url:
            said = {
                "github": {
                    "repository": "owner/name",
                    "app_id": 77,
                    "installation_id": 7,
                    "private_key_file": "key",
                    "api": api_url,
                    "git": git_url,
                },
                "gitlab": {"url": gitlab.url, "project": "lab/demo", "token_file": "token"},
                "mirror": {"branches": ["main"]},
            }
            state = gitlab.lab.state
            project = state.project("lab/demo")
            assert project is not None
            project.instance_runners = False
            bot = state.add_user("bot", roles={"lab/demo": Role.DEVELOPER})
            token = state.add_token(AccessToken(f"glpat-{secrets.token_hex(12)}", bot, frozenset({"api"})))
            source.set(MAIN, source.commit({CI: "build: {script: make}\n"}))
            made = Rig(
                folder,
                github,
                gitlab,
                project,
                source,
                target,
                clock,
                Tables.model_validate(said | tables),
                token.token,
                target.password,
            )

            def on_move(move: Moved) -> None:
                branch = move.ref.removeprefix("refs/heads/")
                project.heads.pop(branch, None)
                if move.new:
                    project.heads[branch] = move.new
                    state.add_pipeline(project, branch, move.new)

            target.on_move = on_move
            try:
                yield made
            finally:
                made.close()
