"""The bridge's view of both sides: frozen values, made by the seams and read by the policy."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

OID: Final = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Person:
    """An account of GitHub's: the id is the person, the login may be somebody else's tomorrow."""

    id: int
    login: str


@dataclass(frozen=True, slots=True)
class PullRequest:
    """An open or closed pull request. `head` is a commit; `head_repository` is None once the fork is deleted."""

    number: int
    is_open: bool
    head: str
    base: str
    author: Person
    base_repository: int
    head_repository: int | None
    head_owner: int | None
    created_at: str

    @property
    def is_fork(self) -> bool:
        return self.head_repository != self.base_repository


@dataclass(frozen=True, slots=True)
class Comment:
    """A comment of a pull request or issue; times are GitHub's, ISO 8601 in UTC, and compare as text."""

    id: int
    issue: int
    author: Person
    is_human: bool
    body: str
    created_at: str
    updated_at: str


class Source(Enum):
    """The door of a claim: a line or a button on GitHub, or the bridge's own machine."""

    COMMENT = "comment"
    BUTTON = "button"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Claim:
    """A person asks for a run of this very commit. Their permission is asked for before the push.

    `id` is the comment's, or counted by the store; a higher one of the same source is later.
    """

    source: Source
    id: int
    pull: int
    head: str
    person: Person


@dataclass(frozen=True, slots=True)
class Pipeline:
    id: int
    ref: str
    head: str
    source: str
    status: str


class Conclusion(Enum):
    """How a check ends, in GitHub's words; `neutral` and `skipped` are left out, because both let a merge pass."""

    SUCCESS = "success"
    FAILURE = "failure"
    CANCELLED = "cancelled"
    ACTION_REQUIRED = "action_required"


@dataclass(frozen=True, slots=True)
class Check:
    """The text that GitHub shows beside a commit. `status` is `queued`, `in_progress` or `completed`."""

    status: str
    title: str
    summary: str
    conclusion: Conclusion | None = None
    link: str | None = None
    may_approve: bool = False

    @property
    def is_final(self) -> bool:
        return self.conclusion is not None and self.conclusion is not Conclusion.ACTION_REQUIRED


class Stage(Enum):
    """How far a commit came on its way to GitLab."""

    INTENT = "intent"
    PUSHED = "pushed"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Build:
    """The wanted or present commit of one ref on GitLab; times in seconds since the epoch.

    `pipeline` is the newest of ours, `status` its state in GitLab's words, `reason` the sentence for a refusal.
    `is_found`: it was on GitLab before the bridge knew of it, so that its pipeline may be old.
    """

    ref: str
    head: str
    stage: Stage
    at: float
    pipeline: int | None = None
    status: str = ""
    reason: str = ""
    failures: int = 0
    is_found: bool = False
