"""The control API on its own unix socket, by which tests and `nixprov lab` steer the lab's GitLab. JSON in, JSON out.

    GET    /ping                 {url, time}
    POST   /jobs                 {script: text | [lines], host?, runner_id?, tags?, image?, variables?: {k: v},
                                  timeout_s?, name?, protected?, project?} -> 201 {id}
    GET    /jobs                 [job, ...]
    GET    /jobs/ID              {id, status, seconds, trace, runner_id, system_id, failure_reason, exit_code,
                                  artifacts}
    POST   /jobs/ID/cancel       the job
    GET    /jobs/ID/trace?from=N {status, trace, next}: text from byte N on; `next` is the N to ask with again
    GET    /runners              [{details entity, managers: [...], host, creator, projects, groups}, ...]
    DELETE /runners/ID           204: somebody removed it behind our back
    GET    /calls?since=N        [{n, time, method, path, query, status, token, fault?}, ...] from number N on
    GET    /clock                {time}
    POST   /clock                {advance_s} | {set: epoch seconds or ISO 8601} -> {time}
    GET    /faults               [{kind, times, ...}, ...]
    POST   /faults               {kind, method?, path_regex?, times? (1; null = until cleared), seconds?,
                                  retry_after?, location?} or the same with {match: {method?, path_regex?}} -> 201
    DELETE /faults?path_regex=R  204; those with this very path_regex, all without
    POST   /tokens               {scopes: [..], user? ("root"), expired?, revoked?} -> 201 {token}
    POST   /users                {username, admin?, auditor?,
                                  roles?: {path: reporter | developer | maintainer | owner}} -> 201
    POST   /groups, /projects    {path, runner_creation?, instance_runners? (projects)} -> 201 {id, path}

A mistake in a request is a 400 with {error}; an unknown id a 404.
"""

from __future__ import annotations

import codecs
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from nixprov_lab.gitlab import entities, queue
from nixprov_lab.gitlab.access import SCOPES
from nixprov_lab.gitlab.app import LabGitLab
from nixprov_lab.gitlab.clock import iso
from nixprov_lab.gitlab.control_values import BadRequestError, fault_of, job_spec_of, roles_of, text_of
from nixprov_lab.gitlab.records import AccessToken, Job, Runner
from nixprov_lab.gitlab.state import access_token_text
from provisioner.model import Mark

DEFAULT_PROJECT: Final = "lab/demo"
Body = Mapping[str, object]
Action = Callable[[LabGitLab, Request, Body], Response]


def ping(lab: LabGitLab, request: Request, _body: Body) -> Response:
    return JSONResponse({"url": request.app.state.url, "time": iso(lab.clock.now())})


def add_job(lab: LabGitLab, _request: Request, body: Body) -> Response:
    project = lab.state.project(text_of(body, "project") or DEFAULT_PROJECT)
    if project is None:
        raise BadRequestError("no such project")
    job = queue.enqueue(lab.state, job_spec_of(body), project)
    return JSONResponse({"id": job.id}, status_code=201)


def list_jobs(lab: LabGitLab, _request: Request, _body: Body) -> Response:
    return JSONResponse([_job_json(job) for job in lab.state.jobs.values()])


def show_job(lab: LabGitLab, request: Request, _body: Body) -> Response:
    return JSONResponse(_job_json(_job(lab, request)))


def cancel_job(lab: LabGitLab, request: Request, _body: Body) -> Response:
    job = _job(lab, request)
    queue.cancel(lab.state, job)
    return JSONResponse(_job_json(job))


def show_trace(lab: LabGitLab, request: Request, _body: Body) -> Response:
    job = _job(lab, request)
    start = int(request.query_params.get("from", "0"))
    # An incremental decoder holds back half a character at the end, and the next call shows it whole.
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(bytes(job.trace[start:]), final=job.status.is_finished)
    kept_back = len(decoder.getstate()[0])
    return JSONResponse({"status": job.status.value, "trace": text, "next": len(job.trace) - kept_back})


def _job(lab: LabGitLab, request: Request) -> Job:
    return lab.state.jobs[int(request.path_params["id"])]


def _job_json(job: Job) -> dict[str, object]:
    seconds = None if job.started_s is None or job.finished_s is None else round(job.finished_s - job.started_s, 3)
    return {
        "id": job.id,
        "status": job.status.value,
        "seconds": seconds,
        "trace": job.trace.decode(errors="replace"),
        "runner_id": job.runner_id,
        "system_id": job.system_id,
        "failure_reason": job.failure_reason,
        "exit_code": job.exit_code,
        "artifacts": sorted(job.artifacts),
    }


def list_runners(lab: LabGitLab, _request: Request, _body: Body) -> Response:
    return JSONResponse([_runner_json(lab, runner) for runner in lab.state.runners.values()])


def _runner_json(lab: LabGitLab, runner: Runner) -> dict[str, object]:
    mark = Mark.find(runner.description)
    details = entities.runner_details(runner, lab.state, user_may_update=True, with_projects=True)
    managers = [
        entities.manager(record, runner, lab.state) | {"polled": record.polled} for record in runner.managers.values()
    ]
    return details | {"managers": managers, "host": mark.host if mark else None, "creator": runner.creator.username}


def remove_runner(lab: LabGitLab, request: Request, _body: Body) -> Response:
    lab.state.remove_runner(lab.state.runners[int(request.path_params["id"])])
    return Response(status_code=204)


def list_calls(lab: LabGitLab, request: Request, _body: Body) -> Response:
    since = int(request.query_params.get("since", "0"))
    return JSONResponse(lab.journal.entries[since:])


def show_clock(lab: LabGitLab, _request: Request, _body: Body) -> Response:
    return JSONResponse({"time": iso(lab.clock.now())})


def move_clock(lab: LabGitLab, request: Request, body: Body) -> Response:
    advance, moment = body.get("advance_s"), body.get("set")
    if isinstance(advance, (int, float)):
        lab.clock.advance(advance)
    elif isinstance(moment, (int, float)):
        lab.clock.set(moment)
    elif isinstance(moment, str):
        lab.clock.set(datetime.fromisoformat(moment).timestamp())
    else:
        raise BadRequestError("say advance_s or set")
    return show_clock(lab, request, body)


def list_faults(lab: LabGitLab, _request: Request, _body: Body) -> Response:
    return JSONResponse(
        [{"kind": fault.kind, "method": fault.method, "times": fault.times} for fault in lab.faults],
    )


def add_fault(lab: LabGitLab, _request: Request, body: Body) -> Response:
    lab.faults.append(fault_of(body))
    return JSONResponse({"active": len(lab.faults)}, status_code=201)


def clear_faults(lab: LabGitLab, request: Request, _body: Body) -> Response:
    path = request.query_params.get("path_regex")
    lab.faults[:] = [] if path is None else [one for one in lab.faults if not one.path or one.path.pattern != path]
    return Response(status_code=204)


def add_token(lab: LabGitLab, _request: Request, body: Body) -> Response:
    scopes = body.get("scopes")
    if not isinstance(scopes, list) or not SCOPES.issuperset(scopes):
        raise BadRequestError(f"scopes must be a list out of {', '.join(sorted(SCOPES))}")
    user = lab.state.user_named(text_of(body, "user") or "root")
    if user is None:
        raise BadRequestError("no such user")
    flags = {name: bool(body.get(name)) for name in ("expired", "revoked")}
    token = lab.state.add_token(AccessToken(access_token_text(), user, frozenset(scopes), **flags))
    return JSONResponse({"token": token.token}, status_code=201)


def add_user(lab: LabGitLab, _request: Request, body: Body) -> Response:
    username = text_of(body, "username")
    if not username or lab.state.user_named(username):
        raise BadRequestError("username is missing or taken")
    admin, auditor = bool(body.get("admin")), bool(body.get("auditor"))
    user = lab.state.add_user(username, admin=admin, auditor=auditor, roles=roles_of(body))
    return JSONResponse({"id": user.id, "username": user.username}, status_code=201)


def add_group(lab: LabGitLab, _request: Request, body: Body) -> Response:
    group = lab.state.add_group(_new_path(lab, body))
    group.runner_creation = bool(body.get("runner_creation", True))
    return JSONResponse({"id": group.id, "path": group.path}, status_code=201)


def add_project(lab: LabGitLab, _request: Request, body: Body) -> Response:
    project = lab.state.add_project(_new_path(lab, body))
    project.runner_creation = bool(body.get("runner_creation", True))
    project.instance_runners = bool(body.get("instance_runners", True))
    return JSONResponse({"id": project.id, "path": project.path}, status_code=201)


def _new_path(lab: LabGitLab, body: Body) -> str:
    path = text_of(body, "path")
    if not path or lab.state.group(path) or lab.state.project(path):
        raise BadRequestError("path is missing or taken")
    return path


ACTIONS: Final[tuple[tuple[str, str, Action], ...]] = (
    ("GET", "/ping", ping),
    ("POST", "/jobs", add_job),
    ("GET", "/jobs", list_jobs),
    ("GET", "/jobs/{id:int}", show_job),
    ("POST", "/jobs/{id:int}/cancel", cancel_job),
    ("GET", "/jobs/{id:int}/trace", show_trace),
    ("GET", "/runners", list_runners),
    ("DELETE", "/runners/{id:int}", remove_runner),
    ("GET", "/calls", list_calls),
    ("GET", "/clock", show_clock),
    ("POST", "/clock", move_clock),
    ("GET", "/faults", list_faults),
    ("POST", "/faults", add_fault),
    ("DELETE", "/faults", clear_faults),
    ("POST", "/tokens", add_token),
    ("POST", "/users", add_user),
    ("POST", "/groups", add_group),
    ("POST", "/projects", add_project),
)


def control_app(lab: LabGitLab, url: str) -> Starlette:
    app = Starlette(routes=[Route(path, _endpoint(lab, action), methods=[verb]) for verb, path, action in ACTIONS])
    app.state.url = url
    return app


def _endpoint(lab: LabGitLab, action: Action) -> Callable[[Request], Awaitable[Response]]:
    async def respond(request: Request) -> Response:
        try:
            body = await request.json() if await request.body() else {}
            if not isinstance(body, dict):
                raise BadRequestError("the body is not a JSON object")
            return action(lab, request, body)
        except KeyError:
            return JSONResponse({"error": "no such id"}, status_code=404)
        except ValueError as error:
            return JSONResponse({"error": str(error)}, status_code=400)

    return respond
