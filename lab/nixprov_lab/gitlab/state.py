"""The server's memory: users, tokens, owners, runners, jobs; ids are never used twice.

Knows nothing of HTTP. One event loop uses it and no method waits, so nothing here needs a lock.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Final, TypeVar

from nixprov_lab.gitlab.clock import Clock
from nixprov_lab.gitlab.records import (
    LEGACY_SYSTEM_ID,
    AccessToken,
    Group,
    Job,
    JobSpec,
    Pipeline,
    Project,
    Role,
    Runner,
    RunnerManager,
    User,
)
from provisioner.model import AccessLevel, RunnerType

_Owner = TypeVar("_Owner", Group, Project)
ROOT_ID: Final = 1
_PARTITION: Final = {RunnerType.INSTANCE: "t1_", RunnerType.GROUP: "t2_", RunnerType.PROJECT: "t3_"}


def access_token_text() -> str:
    return f"glpat-{secrets.token_urlsafe(15)}"


@dataclass(frozen=True, slots=True)
class NewRunner:
    """The checked attributes of a create call."""

    type: RunnerType
    creator: User
    description: str = ""
    maintenance_note: str | None = None
    active: bool = True
    locked: bool = False
    run_untagged: bool = True
    access_level: AccessLevel = AccessLevel.NOT_PROTECTED
    tags: tuple[str, ...] = ()
    maximum_timeout_s: int | None = None
    group: Group | None = None
    project: Project | None = None


class State:
    """The server's whole state, in memory.

    Seeds: users root (administrator) and dev, groups lab and other, projects lab/demo and other/demo.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.users: dict[int, User] = {}
        self.tokens: dict[str, AccessToken] = {}
        self.groups: dict[int, Group] = {}
        self.projects: dict[int, Project] = {}
        self.runners: dict[int, Runner] = {}
        self.jobs: dict[int, Job] = {}
        self.pipelines: dict[int, Pipeline] = {}
        self._ids = {kind: count(1) for kind in ("user", "group", "project", "runner", "manager", "job", "pipeline")}
        self._seed()

    def _seed(self) -> None:
        self.add_user("root", admin=True)
        self.add_user("dev", roles={"lab": Role.DEVELOPER})
        for path in ("lab", "other"):
            self.add_group(path)
            self.add_project(f"{path}/demo")

    def _next(self, kind: str) -> int:
        return next(self._ids[kind])

    def add_user(
        self, username: str, *, admin: bool = False, auditor: bool = False, roles: dict[str, Role] | None = None
    ) -> User:
        user = User(self._next("user"), username, admin, auditor, dict(roles or {}))
        self.users[user.id] = user
        return user

    def user_named(self, username: str) -> User | None:
        return next((user for user in self.users.values() if user.username == username), None)

    def add_token(self, token: AccessToken) -> AccessToken:
        self.tokens[token.token] = token
        return token

    def add_group(self, path: str) -> Group:
        # Real ids of groups and projects are large, and one kind is never valid as the other. So they are kept apart.
        group = Group(self._next("group") + 1000, path)
        self.groups[group.id] = group
        return group

    def add_project(self, path: str) -> Project:
        project = Project(self._next("project") + 2000, path)
        self.projects[project.id] = project
        return project

    def group(self, id_or_path: str) -> Group | None:
        return _find(self.groups.values(), id_or_path)

    def project(self, id_or_path: str) -> Project | None:
        return _find(self.projects.values(), id_or_path)

    def add_runner(self, new: NewRunner) -> Runner:
        runner = Runner(
            id=self._next("runner"),
            type=new.type,
            token=self._runner_token(new.type),
            created_at=self.clock.now(),
            queue_value=secrets.token_hex(16),
            creator=new.creator,
            description=new.description,
            maintenance_note=new.maintenance_note,
            active=new.active,
            locked=new.locked,
            run_untagged=new.run_untagged,
            access_level=new.access_level,
            tags=list(dict.fromkeys(new.tags)),
            maximum_timeout_s=new.maximum_timeout_s,
            group=new.group,
            projects=[new.project] if new.project else [],
        )
        self.runners[runner.id] = runner
        return runner

    def remove_runner(self, runner: Runner) -> None:
        del self.runners[runner.id]

    def runner_by_token(self, token: str) -> Runner | None:
        return next((runner for runner in self.runners.values() if secrets.compare_digest(runner.token, token)), None)

    def reset_runner_token(self, runner: Runner) -> str:
        """Make a new token. The old one is invalid at once: GitLab has no grace period."""
        runner.token = self._runner_token(runner.type)
        return runner.token

    def _runner_token(self, kind: RunnerType) -> str:
        return f"glrt-{_PARTITION[kind]}{secrets.token_urlsafe(15)}"

    def touch_queue(self, runner: Runner) -> None:
        """Let the next jobs/request look again instead of answering "nothing new"."""
        runner.queue_value = secrets.token_hex(16)

    def heartbeat(self, runner: Runner, system_id: str | None, ip_address: str = "") -> RunnerManager:
        """Note a contact of a runner's process; the first one makes its manager record."""
        now = self.clock.now()
        name = system_id or LEGACY_SYSTEM_ID
        manager = runner.managers.get(name)
        if manager is None:
            manager = RunnerManager(self._next("manager"), name, created_at=now, contacted_at=now)
            runner.managers[name] = manager
        runner.contacted_at = manager.contacted_at = now
        manager.ip_address = ip_address or manager.ip_address
        return manager

    def add_job(self, spec: JobSpec, project: Project) -> Job:
        token = f"glcbt-64_{secrets.token_urlsafe(15)}"
        job = Job(self._next("job"), token, project, spec, queued_at=self.clock.now())
        self.jobs[job.id] = job
        return job

    def add_pipeline(self, project: Project, ref: str, sha: str, source: str = "push") -> Pipeline:
        now = self.clock.now()
        pipeline = Pipeline(self._next("pipeline"), project, ref, sha, source, created_at=now, updated_at=now)
        self.pipelines[pipeline.id] = pipeline
        return pipeline

    def set_pipeline(self, pipeline: Pipeline, status: str) -> None:
        pipeline.status, pipeline.updated_at = status, self.clock.now()

    def jobs_of(self, runner_id: int) -> Iterator[Job]:
        return (job for job in self.jobs.values() if job.runner_id == runner_id)


def _find(owners: Iterable[_Owner], id_or_path: str) -> _Owner | None:
    return next((owner for owner in owners if id_or_path in {str(owner.id), owner.path}), None)
