"""/runners as a user sees it: list, show, change, delete, rotate (docs api/runners)."""

from __future__ import annotations

from collections.abc import Iterable
from email.utils import parsedate_to_datetime
from typing import Final

from starlette.responses import JSONResponse, Response

from nixprov_lab.gitlab import entities
from nixprov_lab.gitlab.access import READ, WRITE, has_role, may_list_jobs, may_read, may_update
from nixprov_lab.gitlab.errors import ApiError, bad_model, not_found, refused
from nixprov_lab.gitlab.paging import keyset_page
from nixprov_lab.gitlab.params import Reader
from nixprov_lab.gitlab.records import Job, JobStatus, Role, Runner
from nixprov_lab.gitlab.routing import Call, Endpoint, created, no_content
from nixprov_lab.gitlab.status import matches_status
from nixprov_lab.gitlab.validation import ACCESS_LEVELS, runner_errors
from provisioner.model import AccessLevel, RunnerType

_TYPES: Final = tuple(kind.value for kind in RunnerType)
_STATUSES: Final = ("active", "paused", "online", "offline", "never_contacted", "stale")
_SCOPES: Final = ("specific", "shared", *_TYPES, *_STATUSES)
_JOB_STATUSES: Final = (
    *("created", "waiting_for_resource", "preparing", "waiting_for_callback", "skipped", "manual", "scheduled"),
    *(status.value for status in JobStatus),
)
_CHANGEABLE: Final = (
    "description",
    "active",
    "paused",
    "tag_list",
    "run_untagged",
    "locked",
    "access_level",
    "maximum_timeout",
    "maintenance_note",
)


def list_own(call: Call) -> Response:
    """Runners of the groups that the user owns and the projects that the user maintains; never instance runners."""
    mine = [
        runner
        for runner in call.state.runners.values()
        if runner.type is not RunnerType.INSTANCE and _is_own(call, runner)
    ]
    return list_filtered(call, mine, scopes=_STATUSES)


def _is_own(call: Call, runner: Runner) -> bool:
    if runner.group:
        return has_role(call.user, runner.group.path, Role.OWNER)
    return any(has_role(call.user, project.path, Role.MAINTAINER) for project in runner.projects)


def list_all(call: Call) -> Response:
    if not (call.user.admin or call.user.auditor):
        raise refused(403)
    return list_filtered(call, call.state.runners.values(), scopes=_SCOPES)


def list_filtered(call: Call, runners: Iterable[Runner], scopes: tuple[str, ...] = ()) -> Response:
    """Apply the filters of all runner lists. `scopes` are the values that the deprecated `scope` may have here."""
    reader = call.reader
    kind = reader.string("type", values=_TYPES)
    status = reader.string("status", values=_STATUSES)
    paused = reader.boolean("paused")
    tags = reader.strings("tag_list") or []
    version = reader.string("version_prefix")
    scope = reader.string("scope", values=_SCOPES) if scopes else None
    reader.finish()
    if scope and scope not in scopes:
        raise ApiError(400, {"message": "Scope contains invalid value"})
    wanted = [
        runner
        for runner in sorted(runners, key=lambda one: one.id)
        if (kind is None or runner.type.value == kind)
        and (status is None or matches_status(runner, status, call.state.clock.now()))
        and (paused is None or runner.active is not paused)
        and set(tags) <= set(runner.tags)
        and (version is None or _has_version(runner, version))
        and (scope is None or _in_scope(call, runner, scope))
    ]
    return call.paged(wanted, lambda runner: entities.runner_in_list(runner, call.state), reader)


def _has_version(runner: Runner, prefix: str) -> bool:
    return any(str(manager.info.get("version", "")).startswith(prefix) for manager in runner.managers.values())


def _in_scope(call: Call, runner: Runner, scope: str) -> bool:
    named = {"shared": RunnerType.INSTANCE, "specific": RunnerType.PROJECT}
    if scope in named:
        return runner.type is named[scope]
    if scope in _TYPES:
        return runner.type.value == scope
    return matches_status(runner, scope, call.state.clock.now())


def runner_of(call: Call, name: str = "id") -> Runner:
    reader = call.reader
    number = reader.integer(name, required=True)
    reader.finish()
    runner = call.state.runners.get(number or 0)
    if runner is None:
        raise not_found("Runner")
    return runner


def show(call: Call) -> Response:
    runner = _readable(call)
    reader = call.reader
    with_projects = reader.boolean("include_projects", default=True)
    reader.finish()
    return _details(call, runner, with_projects=bool(with_projects))


def _readable(call: Call) -> Runner:
    runner = runner_of(call)
    if not may_read(call.user, runner):
        raise refused(403, "No access granted")
    return runner


def _updatable(call: Call) -> Runner:
    runner = runner_of(call)
    if not may_update(call.user, runner):
        raise refused(403, "No access granted")
    return runner


def _details(call: Call, runner: Runner, *, with_projects: bool = True) -> Response:
    allowed = may_update(call.user, runner)
    return JSONResponse(
        entities.runner_details(runner, call.state, user_may_update=allowed, with_projects=with_projects)
    )


def managers(call: Call) -> Response:
    """Not paginated."""
    runner = _readable(call)
    return JSONResponse([entities.manager(record, runner, call.state) for record in runner.managers.values()])


def projects(call: Call) -> Response:
    runner = _readable(call)
    return call.paged(runner.projects, entities.project_short, call.reader)


def jobs(call: Call) -> Response:
    runner = runner_of(call)
    if not may_list_jobs(call.user, runner):
        raise refused(403, "No access granted")
    reader = call.reader
    status = reader.string("status", values=_JOB_STATUSES)
    system_id = reader.string("system_id")
    reader.string("order_by", values=("id",))
    sort = reader.string("sort", values=("asc", "desc")) or "desc"
    reader.finish()
    found = [
        job
        for job in sorted(call.state.jobs_of(runner.id), key=lambda one: one.id, reverse=sort == "desc")
        if has_role(call.user, job.project.path, Role.REPORTER)
        and (status is None or job.status.value == status)
        and (system_id is None or job.system_id == system_id)
    ]
    return _jobs_page(call, found, reader)


def _jobs_page(call: Call, found: list[Job], reader: Reader) -> Response:
    if call.params.get("pagination") != "keyset":
        return call.paged(found, entities.job, reader)
    query = {name: value for name, value in call.request.query_params.items() if name != "private_token"}
    page, headers = keyset_page(found, reader, call.url, query)
    return JSONResponse([entities.job(job) for job in page], headers=headers)


def update(call: Call) -> Response:
    reader = call.reader
    reader.at_least_one(*_CHANGEABLE)
    reader.exclusive("active", "paused")
    changes = _changes(reader)
    reader.finish()
    runner = _updatable(call)
    _refuse_bad_model(runner, changes)
    for name, value in changes.items():
        setattr(runner, name, value)
    call.state.touch_queue(runner)
    return _details(call, runner)


def _changes(reader: Reader) -> dict[str, object]:
    """The sent attributes only: a missing key keeps the value, `null` clears it where GitLab lets it."""
    access_level = reader.string("access_level", values=ACCESS_LEVELS)
    read: dict[str, tuple[str, object]] = {
        "description": ("description", reader.string("description") or ""),
        "active": ("active", bool(reader.boolean("active"))),
        "paused": ("active", not reader.boolean("paused")),
        "tag_list": ("tags", list(dict.fromkeys(reader.strings("tag_list") or []))),
        "run_untagged": ("run_untagged", bool(reader.boolean("run_untagged"))),
        "locked": ("locked", bool(reader.boolean("locked"))),
        "access_level": ("access_level", AccessLevel(access_level) if access_level else AccessLevel.NOT_PROTECTED),
        "maximum_timeout": ("maximum_timeout_s", reader.integer("maximum_timeout")),
        "maintenance_note": ("maintenance_note", reader.string("maintenance_note")),
    }
    return {attribute: value for name, (attribute, value) in read.items() if reader.has(name)}


def _refuse_bad_model(runner: Runner, changes: dict[str, object]) -> None:
    wanted = {
        name: changes.get(name, getattr(runner, name))
        for name in ("description", "maintenance_note", "tags", "run_untagged", "maximum_timeout_s")
    }
    errors = runner_errors(**wanted)  # type: ignore[arg-type]
    if errors:
        raise bad_model(errors)


def delete(call: Call) -> Response:
    runner = runner_of(call)
    if not call.user.admin and len(runner.projects) > 1:
        raise refused(403, "Runner associated with more than one project")
    if not may_update(call.user, runner):
        raise refused(403, "No access granted")
    _check_precondition(call, runner)
    call.state.remove_runner(runner)
    return no_content()


def _check_precondition(call: Call, runner: Runner) -> None:
    since = call.header("If-Unmodified-Since")
    if since and parsedate_to_datetime(since).timestamp() < runner.created_at:
        raise refused(412)


def reset_token(call: Call) -> Response:
    runner = _updatable(call)
    call.state.reset_runner_token(runner)
    return created(entities.registration(runner, with_id=False))


ENDPOINTS: Final = (
    Endpoint("GET", "/runners", list_own, READ),
    Endpoint("GET", "/runners/all", list_all, READ),
    Endpoint("GET", "/runners/{id}", show, READ),
    Endpoint("PUT", "/runners/{id}", update, WRITE),
    Endpoint("DELETE", "/runners/{id}", delete, WRITE),
    Endpoint("GET", "/runners/{id}/managers", managers, READ),
    Endpoint("GET", "/runners/{id}/projects", projects, READ),
    Endpoint("GET", "/runners/{id}/jobs", jobs, READ),
    Endpoint("POST", "/runners/{id}/reset_authentication_token", reset_token, WRITE),
)
