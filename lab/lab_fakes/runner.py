"""The peers of the stand-in runner: a small GitLab on loopback and a Docker Engine on a unix socket that runs scripts.

The engine's containers are processes of this computer. So only scripts with paths below the test's directory may be run.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

Json = dict[str, Any]
IMAGE = "localhost/job:1"
TOKEN = "glrt-POISONpoisonPOISON12"


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.02)


@dataclass(frozen=True)
class Call:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Json:
        value = json.loads(self.body)
        assert isinstance(value, dict)
        return value


@dataclass
class JobState:
    document: Json
    trace: bytes = b""
    status: str = "pending"
    final: Json = field(default_factory=dict)

    @property
    def text(self) -> str:
        return self.trace.decode()


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore the error: a stopped or killed runner does not read its reply."""


class FakeGitLab:
    """Jobs are added by `queue`. `replies` has statuses to answer with, once each, by kind of call (final: of updates)."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.jobs: dict[int, JobState] = {}
        self.waiting: list[int] = []
        self.replies: dict[str, list[tuple[int, dict[str, str]]]] = {
            "request": [],
            "trace": [],
            "final": [],
            "verify": [],
        }
        self.lock = threading.Lock()
        self._server = _HttpServer(("127.0.0.1", 0), _gitlab_handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def queue(self, script: list[str], **extra: Any) -> JobState:
        with self.lock:
            number = len(self.jobs) + 1
            document = job_document(number, script) | extra
            self.jobs[number] = JobState(document)
            self.waiting.append(number)
            return self.jobs[number]

    def of(self, method: str, part: str) -> list[Call]:
        with self.lock:
            return [call for call in self.calls if call.method == method and part in call.path]


def job_document(number: int, script: list[str], variables: list[Json] | None = None) -> Json:
    return {
        "id": number,
        "token": f"job-token-{number}",
        "job_info": {"name": "n", "stage": "s", "project_id": 1},
        "git_info": {"repo_url": "http://127.0.0.1/group/project.git", "ref": "main", "sha": "0" * 40},
        "runner_info": {"timeout": 60},
        "variables": [{"key": "GIT_STRATEGY", "value": "none"}, *(variables or [])],
        "steps": [{"name": "script", "script": script}],
        "features": {"trace_sections": True, "failure_reasons": ["runner_interrupted", "unknown_failure"]},
    }


def _gitlab_handler(lab: FakeGitLab) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_args: Any) -> None:
            pass

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            call = Call(self.command, self.path, {key.lower(): text for key, text in self.headers.items()}, body)
            with lab.lock:
                lab.calls.append(call)
                status, headers, value = _gitlab_reply(lab, call)
            data = b"" if value is None or status == 204 else json.dumps(value).encode()
            self.send_response(status)
            for name, text in headers.items():
                self.send_header(name, text)
            if status != 204:
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_PUT = do_PATCH = do_DELETE = _answer  # noqa: N815 (names http.server asks for)

    return Handler


def _gitlab_reply(lab: FakeGitLab, call: Call) -> tuple[int, dict[str, str], object]:
    kind = _kind(call)
    if lab.replies.get(kind):
        status, headers = lab.replies[kind].pop(0)
        return status, headers, {"message": "made up"}
    if kind == "verify":
        return 200, {}, {"id": 7, "token": call.json["token"], "token_expires_at": None}
    if call.method == "DELETE":
        return 204, {}, None
    if kind == "request":
        return _hand_out(lab)
    return _job_reply(lab, call, kind)


def _kind(call: Call) -> str:
    for part, kind in (("/trace", "trace"), ("/jobs/request", "request"), ("/verify", "verify")):
        if part in call.path:
            return kind
    return "update" if call.method == "DELETE" or call.json["state"] == "running" else "final"


def _hand_out(lab: FakeGitLab) -> tuple[int, dict[str, str], object]:
    if not lab.waiting:
        return 204, {"X-GitLab-Last-Update": "abc123"}, None
    job = lab.jobs[lab.waiting.pop(0)]
    job.status = "running"
    return 201, {}, job.document


def _job_reply(lab: FakeGitLab, call: Call, kind: str) -> tuple[int, dict[str, str], object]:
    job = lab.jobs[int(re.findall(r"/jobs/(\d+)", call.path)[0])]
    headers = {"Job-Status": job.status, "X-GitLab-Trace-Update-Interval": "1"}
    if kind == "final":
        job.final = call.json
    if kind in {"update", "final"}:
        return 200, headers, 200
    if int(call.headers["content-range"].split("-")[0]) != len(job.trace):
        return 416, headers | {"Range": f"0-{len(job.trace)}"}, None
    job.trace += call.body
    return 202, headers | {"Range": f"0-{len(job.trace)}"}, None


@dataclass
class Container:
    name: str
    body: Json
    process: subprocess.Popen[bytes] | None = None
    attached: socket.socket | None = None


class FakeDocker:
    """Keeps the existing `containers` and `volumes`; `created` has every container's body by its name's ending."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.images = {IMAGE: "sha256:1"}
        self.containers: dict[str, Container] = {}
        self.volumes: set[str] = set()
        self.created: list[tuple[str, Json]] = []
        self.pulls: list[str] = []
        self._server = _UnixServer(str(path), _docker_handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        for container in list(self.containers.values()):
            kill(container)

    def body_of(self, ending: str) -> Json:
        return next(body for name, body in self.created if name.endswith(ending))


class _UnixServer(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore the error: tests hang up on purpose, and other errors show in their results."""


def kill(container: Container) -> None:
    if container.process and container.process.poll() is None:
        with contextlib.suppress(ProcessLookupError):  # it has just ended, and another thread will notice
            os.killpg(container.process.pid, signal.SIGKILL)
        container.process.wait()


def _docker_handler(engine: FakeDocker) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def address_string(self) -> str:
            return "unix"

        def log_message(self, *_args: Any) -> None:
            pass

        def _answer(self) -> None:
            parts = urlsplit(self.path)
            path = parts.path.removeprefix("/v1.41")
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length) or b"{}") if length else {}
            if path.endswith("/attach"):
                self._attach(engine.containers[path.split("/")[2]])
                return
            status, value = _docker_reply(engine, self.command, path, parse_qs(parts.query), body)
            data = b"" if value is None else json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _attach(self, container: Container) -> None:
            self.wfile.write(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
            container.attached = self.connection
            self.close_connection = True
            script = self.rfile.read()
            wait_for(lambda: container.process is not None, "start after attach")
            _serve(container, script)

        do_GET = do_POST = do_DELETE = _answer  # noqa: N815

    return Handler


def _serve(container: Container, script: bytes) -> None:
    """Feed the process and send its output back, in the frames of the API, until it closes both."""
    process = container.process
    assert process is not None
    assert process.stdin is not None
    process.stdin.write(script)
    process.stdin.close()
    copies = [
        threading.Thread(target=_frames, args=(container, stream, number))
        for number, stream in ((1, process.stdout), (2, process.stderr))
    ]
    for copy in copies:
        copy.start()
    for copy in copies:
        copy.join()
    process.wait()


def _frames(container: Container, stream: Any, number: int) -> None:
    """Send the output to its end, even if the client hangs up."""
    assert container.attached is not None
    with stream:
        while data := stream.read1(4096):
            with contextlib.suppress(OSError):
                container.attached.sendall(bytes([number, 0, 0, 0]) + len(data).to_bytes(4, "big") + data)


def _docker_reply(
    engine: FakeDocker, method: str, path: str, query: dict[str, list[str]], body: Json
) -> tuple[int, Any]:
    first, _, rest = path.strip("/").partition("/")
    if first in {"info", "version"}:
        return 200, {"OSType": "linux", "ApiVersion": "1.41"}
    if first == "images":
        return _image_reply(engine, rest, query)
    if first == "volumes":
        return _volume_reply(engine, method, rest, body)
    if rest == "create":
        name = query["name"][0]
        engine.created.append((name, body))
        engine.containers[name] = Container(name, body)
        return 201, {"Id": name}
    return _container_reply(engine, method, rest)


def _image_reply(engine: FakeDocker, rest: str, query: dict[str, list[str]]) -> tuple[int, Any]:
    if rest == "create":
        engine.pulls.append(query["fromImage"][0])
        return 200, {"error": "no registry here: manifest unknown"}
    name = rest.removesuffix("/json")
    known = engine.images | {number: number for number in engine.images.values()}
    if name not in known:
        return 404, {"message": f"No such image: {name}"}
    return 200, {"Id": known[name], "RepoDigests": []}


def _volume_reply(engine: FakeDocker, method: str, rest: str, body: Json) -> tuple[int, Any]:
    if method == "POST":
        engine.volumes.add(body["Name"])
        return 201, {"Name": body["Name"]}
    engine.volumes.discard(rest)
    return 204, None


def _container_reply(engine: FakeDocker, method: str, rest: str) -> tuple[int, Any]:
    name, _, action = rest.partition("/")
    container = engine.containers.get(name)
    if container is None:
        return 404, {"message": f"No such container: {name}"}
    if method == "DELETE":
        kill(container)
        del engine.containers[name]
        return 204, None
    if action == "start":
        _start(container)
        return 204, None
    if action == "stop":
        kill(container)
        return 204, None
    if action == "wait":
        return 200, {"StatusCode": container.process.wait() if container.process else 0}
    return (200, {"Id": name}) if action == "json" else (500, {"message": "can only create exec sessions"})


def _start(container: Container) -> None:
    command = container.body["Cmd"]
    if command[0] == "gitlab-runner-helper":
        container.process = subprocess.Popen(["true"], start_new_session=True)
        return
    environment = dict(entry.split("=", 1) for entry in container.body.get("Env", ())) | {"PATH": os.environ["PATH"]}
    container.process = subprocess.Popen(
        ["sh"] if command[0] == "gitlab-runner-build" else command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )


def config_text(url: str, docker: FakeDocker, directory: Path, runner: str = "", more: str = "") -> str:
    """A runner's part of config.toml; `runner` and `more` are lines of [[runners]] and [runners.docker]."""
    return f"""
[[runners]]
name = "host1"
url = "{url}"
id = 7
token = "{TOKEN}"
executor = "docker"
builds_dir = "{directory}/builds"
{runner}
[runners.docker]
host = "unix://{docker.path}"
image = "{IMAGE}"
helper_image = "{IMAGE}"
pull_policy = "never"
allowed_pull_policies = ["never", "if-not-present"]
disable_cache = true
{more}
"""


@contextmanager
def fakes(directory: Path) -> Iterator[tuple[FakeGitLab, FakeDocker]]:
    gitlab, docker = FakeGitLab(), FakeDocker(directory / "docker.sock")
    try:
        yield gitlab, docker
    finally:
        gitlab.close()
        docker.close()
