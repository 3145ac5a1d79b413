"""/jobs as gitlab-runner sees it: request, state updates, trace and artifacts (docs development/cicd, job API)."""

from __future__ import annotations

import re
from typing import Final

from starlette.responses import JSONResponse, PlainTextResponse, Response

from nixprov_lab.gitlab import queue
from nixprov_lab.gitlab.errors import ApiError, bad_parameters, not_found, plain_error, refused
from nixprov_lab.gitlab.params import Reader
from nixprov_lab.gitlab.records import LEGACY_SYSTEM_ID, Job, JobStatus, Runner
from nixprov_lab.gitlab.registration import authenticated_runner, contact
from nixprov_lab.gitlab.routing import Call, Endpoint, no_content

TRACE_LIMIT: Final = 4 * 1024 * 1024
TRACE_INTERVAL_S: Final = 3
LAST_UPDATE: Final = "X-GitLab-Last-Update"
INTERVAL: Final = "X-GitLab-Trace-Update-Interval"
JOB_STATUS: Final = "Job-Status"
_RANGE: Final = re.compile(r"(\d+)-(\d+)")
_MULTIPART: Final = frozenset({"multipart/form-data"})


def request_job(call: Call) -> Response:
    """201 with a job, or 204 with the queue's value. The same value sent back is answered without a look."""
    runner = authenticated_runner(call)
    manager = contact(call, runner)
    manager.polled = True
    reader = call.reader
    last_update = reader.string("last_update")
    reader.finish()
    seen = {LAST_UPDATE: runner.queue_value}
    if not runner.active or last_update == runner.queue_value:
        return no_content(seen)
    job = queue.take(call.state, runner, manager.system_id, cancels_gracefully=_cancels_gracefully(call))
    if job is None:
        return no_content(seen)
    base_url = str(call.request.base_url).rstrip("/")
    return JSONResponse(queue.payload(job, runner, base_url), status_code=201)


def _cancels_gracefully(call: Call) -> bool:
    info = call.params.get("info")
    features = info.get("features") if isinstance(info, dict) else None
    return isinstance(features, dict) and features.get("cancel_gracefully") is True


def _job(call: Call, *, running: bool = True) -> Job:
    """The job whose token was sent. Raises ApiError 403 for everything: a 404 may come from any proxy in between."""
    reader = call.reader
    number = reader.integer("id", required=True)
    text = call.header("JOB-TOKEN") or reader.string("token")
    reader.finish()
    job = call.state.jobs.get(number or 0)
    call.note_token("job")
    if job is None or text != job.token:
        raise refused(403)
    if running and not job.status.is_held:
        raise refused(403, "Job is not running", {JOB_STATUS: job.status.value})
    return job


def _heartbeat(call: Call, job: Job) -> None:
    runner: Runner | None = call.state.runners.get(job.runner_id or 0)
    if runner:
        known = None if job.system_id == LEGACY_SYSTEM_ID else job.system_id
        call.state.heartbeat(runner, known, call.ip_address)


def update_job(call: Call) -> Response:
    job = _job(call)
    _heartbeat(call, job)
    status = _update(call, job)
    headers = {JOB_STATUS: job.status.value, INTERVAL: str(TRACE_INTERVAL_S)}
    return PlainTextResponse(str(status), status_code=status, headers=headers)


def _update(call: Call, job: Job) -> int:
    reader = call.reader
    state = reader.string("state")
    reason = reader.string("failure_reason")
    exit_code = reader.integer("exit_code")
    output = reader.mapping("output") or {}
    reader.finish()
    if state in {"running", "pending"}:
        return 200
    if state not in {"success", "failed"}:
        return 400
    size = output.get("bytesize")
    if isinstance(size, int) and size != len(job.trace):
        # GitLab waits for the rest of the trace and makes the runner ask again.
        return 202
    result = JobStatus(state)
    queue.finish(call.state, job, result, _reason(reason) if result is JobStatus.FAILED else None, exit_code)
    return 200


def _reason(sent: str | None) -> str:
    return sent if sent in queue.FAILURE_REASONS else "unknown_failure"


def append_trace(call: Call) -> Response:
    """Append a piece. START counts, END is ignored. SIZE in `Range: 0-SIZE` is the number of bytes, no last index."""
    job = _job(call)
    _heartbeat(call, job)
    text = call.header("Content-Range")
    if text is None:
        raise plain_error(400, "400 Missing header Content-Range")
    found = _RANGE.fullmatch(text.strip())
    if found is None or int(found[1]) != len(job.trace):
        raise ApiError(416, {"error": "416 Range Not Satisfiable"}, {"Range": f"0-{len(job.trace)}"})
    if len(job.trace) + len(call.body) > TRACE_LIMIT:
        queue.finish(call.state, job, JobStatus.FAILED, "trace_size_exceeded")
        raise plain_error(403, "403 Forbidden")
    job.trace += call.body
    headers = {JOB_STATUS: job.status.value, "Range": f"0-{len(job.trace)}", INTERVAL: str(TRACE_INTERVAL_S)}
    return PlainTextResponse("", status_code=202, headers=headers)


def authorize_artifacts(_call: Call) -> Response:
    """The call of GitLab's own proxy; no other client makes it."""
    raise refused(403)


def upload_artifacts(call: Call) -> Response:
    """Keep the whole multipart body. The lab shows that an upload came, and does not serve its parts."""
    job = _job(call)
    reader: Reader = call.reader
    kind = reader.string("artifact_type") or "archive"
    reader.finish()
    if b'name="file"' not in call.body:
        raise bad_parameters(["file is missing"])
    job.artifacts[kind] = call.body
    return PlainTextResponse("201", status_code=201)


def download_artifacts(call: Call) -> Response:
    job = _job(call, running=False)
    if "archive" not in job.artifacts:
        raise not_found()
    return Response(job.artifacts["archive"], media_type="application/octet-stream")


ENDPOINTS: Final = (
    Endpoint("POST", "/jobs/request", request_job),
    Endpoint("PUT", "/jobs/{id}", update_job),
    Endpoint("PATCH", "/jobs/{id}/trace", append_trace, content_types=frozenset({"text/plain"})),
    Endpoint("POST", "/jobs/{id}/artifacts/authorize", authorize_artifacts),
    Endpoint("POST", "/jobs/{id}/artifacts", upload_artifacts, content_types=_MULTIPART),
    Endpoint("GET", "/jobs/{id}/artifacts", download_artifacts),
)
