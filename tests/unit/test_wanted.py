"""What is rendered for a host: what was said, and nothing that was not, so that the module's defaults count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from provisioner.model import Connection, Engine, HostSpec, ModuleSpec, RunnerSpec, Trust
from provisioner.steps.wanted import SETTINGS, build
from tests.unit.hosts import RECORD, URL

IDENTITY = {"id": 7, "tokenVersion": "run-1", "description": "host1 default"}


def settings(nix_eval: Callable[[str], Any], runner: RunnerSpec, module: ModuleSpec) -> dict[str, Any]:
    host = HostSpec("host1", Connection("192.0.2.1"), (runner,), module)
    found: dict[str, Any] = nix_eval(build(host, URL, {"default": RECORD}).files[SETTINGS].decode())
    assert found.pop("revision")
    return found


def test_what_was_not_said_is_not_written(nix_eval: Callable[[str], Any]) -> None:
    found = settings(nix_eval, RunnerSpec(), ModuleSpec())
    assert found == {"gitlabUrl": URL, "runners": {"default": IDENTITY}}


def test_what_was_said_is_written_under_the_options_names(nix_eval: Callable[[str], Any]) -> None:
    runner = RunnerSpec(
        concurrent=3,
        image="a:1",
        allowed_images=("a:*",),
        memory="4g",
        cpus="1.5",
        stop_timeout_s=60,
        environment={"A": "${b}"},
    )
    module = ModuleSpec({"limits": {"buildLogMiB": 0}, "cache": {"keepDays": 2}}, Trust.PLAIN, Engine.DOCKER)
    assert settings(nix_eval, runner, module) == {
        "gitlabUrl": URL,
        "limits": {"buildLogMiB": 0},
        "cache": {"keepDays": 2},
        "trust": "plain",
        "engine": "docker",
        "runners": {
            "default": {
                **IDENTITY,
                "concurrent": 3,
                "image": "a:1",
                "allowedImages": ["a:*"],
                "memory": "4g",
                "cpus": "1.5",
                "stopTimeout": 60,
                "environment": {"A": "${b}"},
            }
        },
    }


def test_another_setting_is_another_revision() -> None:
    def revision(module: ModuleSpec) -> str:
        return build(HostSpec("h", Connection("192.0.2.1"), (), module), URL, {}).revision

    plain, limited = ModuleSpec(trust=Trust.PLAIN), ModuleSpec({"limits": {"tasks": 1}})
    assert len({revision(ModuleSpec()), revision(plain), revision(limited)}) == 3
