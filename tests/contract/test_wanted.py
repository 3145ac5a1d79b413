"""What is rendered for a host: what was said, and nothing that was not, so that the module's defaults count."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from provisioner import __version__, resources, version
from provisioner.ci import DEFAULT
from provisioner.model import Capability, Connection, Engine, HostSpec, ModuleSpec, RunnerSpec, Trust
from provisioner.steps.base import Wanted
from provisioner.steps.wanted import SETTINGS, _code, build, code_files
from tests.unit.hosts import RECORD, SERVER, URL

IDENTITY = {"id": 7, "tokenVersion": "run-1", "description": "host1 default"}


def settings(nix_eval: Callable[[str], Any], runner: RunnerSpec, module: ModuleSpec) -> dict[str, Any]:
    host = HostSpec("host1", Connection("192.0.2.1"), (runner,), module)
    found: dict[str, Any] = nix_eval(build(host, SERVER, {"default": RECORD}).files[SETTINGS].decode())
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
        no_new_privileges=False,
        cap_add=(Capability.NET_RAW,),
        stop_timeout_s=60,
        environment={"A": "${b}"},
    )
    module = ModuleSpec(
        {"limits": {"buildLogMiB": 0}, "cache": {"keepDays": 2}},
        Trust.PLAIN,
        Engine.DOCKER,
        ("CVE-1",),
        share_socket=True,
    )
    assert settings(nix_eval, runner, module) == {
        "gitlabUrl": URL,
        "limits": {"buildLogMiB": 0},
        "cache": {"keepDays": 2},
        "trust": "plain",
        "engine": "docker",
        "acceptedAdvisories": ["CVE-1"],
        "shareSocket": True,
        "runners": {
            "default": {
                **IDENTITY,
                "concurrent": 3,
                "image": "a:1",
                "allowedImages": ["a:*"],
                "memory": "4g",
                "cpus": "1.5",
                "noNewPrivileges": False,
                "capAdd": ["NET_RAW"],
                "stopTimeout": 60,
                "environment": {"A": "${b}"},
            }
        },
    }


@pytest.fixture
def fresh() -> Iterator[None]:
    """The code is read once, and not the one that a test made of it."""
    _code.cache_clear()
    yield
    _code.cache_clear()


def built() -> Wanted:
    return build(HostSpec("h", Connection("192.0.2.1")), SERVER, {"default": RECORD})


def test_another_version_pushes_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    first = built()
    monkeypatch.setattr(version, "OWN", "99.0")
    other = built()
    assert (other.files, other.revision) == (first.files, first.revision)
    assert (first.version, other.version) == (__version__, "99.0")


@pytest.mark.usefixtures("fresh")
def test_a_checkout_with_other_line_ends_pushes_the_same_bytes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = built()
    for path in code_files(DEFAULT.host_side):
        text = (resources.templates() / path).read_bytes()
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(text.replace(b"\n", b"\r\n"))
    monkeypatch.setattr(resources, "templates", lambda: tmp_path)
    _code.cache_clear()
    assert built() == first


class Elsewhere:
    """Templates with more than ASCII, on a computer whose locale reads files as Latin-1."""

    def __init__(self, name: str = "") -> None:
        self.name = name

    def joinpath(self, name: str) -> Elsewhere:
        return Elsewhere(name)

    def read_text(self, encoding: str = "latin-1") -> str:
        return "# ä\n".encode().decode(encoding)


@pytest.mark.usefixtures("fresh")
def test_no_locale_is_in_what_is_pushed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "templates", Elsewhere)
    assert set(_code(DEFAULT.host_side).values()) == {"# ä\n"}


def test_another_setting_is_another_revision() -> None:
    def revision(module: ModuleSpec) -> str:
        return build(HostSpec("h", Connection("192.0.2.1"), (), module), SERVER, {}).revision

    plain, limited = ModuleSpec(trust=Trust.PLAIN), ModuleSpec({"limits": {"tasks": 1}})
    assert len({revision(ModuleSpec()), revision(plain), revision(limited)}) == 3
