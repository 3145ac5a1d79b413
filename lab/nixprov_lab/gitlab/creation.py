"""POST /user/runners: the one call that makes a runner and shows its token (docs api/users, "Create a runner").

Order of checks as in GitLab: token, scope, parameters, owner exists, permission, model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from starlette.responses import Response

from nixprov_lab.gitlab.access import CREATE_RUNNER, may_create
from nixprov_lab.gitlab.entities import registration
from nixprov_lab.gitlab.errors import refused
from nixprov_lab.gitlab.params import Reader
from nixprov_lab.gitlab.records import Group, Project
from nixprov_lab.gitlab.routing import Call, Endpoint, created
from nixprov_lab.gitlab.state import NewRunner
from nixprov_lab.gitlab.validation import ACCESS_LEVELS, runner_errors
from provisioner.model import AccessLevel, RunnerType

_TYPES: Final = tuple(kind.value for kind in RunnerType)


def create(call: Call) -> Response:
    reader = call.reader
    wanted = _read(call, reader)
    owner_id = _owner_id(reader, wanted.type)
    reader.finish()
    owner = _owner(call, wanted.type, owner_id)
    if not may_create(call.user, owner):
        raise refused(403, "Insufficient permissions")
    new = replace(
        wanted,
        group=owner if isinstance(owner, Group) else None,
        project=owner if isinstance(owner, Project) else None,
    )
    _refuse_bad_model(new)
    return created(registration(call.state.add_runner(new), with_id=True))


def _read(call: Call, reader: Reader) -> NewRunner:
    kind = reader.string("runner_type", required=True, values=_TYPES)
    access_level = reader.string("access_level", values=ACCESS_LEVELS)
    return NewRunner(
        type=RunnerType(kind) if kind else RunnerType.INSTANCE,
        creator=call.user,
        description=reader.string("description") or "",
        maintenance_note=reader.string("maintenance_note"),
        active=not reader.boolean("paused", default=False),
        locked=bool(reader.boolean("locked", default=False)),
        run_untagged=bool(reader.boolean("run_untagged", default=True)),
        access_level=AccessLevel(access_level) if access_level else AccessLevel.NOT_PROTECTED,
        tags=tuple(reader.strings("tag_list") or ()),
        maximum_timeout_s=reader.integer("maximum_timeout"),
    )


def _owner_id(reader: Reader, kind: RunnerType) -> int | None:
    if kind is RunnerType.GROUP:
        return reader.integer("group_id", required=True)
    if kind is RunnerType.PROJECT:
        return reader.integer("project_id", required=True)
    return None


def _owner(call: Call, kind: RunnerType, owner_id: int | None) -> Group | Project | None:
    """The owner of the new runner. An unknown one is a bad request, not a 404, and comes before permissions."""
    if kind is RunnerType.INSTANCE:
        return None
    owners: Mapping[int, Group | Project] = call.state.groups if kind is RunnerType.GROUP else call.state.projects
    found = owners.get(owner_id or 0)
    if found is None:
        raise refused(400, f"Missing/invalid {'group' if kind is RunnerType.GROUP else 'project'}")
    return found


def _refuse_bad_model(new: NewRunner) -> None:
    errors = runner_errors(
        description=new.description,
        maintenance_note=new.maintenance_note,
        tags=new.tags,
        run_untagged=new.run_untagged,
        maximum_timeout_s=new.maximum_timeout_s,
    )
    if errors:
        words = [f"{name.replace('_', ' ').capitalize()} {text}" for name, texts in errors.items() for text in texts]
        raise refused(400, " and ".join(words))


ENDPOINTS: Final = (Endpoint("POST", "/user/runners", create, CREATE_RUNNER),)
