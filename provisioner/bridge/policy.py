"""The rules of the bridge: permissions to build, refs on GitLab, and the texts of checks. Pure.

Every rule is a row of a table in the tests. No name, ref or URL of a pull request is ever used. All output is made
of numbers, object ids and bridge.toml.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from types import MappingProxyType
from typing import Final

from provisioner.bridge.values import (
    OID,
    Build,
    Check,
    Claim,
    Comment,
    Conclusion,
    Person,
    Pipeline,
    PullRequest,
    Source,
    Stage,
)

MAY_APPROVE: Final = frozenset({"admin", "write"})
HOUR_S: Final = 3600.0
# Deletions of one pass: a list that came back too short must not empty GitLab.
FEW: Final = 3
FEW_SHARE: Final = 0.2
_COMMAND: Final = re.compile(rf"/ci run ({OID.pattern})")
_STATUS: Final[Mapping[str, tuple[str, Conclusion | None]]] = MappingProxyType(
    {
        **dict.fromkeys(("created", "waiting_for_resource", "preparing", "pending", "scheduled"), ("queued", None)),
        **dict.fromkeys(("running", "canceling"), ("in_progress", None)),
        "success": ("completed", Conclusion.SUCCESS),
        "failed": ("completed", Conclusion.FAILURE),
        "canceled": ("completed", Conclusion.CANCELLED),
        "manual": ("completed", Conclusion.ACTION_REQUIRED),
    }
)
_TITLES: Final = MappingProxyType(
    {
        "success": "The pipeline passed",
        "failed": "The pipeline failed",
        "canceled": "The pipeline was cancelled",
        "manual": "The pipeline waits for somebody on GitLab",
        "skipped": "The pipeline was skipped: nothing was built",
        "running": "The pipeline runs",
    }
)
FINAL: Final = frozenset({"success", "failed", "canceled", "skipped"})


class Trust(Enum):
    """The pull requests that are built unasked: branches of the repository, or also forks of its writers."""

    APPROVAL = "approval"
    WRITERS = "writers"


class Ground(Enum):
    """The reason for which a commit may be built."""

    BRANCH = "a branch of the repository"
    AUTHOR = "its author may write"
    APPROVAL = "approved"


def claim_of(comment: Comment) -> Claim | None:
    """The comment as an approval: one line and nothing else, never edited, by a person, of a full commit id.

    A line among others may be quoted, fenced or hidden in HTML; a comment of one line has one meaning.
    """
    found = _COMMAND.fullmatch(comment.body.strip())
    if found is None or not comment.is_human or comment.updated_at != comment.created_at:
        return None
    return Claim(Source.COMMENT, comment.id, comment.issue, found[1], comment.author)


def ground_without_asking(pull: PullRequest) -> Ground | None:
    """A branch of the repository was pushed by one of its writers. A fork may have writers of its own."""
    return Ground.BRANCH if pull.head_repository == pull.base_repository else None


def author_counts(pull: PullRequest, trust: Trust) -> bool:
    """Tell if the author's own permission is enough: the fork must be the author's."""
    return trust is Trust.WRITERS and pull.head_owner == pull.author.id


def may_write(asked: Person, answered_id: int | None, permission: str) -> bool:
    """GitHub answers for a login; the id tells if it is still the same person's."""
    return answered_id == asked.id and permission in MAY_APPROVE


def claims_for(pull: PullRequest, claims: Iterable[Claim]) -> tuple[Claim, ...]:
    """The claims on the pull request's present head, newest first; one on an older commit is of no use."""
    matching = [one for one in claims if one.pull == pull.number and one.head == pull.head]
    return tuple(sorted(matching, key=lambda one: (one.source is not Source.OPERATOR, -one.id)))


class Refs:
    """The bridge's own refs on GitLab: numbers behind the prefix, and the mirrored branches."""

    def __init__(self, prefix: str, branches: Iterable[str]) -> None:
        self._numbered = re.compile(rf"refs/heads/{re.escape(prefix)}([1-9][0-9]{{0,9}})")
        self._prefix = prefix
        self.mirrored: Final = frozenset(f"refs/heads/{branch}" for branch in branches)

    def of_pull(self, number: int) -> str:
        return f"refs/heads/{self._prefix}{number}"

    def number(self, ref: str) -> int | None:
        found = self._numbered.fullmatch(ref)
        return int(found[1]) if found else None

    def may_set(self, ref: str) -> bool:
        return self.number(ref) is not None or ref in self.mirrored

    def may_delete(self, ref: str) -> bool:
        return self.number(ref) is not None


def leaders(pulls: Iterable[PullRequest]) -> Mapping[str, tuple[PullRequest, ...]]:
    """Pull requests by head commit, the oldest first: a commit has one branch and one check.

    Without it a stranger could open a second pull request for somebody's commit and take its check over.
    """
    by_head: dict[str, list[PullRequest]] = {}
    for pull in sorted(pulls, key=lambda one: one.number):
        by_head.setdefault(pull.head, []).append(pull)
    return {head: tuple(same) for head, same in by_head.items()}


def surplus(observed: Mapping[str, str], wanted: Mapping[str, str], refs: Refs) -> tuple[str, ...]:
    """The refs to delete, in order, and few enough at once that a wrong list costs little."""
    ours = [ref for ref in observed if refs.may_delete(ref)]
    extra = sorted(ref for ref in ours if wanted.get(ref) is None)
    return tuple(extra[: max(FEW, int(len(ours) * FEW_SHARE))])


def may_delete(ref_head: str, pull: PullRequest | None) -> bool:
    """Ask the pull request itself before its branch goes: lists can be short, and this one answer cannot."""
    return pull is None or not pull.is_open or pull.head != ref_head


def is_within_hour(pushes: Sequence[float], now: float, limit: int) -> bool:
    return sum(at > now - HOUR_S for at in pushes) < limit


def our_pipeline(build: Build, pipelines: Iterable[Pipeline]) -> Pipeline | None:
    """The pipeline of our own push or re-run. One by a person, a schedule or a tag proves nothing."""
    branch = build.ref.removeprefix("refs/heads/")
    ours = [
        one
        for one in pipelines
        if one.ref == branch and one.head == build.head and (one.source == "push" or one.id == build.pipeline)
    ]
    newest = max(ours, key=lambda one: one.id, default=None)
    return newest if newest is None or build.pipeline is None or newest.id >= build.pipeline else None


# --- texts on GitHub: fixed sentences, numbers, and links made of ids


def waiting(pull: PullRequest, *, own_ci: bool) -> Check:
    """Ask for an approval; the summary has the line to paste."""
    warning = "\n\nIt changes the pipeline itself. Read those files before the code." if own_ci else ""
    return Check(
        "completed",
        "Waits for an approval: its pipeline is changed too" if own_ci else "Waits for an approval",
        "A person with write permission has to read this commit. To have it built, comment with this "
        f"line alone:\n\n```\n/ci run {pull.head}\n```{warning}",
        Conclusion.ACTION_REQUIRED,
        may_approve=True,
    )


def put_off(why: str) -> Check:
    return Check("queued", "Waits for its turn", f"{why} It goes on by itself.")


def refused(reason: str) -> Check:
    return Check("completed", "Not built", f"{reason} Nothing was run.", Conclusion.FAILURE)


def overtaken() -> Check:
    return Check("completed", "Not current any more", "A newer commit took its place.", Conclusion.CANCELLED)


def unreachable(link: str | None) -> Check:
    return Check("in_progress", "The bridge cannot reach GitLab", "It goes on trying.", link=link)


def result(build: Build, now: float, none_after_s: float, link: str | None, *, own_ci: bool) -> Check:
    """The state of its pipeline. An unknown state is a failure, and so is no pipeline after a while."""
    own = "\n\nThis pull request changes its own pipeline, so a success is its own claim." if own_ci else ""
    if build.stage is Stage.REFUSED:
        return refused(build.reason)
    if not build.status:
        if now - build.at < none_after_s:
            return Check("queued", "Waits for GitLab's pipeline", f"The commit is on GitLab.{own}")
        summary = "GitLab made no pipeline of it: no job may match, or its configuration is not valid."
        return Check("completed", "No pipeline", f"{summary}{own}", Conclusion.FAILURE)
    status, conclusion = _STATUS.get(build.status, ("completed", Conclusion.FAILURE))
    known = build.status in _STATUS or build.status in _TITLES
    title = _TITLES.get(build.status, "The pipeline waits" if known else "The pipeline ended in an unknown state")
    title += " (its own definition)" if own_ci else ""
    return Check(status, title, f"Pipeline {build.pipeline} on GitLab.{own}", conclusion, link)


def is_settled(build: Build) -> bool:
    """Nothing more is expected of it, unless somebody asks for a re-run."""
    return build.stage is Stage.REFUSED or build.status in FINAL
