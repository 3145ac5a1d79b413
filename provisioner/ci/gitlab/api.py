"""GitLab's API as far as nixprov needs it, typed: the `Api` protocol; client.py is the real one.

Importing this imports neither python-gitlab nor requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from provisioner.ci.gitlab.values import Manager, Registration, Runner
from provisioner.model import Mark, RunnerSpec, RunnerType


class Api(Protocol):
    """One GitLab, seen with one token. Every method is safe to call from several threads at once.

    Every method may raise CiRefused (GitLab understood and said no: a repetition is useless). It may raise
    CiUnavailable (no usable answer; a later run may succeed). Exceptions of the libraries below never get out.
    """

    @property
    def url(self) -> str:
        """As it goes into the runner's config.toml: no trailing slash, no /api/v4."""

    @property
    def writes(self) -> int:
        """Changing calls (POST, PUT, DELETE) that reached the server so far, except those put off by a 429."""

    def check(self) -> None:
        """Check that the token is accepted, so that a run fails before it touches a host; needs no scope."""

    def runners(self, kind: RunnerType, owner: str | None) -> Sequence[Runner]:
        """All runners of a kind and owner, as lists show them: tags and notes are missing.

        `owner` is a numeric id or full path; None for instance runners. Listed once for the life of this object, for
        any number of hosts. It follows own creations, changes and deletions.
        """

    def get(self, runner_id: int) -> Runner | None:
        """The runner with all details; None when GitLab has no such runner (404)."""

    def create(self, spec: RunnerSpec, mark: Mark) -> Registration:
        """Make a runner and return its token, which GitLab shows only now.

        Never repeated blindly. An unclear creation (time-out, lost reply, 5xx) is looked for by its mark, and its token
        is reset. Raises CiUnavailable only when no such runner is there.
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
        """The number of jobs at the runner that the token may see; at least 1 while GitLab calls it active."""

    def close(self) -> None:
        """Give back the connections."""
