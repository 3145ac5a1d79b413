"""The client of the stand-in GitLab's control API: queue a job, turn the clock, break on purpose.

Owns the HTTP over the control socket; the routes are described in lab/nixprov_lab/gitlab/control.py.
"""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from nixprov_lab.errors import LabError

ENDED: Final = frozenset({"success", "failed", "canceled"})
POLL_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Job:
    """A CI job as the stand-in has it: `seconds` is how long it ran, None before its end."""

    id: int
    status: str
    trace: str
    seconds: float | None = None
    runner_id: int | None = None

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED

    @property
    def is_success(self) -> bool:
        return self.status == "success"


class GitLabControl:
    """The control API of one lab's GitLab. Every method raises LabError for a refusal or no answer."""

    def __init__(self, control_socket: Path, timeout_s: float = 30) -> None:
        self._socket = control_socket
        self._timeout_s = timeout_s

    def queue_job(self, script: str, *, host: str | None = None, **fields: object) -> int:
        """Queue a job and return its id; `host` picks the runner whose mark names that host.

        `fields` go to the stand-in as they are: tags, image, variables, runner_id.
        """
        wanted: dict[str, object] = {"script": script, **fields}
        if host is not None:
            wanted["host"] = host
        return int(self._call("POST", "/jobs", wanted)["id"])

    def job(self, job_id: int) -> Job:
        data = self._call("GET", f"/jobs/{job_id}")
        return Job(
            id=job_id,
            status=data["status"],
            trace=data.get("trace") or "",
            seconds=data.get("seconds"),
            runner_id=data.get("runner_id"),
        )

    def wait_for_job(
        self, job_id: int, on_trace: Callable[[str], None] = lambda _: None, timeout_s: float = 600
    ) -> Job:
        """Poll a job to its end and give `on_trace` each new piece of its trace. Raises LabError when time is over."""
        deadline = time.monotonic() + timeout_s
        seen = 0
        while True:
            piece = self._call("GET", f"/jobs/{job_id}/trace?from={seen}")
            if piece["trace"]:
                on_trace(piece["trace"])
            elif piece["status"] in ENDED:
                return self.job(job_id)
            elif time.monotonic() > deadline:
                raise LabError(f"job {job_id} is still {piece['status']} after {timeout_s:.0f} s")
            else:
                time.sleep(POLL_S)
            seen = piece["next"]

    def jobs(self) -> list[dict[str, Any]]:
        """All jobs, as the stand-in describes them."""
        return list(self._call("GET", "/jobs"))

    def cancel_job(self, job_id: int) -> None:
        self._call("POST", f"/jobs/{job_id}/cancel")

    def runners(self) -> list[dict[str, Any]]:
        """All runners: the API's details entity with managers, host (from the mark) and owners."""
        return list(self._call("GET", "/runners"))

    def delete_runner(self, runner_id: int) -> None:
        """Delete a runner, as another administrator would."""
        self._call("DELETE", f"/runners/{runner_id}")

    def calls(self, since: int = 0) -> list[dict[str, Any]]:
        """The journal of API calls from number `since` on: n, time, method, path, query, status, token, fault."""
        return list(self._call("GET", f"/calls?since={since}"))

    def advance_clock(self, seconds: float) -> None:
        self._call("POST", "/clock", {"advance_s": seconds})

    def set_fault(self, kind: str, **fields: object) -> None:
        """Break on purpose: method, path_regex, times (None until cleared), seconds, retry_after, location."""
        self._call("POST", "/faults", {"kind": kind, **fields})

    def clear_faults(self, path_regex: str = "") -> None:
        """Clear all faults, or those that were set with exactly this `path_regex`."""
        self._call("DELETE", f"/faults?{urlencode({'path_regex': path_regex})}" if path_regex else "/faults")

    def token(self, scopes: Sequence[str], **fields: object) -> str:
        """A new personal access token; `fields`: user, expired, revoked."""
        return str(self._call("POST", "/tokens", {"scopes": list(scopes), **fields})["token"])

    def is_up(self) -> bool:
        try:
            self._call("GET", "/ping")
        except LabError:
            return False
        return True

    def _call(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Any:
        with self._connection() as connection:
            payload = json.dumps(body) if body is not None else None
            connection.request(method, path, payload, {"Content-Type": "application/json"} if payload else {})
            answer = connection.getresponse()
            text = answer.read().decode()
        if answer.status >= http.client.BAD_REQUEST:
            raise LabError(f"the lab's GitLab refuses {method} {path}: {answer.status} {text.strip()}")
        return json.loads(text) if text.strip() else None

    @contextmanager
    def _connection(self) -> Iterator[http.client.HTTPConnection]:
        connection = http.client.HTTPConnection("localhost")
        try:
            connection.sock = socket.socket(socket.AF_UNIX)  # so that it does not open one to localhost
            connection.sock.settimeout(self._timeout_s)
            connection.sock.connect(str(self._socket))
            yield connection
        except (OSError, http.client.HTTPException) as error:
            raise LabError(f"the lab's GitLab does not answer on {self._socket}: {error}") from error
        finally:
            connection.close()
