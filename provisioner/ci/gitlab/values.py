"""GitLab's runners, managers and tokens as its API shows them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from provisioner.model import AccessLevel, Mark, RunnerType, Secret


class RunnerStatus(Enum):
    """REST's `status` of a runner, or of a manager (never PAUSED there)."""

    ONLINE = "online"
    OFFLINE = "offline"
    STALE = "stale"
    NEVER_CONTACTED = "never_contacted"
    PAUSED = "paused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Manager:
    """One polling process of a runner; `contacted_at` is ISO 8601 as it is sent, or None."""

    id: int
    system_id: str
    contacted_at: str | None
    status: RunnerStatus
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Runner:
    """The details entity; from a list alone the last fields keep their defaults."""

    id: int
    description: str
    type: RunnerType
    paused: bool
    status: RunnerStatus
    tags: tuple[str, ...] = ()
    run_untagged: bool = True
    locked: bool = False
    access_level: AccessLevel = AccessLevel.NOT_PROTECTED
    maximum_timeout_s: int | None = None
    maintenance_note: str = ""

    @property
    def mark(self) -> Mark | None:
        return Mark.find(self.description)


@dataclass(frozen=True, slots=True)
class Registration:
    """A new runner, or one with a reset token: the token is shown only once."""

    id: int
    token: Secret
    token_expires_at: str | None = None
