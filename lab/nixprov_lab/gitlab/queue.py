"""The job queue: the rules for taking a job, the runner's payload, the end of a job. Knows nothing of HTTP."""

from __future__ import annotations

import time
from typing import Final

from nixprov_lab.gitlab.records import Job, JobSpec, JobStatus, Project, Runner
from nixprov_lab.gitlab.state import State
from provisioner.model import AccessLevel, Mark

SHA: Final = "0123456789abcdef0123456789abcdef01234567"
FAILURE_REASONS: Final = (
    "unknown_failure",
    "script_failure",
    "runner_system_failure",
    "job_execution_timeout",
    "image_pull_failure",
    "runner_configuration_error",
    "job_canceled",
)


def enqueue(state: State, spec: JobSpec, project: Project) -> Job:
    """Queue a job and wake every runner that may take it."""
    job = state.add_job(spec, project)
    for runner in state.runners.values():
        if may_take(runner, job):
            state.touch_queue(runner)
    return job


def may_take(runner: Runner, job: Job) -> bool:
    """GitLab's own rules (active, owner, tags, protection), then the lab's narrowing to one host or runner."""
    return (
        runner.active
        and runner.serves(job.project)
        and set(job.spec.tags) <= set(runner.tags)
        and (runner.run_untagged or bool(job.spec.tags))
        and (runner.access_level is AccessLevel.NOT_PROTECTED or job.spec.protected)
        and (job.spec.runner_id is None or runner.id == job.spec.runner_id)
        and (job.spec.host is None or _host_of(runner) == job.spec.host)
    )


def _host_of(runner: Runner) -> str | None:
    mark = Mark.find(runner.description)
    return mark.host if mark else None


def take(state: State, runner: Runner, system_id: str, *, cancels_gracefully: bool) -> Job | None:
    """Give the oldest pending job that matches to this manager, or None."""
    waiting = (job for job in state.jobs.values() if job.status is JobStatus.PENDING)
    job = next((job for job in waiting if may_take(runner, job)), None)
    if job is None:
        return None
    job.status = JobStatus.RUNNING
    job.runner_id, job.system_id = runner.id, system_id
    job.cancels_gracefully = cancels_gracefully
    job.started_at, job.started_s = state.clock.now(), time.monotonic()
    return job


def finish(state: State, job: Job, status: JobStatus, reason: str | None = None, exit_code: int | None = None) -> None:
    job.status = JobStatus.CANCELED if job.status is JobStatus.CANCELING else status
    job.failure_reason, job.exit_code = reason, exit_code
    job.finished_at, job.finished_s = state.clock.now(), time.monotonic()


def cancel(state: State, job: Job) -> None:
    """Cancel a job. A runner that announced graceful cancelling is asked to; any other loses the job at once."""
    if job.status is JobStatus.RUNNING and job.cancels_gracefully:
        job.status = JobStatus.CANCELING
    elif not job.status.is_finished:
        finish(state, job, JobStatus.CANCELED)


def payload(job: Job, runner: Runner, base_url: str) -> dict[str, object]:
    """The body of a 201 from jobs/request, as gitlab-runner 19.4 decodes it.

    `run` is left out on purpose. The runner takes only a string there, and drops the whole job on null.
    """
    namespace, _, name = job.project.path.rpartition("/")
    limits = [limit for limit in (job.spec.timeout_s, runner.maximum_timeout_s) if limit]
    return {
        "id": job.id,
        "token": job.token,
        "allow_git_fetch": True,
        "job_info": {
            "id": job.id,
            "name": job.spec.name,
            "stage": "test",
            "project_id": job.project.id,
            "project_name": name,
            "project_full_path": job.project.path,
            "namespace_id": 1,
            "root_namespace_id": 1,
            "organization_id": 1,
            "user_id": 1,
            "time_in_queue_seconds": 0,
            "project_jobs_running_on_instance_runners_count": "0",
        },
        "git_info": {
            "repo_url": f"{base_url}/{namespace}/{name}.git",
            "ref": "main",
            "sha": SHA,
            "before_sha": "0" * 40,
            "ref_type": "branch",
            "refspecs": [],
            "depth": 0,
            "protected": job.spec.protected,
        },
        "runner_info": {"timeout": min(limits), "runner_session_url": None},
        "variables": _variables(job, runner, base_url),
        "steps": [_step(job, min(limits))],
        "image": {"name": job.spec.image, "ports": []} if job.spec.image else None,
        "services": [],
        "artifacts": None,
        "cache": [],
        "credentials": [],
        "dependencies": [],
        "hooks": [],
        "features": {
            "trace_sections": True,
            "token_mask_prefixes": ["glpat-", "glrt-", "glrtr-", "glcbt-"],
            "failure_reasons": list(FAILURE_REASONS),
        },
    }


def _step(job: Job, timeout_s: int) -> dict[str, object]:
    return {
        "name": "script",
        "script": list(job.spec.script),
        "timeout": timeout_s,
        "when": "on_success",
        "allow_failure": False,
    }


def _variables(job: Job, runner: Runner, base_url: str) -> list[dict[str, object]]:
    namespace, _, name = job.project.path.rpartition("/")
    public = {
        "CI": "true",
        "GITLAB_CI": "true",
        "CI_SERVER": "yes",
        "CI_SERVER_URL": base_url,
        "CI_API_V4_URL": f"{base_url}/api/v4",
        "CI_JOB_ID": str(job.id),
        "CI_JOB_NAME": job.spec.name,
        "CI_JOB_STAGE": "test",
        "CI_PIPELINE_ID": str(job.id),
        "CI_PROJECT_ID": str(job.project.id),
        "CI_PROJECT_NAME": name,
        "CI_PROJECT_NAMESPACE": namespace,
        "CI_PROJECT_PATH": job.project.path,
        "CI_COMMIT_SHA": SHA,
        "CI_COMMIT_REF_NAME": "main",
        "CI_COMMIT_BRANCH": "main",
        "CI_RUNNER_ID": str(runner.id),
        "CI_RUNNER_DESCRIPTION": runner.description,
        "GIT_STRATEGY": "none",
        "GIT_CHECKOUT": "false",
    }
    shown = [{"key": key, "value": value, "public": True, "masked": False} for key, value in public.items()]
    secret = {"key": "CI_JOB_TOKEN", "value": job.token, "public": False, "masked": True}
    # The job's own variables come last: for the runner the last one of a name wins.
    own = [{"key": key, "value": value, "public": False, "masked": False} for key, value in job.spec.variables]
    return [*shown, secret, *own]
