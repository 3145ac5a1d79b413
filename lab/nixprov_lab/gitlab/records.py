"""The server's records: plain and mutable, with times in seconds since the epoch."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Final

from provisioner.model import AccessLevel, RunnerType

LEGACY_SYSTEM_ID: Final = "<legacy>"


class RunnerStatus(Enum):
    """REST's `status` of a runner, or of a manager (never PAUSED there)."""

    ONLINE = "online"
    OFFLINE = "offline"
    STALE = "stale"
    NEVER_CONTACTED = "never_contacted"
    PAUSED = "paused"


class Role(IntEnum):
    """GitLab's access levels by name; a higher one includes the lower ones."""

    REPORTER = 20
    DEVELOPER = 30
    MAINTAINER = 40
    OWNER = 50


@dataclass(slots=True)
class User:
    """`roles` maps the full path of a group or project to the role given there; groups hand theirs down."""

    id: int
    username: str
    admin: bool = False
    auditor: bool = False
    roles: dict[str, Role] = field(default_factory=dict)


@dataclass(slots=True)
class AccessToken:
    token: str
    user: User
    scopes: frozenset[str]
    expired: bool = False
    revoked: bool = False


@dataclass(slots=True)
class Variable:
    """A CI/CD variable without its value, which no test needs."""

    key: str
    protected: bool = False
    masked: bool = False


@dataclass(slots=True)
class Group:
    id: int
    path: str
    runner_creation: bool = True
    variables: list[Variable] = field(default_factory=list)


@dataclass(slots=True)
class Project:
    """`heads` are the branches of its repository, which is kept elsewhere; what is protected is names with `*`."""

    id: int
    path: str
    runner_creation: bool = True
    instance_runners: bool = True
    group_runners: bool = True
    variables: list[Variable] = field(default_factory=list)
    protected_branches: list[str] = field(default_factory=lambda: ["main"])
    protected_tags: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    heads: dict[str, str] = field(default_factory=dict)
    job_token_allowlist: bool = True
    variables_override_role: str = "no_one_allowed"
    separated_caches: bool = True
    job_token_pushes: bool = False
    registries: str = "disabled"
    deploy_tokens: list[str] = field(default_factory=list)
    ci_config_path: str | None = None


@dataclass(slots=True)
class Pipeline:
    """`status` is any text, so that a test can have one that nobody knows."""

    id: int
    project: Project
    ref: str
    sha: str
    source: str
    created_at: float
    updated_at: float
    status: str = "created"


@dataclass(slots=True)
class RunnerManager:
    """One process that uses a runner's token; `polled` is GitLab's "creation finished"."""

    id: int
    system_id: str
    created_at: float
    contacted_at: float
    polled: bool = False
    ip_address: str = ""
    info: dict[str, object] = field(default_factory=dict)


@dataclass(slots=True)
class Runner:
    id: int
    type: RunnerType
    token: str
    created_at: float
    queue_value: str
    creator: User
    description: str = ""
    maintenance_note: str | None = None
    active: bool = True
    locked: bool = False
    run_untagged: bool = True
    access_level: AccessLevel = AccessLevel.NOT_PROTECTED
    tags: list[str] = field(default_factory=list)
    maximum_timeout_s: int | None = None
    group: Group | None = None
    projects: list[Project] = field(default_factory=list)
    contacted_at: float | None = None
    managers: dict[str, RunnerManager] = field(default_factory=dict)

    def serves(self, project: Project) -> bool:
        """Whether it may get jobs of a project: its own, its group's, or any on an instance runner."""
        if self.type is RunnerType.INSTANCE:
            return project.instance_runners
        if self.type is RunnerType.GROUP:
            return self.group is not None and project.path.startswith(f"{self.group.path}/")
        return project in self.projects

    def latest_manager(self) -> RunnerManager | None:
        return max(self.managers.values(), key=lambda manager: manager.contacted_at, default=None)


class JobStatus(Enum):
    PENDING = "pending"
    RUNNING = "running"
    CANCELING = "canceling"
    SUCCESS = "success"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def is_held(self) -> bool:
        """Whether a runner works on it."""
        return self in {JobStatus.RUNNING, JobStatus.CANCELING}

    @property
    def is_finished(self) -> bool:
        return self in {JobStatus.SUCCESS, JobStatus.FAILED, JobStatus.CANCELED}


@dataclass(frozen=True, slots=True)
class JobSpec:
    """A queued job. `host` and `runner_id` narrow the choice of runners, beyond GitLab's own rules."""

    script: tuple[str, ...]
    name: str = "lab"
    tags: tuple[str, ...] = ()
    host: str | None = None
    runner_id: int | None = None
    image: str | None = None
    variables: tuple[tuple[str, str], ...] = ()
    timeout_s: int = 3600
    protected: bool = True


@dataclass(slots=True)
class Job:
    """`started_s` and `finished_s` are monotonic, so that moving the clock does not change how long it took."""

    id: int
    token: str
    project: Project
    spec: JobSpec
    queued_at: float
    status: JobStatus = JobStatus.PENDING
    runner_id: int | None = None
    system_id: str | None = None
    cancels_gracefully: bool = False
    trace: bytearray = field(default_factory=bytearray)
    started_at: float | None = None
    finished_at: float | None = None
    started_s: float | None = None
    finished_s: float | None = None
    failure_reason: str | None = None
    exit_code: int | None = None
    artifacts: dict[str, bytes] = field(default_factory=dict)
