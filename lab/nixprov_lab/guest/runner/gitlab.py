"""GitLab's API for runners as gitlab-runner 19.4 calls it (its network/gitlab.go, common/network.go)."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus
from typing import Final

from .calls import Http, Reply
from .config import RunnerConfig
from .errors import Reason
from .identity import NAME, REVISION, VERSION, architecture
from .log import Log

_JSON: Final = "application/json"
_MAX_INTERVAL_S: Final = 900.0
# The features that gitlab-runner announces with docker and bash, also those that the stand-in lacks. GitLab
# hands out jobs by these features. The stand-in refuses a missing feature by name, in the job's log.
_FEATURES: Final = {
    name: name not in {"shared", "proxy"}
    for name in (
        *("variables", "image", "services", "artifacts", "cache", "fallback_cache_keys", "shared"),
        *("upload_multiple_artifacts", "upload_raw_artifacts", "session", "terminal", "refspecs", "masking", "proxy"),
        *("raw_variables", "artifacts_exclude", "multi_build_steps", "trace_reset", "trace_checksum", "trace_size"),
        *("vault_secrets", "cancelable", "return_exit_code", "service_variables", "service_multiple_aliases"),
        *("image_executor_opts", "service_executor_opts", "cancel_gracefully", "native_steps_integration"),
        *("two_phase_job_commit", "job_inputs"),
    )
}


class Answer(Enum):
    """The meaning of a reply to PUT or PATCH for the job."""

    OK = "ok"
    NOT_YET = "accepted, but not yet completed"
    RESEND = "trace validation failed"
    MISMATCH = "range mismatch"
    ABORT = "abort"
    GONE = "not found"
    FAILED = "failed"


@dataclass(frozen=True)
class JobReply:
    """`interval`: seconds until the next update, 0: unchanged; `offset`: bytes that GitLab has, after PATCH."""

    answer: Answer
    cancel: bool = False
    interval: float = 0.0
    offset: int = 0


@dataclass(frozen=True)
class JobKey:
    id: int
    token: str


@dataclass(frozen=True)
class Written:
    """The log so far: `crc32:` and eight hex digits, and its size in bytes."""

    checksum: str
    size: int


@dataclass(frozen=True)
class Outcome:
    """The end of a job; `reason` None: success."""

    reason: Reason | None = None
    exit_code: int = 0


class GitLab:
    """The GitLab of one [[runners]] entry; safe to use from several threads."""

    def __init__(self, runner: RunnerConfig, system_id: str, own_log: Log) -> None:
        self._runner = runner
        self._system_id = system_id
        self._log = own_log
        self._http = Http(runner.url, runner.tls_ca_file)
        self._last_update = ""
        self._lock = threading.Lock()
        own_log.hide(runner.token)

    def stop_requests(self) -> None:
        self._http.stop()

    def verify(self) -> bool:
        """Whether the token is valid. Only 403 says no; everything else counts as valid, as with gitlab-runner."""
        body = {"info": self._info(), "token": self._runner.token, "system_id": self._system_id}
        reply = self._runner_call("POST", "runners/verify", body, wants_json=True)
        if reply.status == HTTPStatus.OK and not reply.is_json:
            reply = self._runner_call("POST", "runners/verify", body)
        created = self._runner.token.startswith("glrt-")
        if reply.status == HTTPStatus.OK:
            self._say("info", f"Verifying runner... is {'valid' if created else 'alive'}", reply)
        elif reply.status == HTTPStatus.FORBIDDEN:
            self._say(
                "info" if created else "error", f"Verifying runner... is {'not valid' if created else 'removed'}", reply
            )
        else:
            self._say("error", "Verifying runner... failed", reply)
        return reply.status != HTTPStatus.FORBIDDEN

    def unregister(self) -> bool:
        """Delete this manager only, for a glrt- token, or else the whole runner."""
        if self._runner.token.startswith("glrt-"):
            body = {"token": self._runner.token, "system_id": self._system_id}
            reply = self._runner_call("DELETE", "runners/managers", body)
            what = "Unregistering runner manager from GitLab"
        else:
            reply = self._runner_call("DELETE", "runners", {"token": self._runner.token})
            what = "Unregistering runner from GitLab"
        done = reply.status == HTTPStatus.NO_CONTENT
        self._say("info" if done else "error", f"{what} {'succeeded' if done else 'failed'}", reply)
        return done

    def request_job(self) -> tuple[dict[str, object] | None, bool]:
        """The job's document or None, and whether the runner counts as healthy (only 403 says no)."""
        body: dict[str, object] = {"info": self._info(), "token": self._runner.token, "system_id": self._system_id}
        with self._lock:
            if self._last_update:
                body["last_update"] = self._last_update
        reply = self._runner_call("POST", "jobs/request", body, wants_json=True, stoppable=True)
        self._remember(reply)
        if reply.status == HTTPStatus.CREATED:
            return self._job(reply), True
        if reply.status == HTTPStatus.FORBIDDEN:
            self._say("error", "Checking for jobs... forbidden", reply)
        elif reply.status == HTTPStatus.NO_CONTENT:
            self._say("debug", "Checking for jobs... no content", reply)
        else:
            self._say("warning", "Checking for jobs... failed", reply)
        return None, reply.status != HTTPStatus.FORBIDDEN

    def _job(self, reply: Reply) -> dict[str, object] | None:
        try:
            document = json.loads(reply.body) if reply.is_json else None
        except ValueError:
            document = None
        if not isinstance(document, dict):
            self._say("warning", "Checking for jobs... failed", Reply(0, problem="the reply is no JSON object"))
            return None
        self._log.info("Checking for jobs... received", job=document.get("id"), runner=self._runner.short_token)
        return document

    def update(self, job: JobKey, written: Written | None = None, outcome: Outcome | None = None) -> JobReply:
        """PUT /jobs/:id. Without an outcome the job is running, without `written` it has just been accepted."""
        output: dict[str, object] = {}
        state = "running" if outcome is None else "failed" if outcome.reason else "success"
        body: dict[str, object] = {"info": self._info(), "token": job.token, "state": state, "output": output}
        if written:
            body["checksum"] = output["checksum"] = written.checksum
            if written.size:
                output["bytesize"] = written.size
        if outcome and outcome.reason:
            body["failure_reason"] = outcome.reason.value
        if outcome and outcome.exit_code:
            body["exit_code"] = outcome.exit_code
        headers = {"JOB-TOKEN": job.token, "Content-Type": _JSON}
        reply = self._http.send("PUT", f"jobs/{job.id}", json.dumps(body).encode(), headers)
        self._remember(reply)
        result = _job_reply(reply, _UPDATE_ANSWERS)
        self._log.info(f"Submitting job to coordinator...{result.answer.value}", job=job.id, code=reply.status)
        return result

    def patch_trace(self, job: JobKey, content: bytes, start: int, *, debug: bool) -> JobReply:
        """PATCH /jobs/:id/trace with `content` as the bytes from `start` on."""
        end = start + len(content)
        headers = {"JOB-TOKEN": job.token, "Content-Type": "text/plain", "Content-Range": f"{start}-{end - 1}"}
        path = f"jobs/{job.id}/trace?debug_trace={'true' if debug else 'false'}"
        reply = self._http.send("PATCH", path, content, headers)
        result = _job_reply(reply, _PATCH_ANSWERS, end)
        fields = {"sent-log": headers["Content-Range"], "code": reply.status}
        self._log.info(f"Appending trace to coordinator...{result.answer.value}", job=job.id, **fields)
        return result

    def _info(self) -> dict[str, object]:
        return {
            "name": NAME,
            "version": VERSION,
            "revision": REVISION,
            "platform": "linux",
            "architecture": architecture(),
            "executor": self._runner.executor,
            "shell": self._runner.shell,
            "features": _FEATURES,
            "config": {"gpus": ""},
        }

    def _runner_call(
        self, method: str, path: str, body: Mapping[str, object], *, wants_json: bool = False, stoppable: bool = False
    ) -> Reply:
        headers = {"RUNNER-TOKEN": self._runner.token, "Content-Type": _JSON}
        if wants_json:
            headers["Accept"] = _JSON
        return self._http.send(method, path, json.dumps(body).encode(), headers, stoppable=stoppable)

    def _remember(self, reply: Reply) -> None:
        value = reply.headers.get("x-gitlab-last-update", "")
        if value:
            with self._lock:
                self._last_update = value

    def _say(self, level: str, message: str, reply: Reply) -> None:
        write = {
            "debug": self._log.debug,
            "info": self._log.info,
            "warning": self._log.warning,
            "error": self._log.error,
        }
        write[level](message, runner=self._runner.short_token, runner_name=self._runner.name, status=reply.text)


_UPDATE_ANSWERS: Final = {
    HTTPStatus.OK: Answer.OK,
    HTTPStatus.ACCEPTED: Answer.NOT_YET,
    HTTPStatus.PRECONDITION_FAILED: Answer.RESEND,
    HTTPStatus.NOT_FOUND: Answer.ABORT,
    HTTPStatus.FORBIDDEN: Answer.ABORT,
}
_PATCH_ANSWERS: Final = {
    HTTPStatus.ACCEPTED: Answer.OK,
    HTTPStatus.NOT_FOUND: Answer.GONE,
    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE: Answer.MISMATCH,
    HTTPStatus.FORBIDDEN: Answer.ABORT,
}


def _job_reply(reply: Reply, answers: Mapping[HTTPStatus, Answer], end: int = 0) -> JobReply:
    state = reply.headers.get("job-status", "")
    answer = next((answer for status, answer in answers.items() if status == reply.status), Answer.FAILED)
    if state in {"canceled", "failed"}:
        answer = Answer.ABORT
    wait = reply.headers.get("x-gitlab-trace-update-interval", "")
    interval = min(float(wait), _MAX_INTERVAL_S) if wait.isdigit() else 0.0
    offset = end if answer is Answer.OK else _held(reply.headers.get("range", ""))
    return JobReply(answer, state == "canceling", interval, offset)


def _held(text: str) -> int:
    """The number of bytes GitLab holds, from `Range: 0-SIZE`."""
    size = text.partition("-")[2]
    return int(size) if size.isdigit() else 0
