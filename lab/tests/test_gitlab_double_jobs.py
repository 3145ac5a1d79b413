"""The runner's side of the lab's GitLab: the choice of the runner, the trace protocol, the end of a job."""

from __future__ import annotations

from typing import Any

import pytest
from lab_fakes.asgi import Api, Reply
from nixprov_lab.gitlab import queue
from nixprov_lab.gitlab.records import Job, JobSpec, JobStatus

from provisioner.model import Mark

GRACEFUL = {"features": {"cancel_gracefully": True}}


@pytest.fixture
def api() -> Api:
    return Api()


def enqueue(api: Api, **more: Any) -> Job:
    return queue.enqueue(api.lab.state, JobSpec(("true",), **more), api.lab.state.projects[2001])


def poll(api: Api, token: str, last_update: str | None = None, info: object = None) -> Reply:
    body = {"token": token, "system_id": "s_1", "info": info or {}, "last_update": last_update or ""}
    return api.post("/jobs/request", body, token=None)


def patch(api: Api, job: Job, text: bytes, start: int | None) -> Reply:
    headers = {"JOB-TOKEN": job.token, "Content-Type": "text/plain"}
    if start is not None:
        headers["Content-Range"] = f"{start}-{start + len(text) - 1}"
    return api.call("PATCH", f"/jobs/{job.id}/trace?debug_trace=false", text, token=None, headers=headers)


def put(api: Api, job: Job, state: str, **more: object) -> Reply:
    return api.call("PUT", f"/jobs/{job.id}", {"token": job.token, "state": state, **more}, token=None)


def running(api: Api, info: object = None) -> Job:
    """A job that a fresh runner has taken."""
    _, token = api.new_runner()
    job = enqueue(api)
    assert poll(api, token, info=info).status == 201
    return job


def test_a_queue_value_spares_the_look_until_something_changes(api: Api) -> None:
    _, token = api.new_runner()
    first = poll(api, token)
    value = first.headers["x-gitlab-last-update"]
    assert (first.status, poll(api, token, value).headers["x-gitlab-last-update"]) == (204, value)
    enqueue(api)
    assert poll(api, token, value).status == 201


def test_a_job_as_the_runner_expects_it(api: Api) -> None:
    _, token = api.new_runner(maximum_timeout=900)
    enqueue(api, image="localhost/nix", variables=(("FOO", "bar"),))
    given = poll(api, token).json
    assert (given["steps"][0]["name"], given["steps"][0]["script"]) == ("script", ["true"])
    assert given["image"]["name"] == "localhost/nix"
    assert given["runner_info"]["timeout"] == 900
    assert "run" not in given
    variables = {one["key"]: one["value"] for one in given["variables"]}
    assert (variables["GIT_STRATEGY"], variables["FOO"]) == ("none", "bar")
    assert len(given["git_info"]["sha"]) == 40


@pytest.mark.parametrize(
    ("runner", "job", "fits"),
    [
        ({}, {}, True),
        ({}, {"tags": ("nix",)}, False),
        ({"tag_list": ["nix", "big"]}, {"tags": ("nix",)}, True),
        ({"tag_list": ["nix"], "run_untagged": False}, {}, False),
        ({"paused": True}, {}, False),
        ({"access_level": "ref_protected"}, {}, True),
        ({"access_level": "ref_protected"}, {"protected": False}, False),
        ({"runner_type": "group_type", "group_id": 1001}, {}, True),
        ({"runner_type": "group_type", "group_id": 1002}, {}, False),
        ({"runner_type": "project_type", "project_id": 2002}, {}, False),
        ({}, {"runner_id": 1}, True),
        ({}, {"runner_id": 2}, False),
        ({"description": str(Mark("host1", "default", "0" * 12))}, {"host": "host1"}, True),
        ({"description": str(Mark("host1", "default", "0" * 12))}, {"host": "host2"}, False),
    ],
)
def test_a_job_goes_only_to_a_runner_that_matches(api: Api, runner: Any, job: Any, fits: bool) -> None:
    _, token = api.new_runner(**runner)
    enqueue(api, **job)
    assert poll(api, token).status == (201 if fits else 204)


def test_the_whole_life_of_a_job(api: Api) -> None:
    job = running(api)
    assert put(api, job, "running").status == 200
    first = patch(api, job, b"hello\n", 0)
    assert (first.status, first.headers["range"], first.headers["job-status"]) == (202, "0-6", "running")
    assert patch(api, job, b"again", 0).status == 416
    assert patch(api, job, b"again", 0).headers["range"] == "0-6"
    early = put(api, job, "success", output={"checksum": "crc32:0", "bytesize": 9})
    assert (early.status, early.body) == (202, b"202")
    patch(api, job, b"bye", 6)
    done = put(api, job, "success", output={"checksum": "crc32:0", "bytesize": 9}, exit_code=0)
    assert (done.status, done.body, done.headers["job-status"]) == (200, b"200", "success")
    assert (bytes(job.trace), job.status) == (b"hello\nbye", JobStatus.SUCCESS)
    late = put(api, job, "running")
    assert (late.status, late.headers["job-status"]) == (403, "success")
    assert patch(api, job, b"x", 9).status == 403


def test_a_failed_job_says_why(api: Api) -> None:
    job = running(api)
    put(api, job, "failed", failure_reason="script_failure", exit_code=3)
    assert (job.status, job.failure_reason, job.exit_code) == (JobStatus.FAILED, "script_failure", 3)
    assert put(api, running(api), "lost").status == 400


def test_a_job_ends_for_whoever_has_not_its_token(api: Api) -> None:
    job = running(api)
    assert api.call("PUT", f"/jobs/{job.id}", {"token": "no", "state": "success"}, token=None).status == 403
    assert api.call("PUT", "/jobs/99", {"token": job.token, "state": "success"}, token=None).status == 403
    assert job.status is JobStatus.RUNNING


def test_the_trace_needs_a_range_and_has_a_limit(api: Api) -> None:
    job = running(api)
    assert patch(api, job, b"x", None).status == 400
    assert patch(api, job, b"x", 5).status == 416
    assert patch(api, job, b"x" * (4 * 1024 * 1024 + 1), 0).status == 403
    assert job.status is JobStatus.FAILED


def test_cancel_asks_a_runner_that_can_and_takes_it_from_one_that_cannot(api: Api) -> None:
    polite = running(api, GRACEFUL)
    queue.cancel(api.lab.state, polite)
    assert patch(api, polite, b"x", 0).headers["job-status"] == "canceling"
    put(api, polite, "failed", failure_reason="job_canceled")
    assert polite.status is JobStatus.CANCELED
    blunt = running(api)
    queue.cancel(api.lab.state, blunt)
    assert put(api, blunt, "running").headers["job-status"] == "canceled"


def test_the_runners_jobs_are_listed_by_keyset_without_totals(api: Api) -> None:
    number, token = api.new_runner()
    for _ in range(3):
        enqueue(api)
        poll(api, token)
    path = f"/runners/{number}/jobs?pagination=keyset&order_by=id&sort=desc&per_page=2&status=running"
    first = api.get(path)
    assert [job["id"] for job in first.json] == [3, 2]
    assert "x-total" not in first.headers
    cursor = first.headers["link"].partition("<")[2].partition(">")[0].partition("/api/v4")[2]
    rest = api.get(cursor)
    assert [job["id"] for job in rest.json] == [1]
    assert "link" not in rest.headers
    assert api.get(f"/runners/{number}").json["job_execution_status"] == "active"


def test_deleting_a_runner_leaves_its_running_job_to_end(api: Api) -> None:
    number, token = api.new_runner()
    job = enqueue(api)
    poll(api, token)
    assert api.call("DELETE", f"/runners/{number}").status == 204
    assert put(api, job, "success").status == 200


def test_artifacts_are_taken(api: Api) -> None:
    job = running(api)
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.zip"\r\n\r\nPK\r\n--b--\r\n'
    headers = {"JOB-TOKEN": job.token, "Content-Type": "multipart/form-data; boundary=b"}
    path = f"/jobs/{job.id}/artifacts?artifact_format=zip&artifact_type=archive"
    assert api.post(path, body, token=None, headers=headers).status == 201
    assert api.post(path, b"--b--", token=None, headers=headers).status == 400
    assert api.get(f"/jobs/{job.id}/artifacts", token=None, headers={"JOB-TOKEN": job.token}).status == 200
