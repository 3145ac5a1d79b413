"""Our calls to GitLab, in words, with the scope and role that each needs (docs api/runners, api/users)."""

from __future__ import annotations

from typing import Final

from provisioner.ci.gitlab.failures import Action
from provisioner.model import Mark, RunnerSpec, RunnerType

CHECK: Final = Action("use the GitLab token", scopes="api")
_READ: Final = "read_api or api"
_MANAGE: Final = "manage_runner or api"
_READ_ONE: Final = "manage_runner, read_api or api"
_MAINTAINER: Final = "an administrator, or Owner of the runner's group, or Maintainer of its project"


def listing(kind: RunnerType, owner: str | None) -> Action:
    match kind:
        case RunnerType.INSTANCE:
            return Action("list the instance's runners", _READ, "an administrator or auditor")
        case RunnerType.GROUP:
            return Action(f"list the runners of group {owner}", _READ, f"Owner of {owner}")
        case RunnerType.PROJECT:
            return Action(f"list the runners of project {owner}", _READ, f"Maintainer of {owner}")


def resolving(word: str, owner: str) -> Action:
    return Action(f"look up {word} {owner}", f"{_READ} (or name it by its numeric id)", f"a member of {owner}")


def reading(runner_id: int) -> Action:
    return Action(f"read runner {runner_id}", _READ_ONE, _MAINTAINER)


def reading_managers(runner_id: int) -> Action:
    return Action(f"read the managers of runner {runner_id}", _READ_ONE, _MAINTAINER)


def reading_jobs(runner_id: int) -> Action:
    return Action(f"count the jobs of runner {runner_id}", _READ_ONE, _MAINTAINER)


def creating(spec: RunnerSpec, mark: Mark) -> Action:
    roles = {
        RunnerType.INSTANCE: "an administrator",
        RunnerType.GROUP: f"Owner of group {spec.owner}, where runner registration is allowed",
        RunnerType.PROJECT: f"Maintainer of project {spec.owner}, where runner registration is allowed",
    }
    what = f"create the runner {mark.host}/{mark.runner}"
    return Action(what, "create_runner or api", roles[spec.type], is_write=True)


def updating(runner_id: int) -> Action:
    return Action(f"change runner {runner_id}", _MANAGE, _MAINTAINER, is_write=True)


def pausing(runner_id: int, *, paused: bool) -> Action:
    return Action(f"{'pause' if paused else 'resume'} runner {runner_id}", _MANAGE, _MAINTAINER, is_write=True)


def resetting(runner_id: int) -> Action:
    return Action(f"reset the token of runner {runner_id}", _MANAGE, _MAINTAINER, is_write=True)


def deleting(runner_id: int) -> Action:
    return Action(f"delete runner {runner_id}", _MANAGE, _MAINTAINER, is_write=True)
