"""GitLab's own API, as a person with a token and curl would use it behind nixprov's back."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import replace
from typing import Any

from nixprov_lab.running import Lab

from provisioner.model import Mark


def call(lab: Lab, method: str, path: str, body: dict[str, object] | None = None) -> Any:
    request = urllib.request.Request(  # noqa: S310 - the lab's own address
        f"{lab.state.gitlab_url}/api/v4{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"PRIVATE-TOKEN": lab.files.gitlab_token.read_text().strip(), "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        text = answer.read()
    return json.loads(text) if text else None


def pause(lab: Lab, runner: int) -> None:
    call(lab, "PUT", f"/runners/{runner}", {"paused": True})


def double(lab: Lab, runner: int, *, machine: str = "", host: str = "") -> int:
    """A second runner with the same mark, as a lost reply leaves it; or with that of another machine or name."""
    description = call(lab, "GET", f"/runners/{runner}")["description"]
    mark = Mark.find(description)
    assert mark is not None
    description = str(replace(mark, machine=machine or mark.machine, host=host or mark.host))
    return int(call(lab, "POST", "/user/runners", {"runner_type": "instance_type", "description": description})["id"])


def takes_token(lab: Lab, host: str) -> bool:
    """Whether GitLab still takes the token that the runner's process was started with."""
    config = lab.run(host, ["cat", "/var/lib/nixprov-runner/default/config.toml"]).stdout
    system_id = lab.run(host, ["cat", "/var/lib/nixprov-runner/default/.runner_system_id"]).stdout.strip()
    token = next(line.split('"')[1] for line in config.splitlines() if line.strip().startswith("token = "))
    try:
        verify(lab, token, system_id)
    except urllib.error.HTTPError:
        return False
    return True


def verify(lab: Lab, token: str, system_id: str) -> None:
    """As a runner's process does when it starts. Raises HTTPError for a token that GitLab does not take."""
    request = urllib.request.Request(  # noqa: S310 - the lab's own address
        f"{lab.state.gitlab_url}/api/v4/runners/verify",
        data=json.dumps({"token": token, "system_id": system_id}).encode(),
        headers={"Content-Type": "application/json"},
    )
    urllib.request.urlopen(request, timeout=10).close()  # noqa: S310
