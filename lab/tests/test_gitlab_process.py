"""The lab's GitLab as the lab starts it: a process of its own, steered through the control socket."""

from __future__ import annotations

import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from nixprov_lab.errors import LabError
from nixprov_lab.gitlab.background import in_background
from nixprov_lab.gitlab_client import GitLabControl

from provisioner.model import Mark

START_S = 20
Start = Callable[..., "Server"]


class Server:
    """A started process and its files."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.socket = folder / "gitlab.control"
        self.token_file = folder / "gitlab.token"
        self.calls = folder / "calls.jsonl"
        files = [
            *("--control-socket", str(self.socket), "--token-file", str(self.token_file), "--calls", str(self.calls))
        ]
        argv = [sys.executable, "-m", "nixprov_lab.gitlab", "--host", "127.0.0.1", "--port", str(port), *files]
        self.process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
        self.control = GitLabControl(self.socket)

    def wait(self) -> None:
        deadline = time.monotonic() + START_S
        while not self.control.is_up():
            assert self.process.poll() is None, self.process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def stop(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGTERM)
        errors = self.process.communicate(timeout=START_S)[1]
        return self.process.returncode, errors

    @property
    def url(self) -> str:
        return str(self.control._call("GET", "/ping")["url"])

    def api(self, method: str, path: str, body: object = None, token: str | None = None) -> tuple[int, Any]:
        headers = {"PRIVATE-TOKEN": token or self.token_file.read_text().strip()}
        reply = requests.request(method, f"{self.url}/api/v4{path}", json=body, headers=headers, timeout=START_S)
        return reply.status_code, reply.json() if reply.content else None


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Server] = []

    def start_one(port: int = 0) -> Server:
        started.append(Server(tmp_path, port))
        return started[-1]

    yield start_one
    for server in started:
        if server.process.poll() is None:
            server.stop()


def test_the_process_from_start_to_end(start: Start) -> None:
    server = start()
    server.wait()
    assert stat.S_IMODE(server.token_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(server.socket.stat().st_mode) == 0o600
    assert server.api("GET", "/user")[1]["is_admin"]
    token = server.token_file.read_text()
    assert server.stop() == (0, "")
    assert not server.socket.exists()
    again = start()
    again.wait()
    assert again.token_file.read_text() == token
    assert again.api("GET", "/user")[0] == 200


def test_an_address_in_use_is_one_line(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = start(port).process
        errors = process.communicate(timeout=START_S)[1]
    assert process.returncode == 1
    assert errors.startswith(f"cannot serve on 127.0.0.1:{port}: ")
    assert errors.count("\n") == 1


def test_the_control_api(start: Start) -> None:
    server = start()
    server.wait()
    control = server.control
    mark = Mark("host1", "default", "0" * 12)
    status, made = server.api("POST", "/user/runners", {"runner_type": "instance_type", "description": str(mark)})
    assert status == 201
    job = control.queue_job("echo one\necho two", host="host1", image="localhost/x", tags=[], variables={"A": "b"})
    request = {"token": made["token"], "system_id": "s_1"}
    status, given = server.api("POST", "/jobs/request", request)
    assert (status, given["id"], given["steps"][0]["script"]) == (201, job, ["echo one\necho two"])
    assert control.job(job).status == "running"
    assert control._call("POST", f"/jobs/{job}/cancel")["status"] == "canceled"
    assert control.wait_for_job(job, timeout_s=1).has_ended
    (runner,) = control.runners()
    assert (runner["host"], runner["managers"][0]["polled"]) == ("host1", True)
    assert [call["path"] for call in control.calls(since=1)] == ["/api/v4/jobs/request"]
    assert "glrt-" not in server.calls.read_text()


def test_clock_faults_and_tokens_through_the_control_api(start: Start) -> None:
    server = start()
    server.wait()
    control = server.control
    server.api("POST", "/user/runners", {"runner_type": "instance_type"})
    control.advance_clock(8 * 24 * 3600)
    assert server.api("GET", "/runners/1")[1]["status"] == "stale"
    control.set_fault("json_500", match={"method": "GET", "path_regex": "/runners/1$"}, times=1)
    assert [server.api("GET", "/runners/1")[0] for _ in range(2)] == [500, 200]
    control.set_fault("json_500", times=None)
    control.clear_faults()
    assert server.api("GET", "/runners/1")[0] == 200
    for path in ("/runners/1$", "/runners/all$"):
        control.set_fault("json_500", path_regex=path, times=None)
    control.clear_faults("/runners/1$")
    assert [server.api("GET", path)[0] for path in ("/runners/1", "/runners/all")] == [200, 500]
    control.clear_faults()
    control._call("POST", "/users", {"username": "mia", "roles": {"lab": "owner"}})
    token = control.token(["read_api"], user="mia")
    assert server.api("GET", "/runners/all", token=token)[0] == 403
    assert server.api("GET", "/groups/lab/runners", token=token)[0] == 200


def test_a_trace_is_told_in_pieces_without_breaking_characters(start: Start) -> None:
    server = start()
    server.wait()
    _, made = server.api("POST", "/user/runners", {"runner_type": "instance_type"})
    job = server.control.queue_job("true")
    _, given = server.api("POST", "/jobs/request", {"token": made["token"], "system_id": "s_1"})
    data, said, position = "grüße\n".encode(), "", 0
    for start_at, piece in ((0, data[:3]), (3, data[3:])):
        headers = {"JOB-TOKEN": given["token"], "Content-Type": "text/plain", "Content-Range": f"{start_at}-9"}
        trace = f"{server.url}/api/v4/jobs/{job}/trace"
        requests.patch(trace, piece, headers=headers, timeout=START_S).raise_for_status()
        part = server.control._call("GET", f"/jobs/{job}/trace?from={position}")
        said, position = said + part["trace"], part["next"]
    assert said == "grüße\n"


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitLabControl]:
    with in_background(tmp_path_factory.mktemp("gitlab")) as running:
        yield GitLabControl(running.control_socket)


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/jobs", {}, "script must be"),
        ("/jobs", {"script": "true", "hosts": "x"}, "unknown: hosts"),
        ("/jobs", {"script": "true", "project": "no/such"}, "no such project"),
        ("/faults", {"kind": "gremlin"}, "kind must be one of"),
        ("/clock", {}, "advance_s or set"),
        ("/tokens", {"scopes": ["sudo"]}, "scopes must be"),
        ("/jobs/99/cancel", {}, "no such id"),
    ],
)
def test_the_control_api_refuses_what_it_does_not_understand(
    control: GitLabControl, path: str, body: dict[str, object], said: str
) -> None:
    with pytest.raises(LabError, match=said):
        control._call("POST", path, body)
