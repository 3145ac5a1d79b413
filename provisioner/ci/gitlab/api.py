"""GitLab's API as far as nixprov needs it, typed: the `Api` protocol. Importing this imports neither python-gitlab
nor requests; client.py is the real one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from provisioner.ci.gitlab.values import Manager, Registration, Runner
from provisioner.model import Mark, RunnerSpec, RunnerType


class Api(Protocol):
    """One GitLab, seen with one token. Every method is safe to call from several threads at once.

    Every method may raise CiRefused (GitLab understood and said no: a repetition is useless) and CiUnavailable
    (no usable answer; a later run may succeed). Exceptions of the libraries below never get out.
    """

    @property
    def url(self) -> str:
        """As it goes into the runner's config.toml: no trailing slash, no /api/v4."""

    @property
    def writes(self) -> int:
        """How many changing calls (POST, PUT, DELETE) reached the server so far, those put off by a 429 not counted."""

    def check(self) -> None:
        """Ask whether the token is accepted at all, so that a run fails before it touches a host; needs no scope."""

    def runners(self, kind: RunnerType, owner: str | None) -> Sequence[Runner]:
        """All runners of a kind and owner, as lists show them: tags and notes are missing.

        `owner` is a numeric id or full path; None for instance runners. Listed once for the life of this object,
        whatever the number of hosts; own creations, changes and deletions are kept up to date in it.
        """

    def get(self, runner_id: int) -> Runner | None:
        """The runner with all details; None when GitLab has no such runner (404)."""

    def create(self, spec: RunnerSpec, mark: Mark) -> Registration:
        """Make a runner and return its token, which GitLab shows only now.

        Never repeated blindly: when it stays unclear whether GitLab made it (time-out, lost reply, 5xx), it is
        looked for by its mark, and its token is reset; only when it is not there, CiUnavailable is raised.
        """

    def update(self, runner_id: int, wanted: RunnerSpec, mark: Mark) -> None:
        """Make everything `compare.differences` looks at as wanted; type and owner of a runner cannot change."""

    def set_paused(self, runner_id: int, paused: bool) -> None: ...

    def reset_token(self, runner_id: int) -> Registration:
        """Replace the token; the old one is dead at once, for every process that uses it."""

    def delete(self, runner_id: int) -> bool:
        """Delete a runner with its managers. True: deleted by this call; False: it was already gone."""

    def managers(self, runner_id: int) -> tuple[Manager, ...]:
        """The processes that use the runner; empty for a fresh or unknown one."""

    def running_jobs(self, runner_id: int) -> int:
        """How many jobs the runner works on, as far as the token may see; at least 1 while GitLab calls it active."""

    def close(self) -> None:
        """Give back the connections."""
