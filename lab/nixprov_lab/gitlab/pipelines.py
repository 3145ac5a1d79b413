"""Pipelines of a project, and their settings: variables, protected names, the job token's allowlist.

docs api/pipelines, api/project_level_variables, api/group_level_variables, api/protected_branches, api/protected_tags,
api/tags, api/project_job_token_scopes, api/deploy_tokens. The repository itself is kept elsewhere;
`Project.heads` has its branches.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from starlette.responses import JSONResponse, Response

from nixprov_lab.gitlab import entities
from nixprov_lab.gitlab.access import READ, WRITE, has_role
from nixprov_lab.gitlab.errors import bad_parameters, not_found, refused
from nixprov_lab.gitlab.owners import group_of, project_of
from nixprov_lab.gitlab.records import Pipeline, Project, Role
from nixprov_lab.gitlab.routing import Call, Endpoint, created

_ORDERS: Final = ("id", "status", "ref", "updated_at", "user_id")


def _allowed(call: Call, role: Role) -> Project:
    project = project_of(call)
    if not has_role(call.user, project.path, role):
        raise refused(403)
    return project


def list_pipelines(call: Call) -> Response:
    project = _allowed(call, Role.REPORTER)
    reader = call.reader
    found = [one for one in call.state.pipelines.values() if one.project is project]
    for name in ("ref", "sha", "source", "status"):
        if wanted := reader.string(name):
            found = [one for one in found if getattr(one, name) == wanted]
    after = reader.string("updated_after")
    order = reader.string("order_by", values=_ORDERS) or "id"
    is_descending = reader.string("sort", values=("asc", "desc")) != "asc"
    reader.finish()
    if after:
        found = [one for one in found if one.updated_at > _moment(after)]
    found.sort(key=lambda one: (one.updated_at if order == "updated_at" else 0.0, one.id), reverse=is_descending)
    return call.paged(found, entities.pipeline, call.reader)


def _moment(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise bad_parameters(["updated_after is invalid"]) from None


def create_pipeline(call: Call) -> Response:
    project = _allowed(call, Role.DEVELOPER)
    reader = call.reader
    ref = reader.string("ref", required=True) or ""
    reader.finish()
    if ref not in project.heads:
        raise bad_parameters(["Reference not found"])
    return created(entities.pipeline(call.state.add_pipeline(project, ref, project.heads[ref], "api")))


def _pipeline(call: Call, project: Project) -> Pipeline:
    reader = call.reader
    number = reader.integer("pipeline_id", required=True)
    reader.finish()
    found = call.state.pipelines.get(number or 0)
    if found is None or found.project is not project:
        raise not_found("Pipeline")
    return found


def retry_pipeline(call: Call) -> Response:
    """Jobs that failed or were cancelled run again; of a pipeline without such jobs nothing does."""
    pipeline = _pipeline(call, _allowed(call, Role.DEVELOPER))
    if pipeline.status in {"failed", "canceled"}:
        call.state.set_pipeline(pipeline, "running")
    return created(entities.pipeline(pipeline))


def project_variables(call: Call) -> Response:
    return call.paged(_allowed(call, Role.MAINTAINER).variables, entities.variable, call.reader)


def group_variables(call: Call) -> Response:
    group = group_of(call)
    if not has_role(call.user, group.path, Role.OWNER):
        raise refused(403)
    return call.paged(group.variables, entities.variable, call.reader)


def protected_branches(call: Call) -> Response:
    names = _allowed(call, Role.MAINTAINER).protected_branches
    return call.paged(names, lambda name: {"id": 1, "name": name, "allow_force_push": False}, call.reader)


def protected_tags(call: Call) -> Response:
    return call.paged(_allowed(call, Role.MAINTAINER).protected_tags, lambda name: {"name": name}, call.reader)


def list_tags(call: Call) -> Response:
    """`search=^word` are those that begin with it."""
    tags = _allowed(call, Role.REPORTER).tags
    reader = call.reader
    search = reader.string("search") or ""
    reader.finish()
    found = [tag for tag in tags if tag.startswith(search[1:]) if search.startswith("^") or search in tag]
    return call.paged(found, lambda name: {"name": name, "protected": False}, call.reader)


def job_token_scope(call: Call) -> Response:
    project = _allowed(call, Role.MAINTAINER)
    return JSONResponse({"inbound_enabled": project.job_token_allowlist, "outbound_enabled": False})


def deploy_tokens(call: Call) -> Response:
    names = _allowed(call, Role.MAINTAINER).deploy_tokens
    return call.paged(names, lambda name: {"id": 1, "name": name, "revoked": False, "expired": False}, call.reader)


ENDPOINTS: Final = (
    Endpoint("GET", "/projects/{id}/pipelines", list_pipelines, READ),
    Endpoint("POST", "/projects/{id}/pipeline", create_pipeline, WRITE),
    Endpoint("POST", "/projects/{id}/pipelines/{pipeline_id}/retry", retry_pipeline, WRITE),
    Endpoint("GET", "/projects/{id}/variables", project_variables, WRITE),
    Endpoint("GET", "/groups/{id}/variables", group_variables, WRITE),
    Endpoint("GET", "/projects/{id}/protected_branches", protected_branches, READ),
    Endpoint("GET", "/projects/{id}/protected_tags", protected_tags, READ),
    Endpoint("GET", "/projects/{id}/repository/tags", list_tags, READ),
    Endpoint("GET", "/projects/{id}/job_token_scope", job_token_scope, READ),
    Endpoint("GET", "/projects/{id}/deploy_tokens", deploy_tokens, READ),
)
