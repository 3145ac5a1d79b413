"""Users, groups, projects and the server itself, as far as runner management needs them."""

from __future__ import annotations

from typing import Final

from starlette.responses import JSONResponse, Response

from nixprov_lab.gitlab import entities
from nixprov_lab.gitlab.access import READ, READ_USER, WRITE, has_role, may_create, may_update, role_in
from nixprov_lab.gitlab.errors import not_found, refused
from nixprov_lab.gitlab.paging import keyset_page
from nixprov_lab.gitlab.records import Group, Project, Role
from nixprov_lab.gitlab.routing import Call, Endpoint, created, no_content
from nixprov_lab.gitlab.runners import list_filtered, runner_of
from provisioner.model import RunnerType

VERSION: Final = "19.4.0"
REVISION: Final = "1ab00000000"
_RUNNER_SCOPES: Final = (
    *("specific", "shared", "active", "paused", "online", "offline", "never_contacted", "stale"),
    *("instance_type", "group_type", "project_type"),
)


def whoami(call: Call) -> Response:
    return JSONResponse(entities.user(call.user))


def version(_call: Call) -> Response:
    return JSONResponse({"version": VERSION, "revision": REVISION})


def metadata(_call: Call) -> Response:
    kas = {"enabled": False, "externalUrl": None, "version": None}
    return JSONResponse({"version": VERSION, "revision": REVISION, "kas": kas, "enterprise": False})


def _visible(call: Call, path: str) -> bool:
    return call.user.admin or call.user.auditor or role_in(call.user, path) is not None


def group_of(call: Call) -> Group:
    group = call.state.group(call.path["id"])
    if group is None or not _visible(call, group.path):
        raise not_found("Group")
    return group


def project_of(call: Call) -> Project:
    project = call.state.project(call.path["id"])
    if project is None or not _visible(call, project.path):
        raise not_found("Project")
    return project


def list_groups(call: Call) -> Response:
    groups = [group for group in call.state.groups.values() if _visible(call, group.path)]
    return call.paged(groups, entities.group_short, call.reader)


def show_group(call: Call) -> Response:
    return JSONResponse(entities.group_short(group_of(call)))


def list_projects(call: Call) -> Response:
    projects = [project for project in call.state.projects.values() if _visible(call, project.path)]
    if call.params.get("pagination") != "keyset":
        return call.paged(projects, entities.project_short, call.reader)
    query = {name: value for name, value in call.request.query_params.items() if name != "private_token"}
    page, headers = keyset_page(projects, call.reader, call.url, query)
    return JSONResponse([entities.project_short(project) for project in page], headers=headers)


def show_project(call: Call) -> Response:
    project = project_of(call)
    sees_settings = has_role(call.user, project.path, Role.MAINTAINER)
    return JSONResponse(entities.project_details(project) if sees_settings else entities.project_short(project))


def group_runners(call: Call) -> Response:
    """The group's own runners and the instance's."""
    group = group_of(call)
    if not call.user.auditor and not has_role(call.user, group.path, Role.OWNER):
        raise refused(403)
    runners = call.state.runners.values()
    return list_filtered(call, [one for one in runners if one.type is RunnerType.INSTANCE or one.group is group])


def project_runners(call: Call) -> Response:
    """The project's runners, those of the groups above it, and the instance's."""
    project = project_of(call)
    if not call.user.auditor and not has_role(call.user, project.path, Role.MAINTAINER):
        raise refused(403)
    runners = [runner for runner in call.state.runners.values() if runner.serves(project)]
    return list_filtered(call, runners, scopes=_RUNNER_SCOPES)


def assign_runner(call: Call) -> Response:
    project = project_of(call)
    if not may_create(call.user, project):
        raise refused(403)
    runner = runner_of(call, "runner_id")
    if runner.type is RunnerType.GROUP:
        raise refused(403, "Runner is a group runner")
    if runner.locked and not call.user.admin:
        raise refused(403, "Runner is locked")
    if runner.type is RunnerType.INSTANCE or not may_update(call.user, runner):
        raise refused(403, "No access granted")
    if project not in runner.projects:
        runner.projects.append(project)
        call.state.touch_queue(runner)
    return created(entities.runner_in_list(runner, call.state))


def unassign_runner(call: Call) -> Response:
    project = project_of(call)
    if not has_role(call.user, project.path, Role.MAINTAINER):
        raise refused(403)
    runner = runner_of(call, "runner_id")
    if project not in runner.projects:
        raise not_found("Runner")
    if runner.projects[0] is project:
        raise refused(403, "You cannot unassign a runner from the owner project. Delete the runner instead")
    runner.projects.remove(project)
    return no_content()


ENDPOINTS: Final = (
    Endpoint("GET", "/user", whoami, READ_USER),
    Endpoint("GET", "/version", version, READ_USER),
    Endpoint("GET", "/metadata", metadata, READ_USER),
    Endpoint("GET", "/groups", list_groups, READ),
    Endpoint("GET", "/groups/{id}", show_group, READ),
    Endpoint("GET", "/groups/{id}/runners", group_runners, READ),
    Endpoint("GET", "/projects", list_projects, READ),
    Endpoint("GET", "/projects/{id}", show_project, READ),
    Endpoint("GET", "/projects/{id}/runners", project_runners, READ),
    Endpoint("POST", "/projects/{id}/runners", assign_runner, WRITE),
    Endpoint("DELETE", "/projects/{id}/runners/{runner_id}", unassign_runner, WRITE),
)
