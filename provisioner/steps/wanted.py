"""From a host's specification and its runners' identities to the exact files that should be on it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from provisioner import resources, version
from provisioner.ci.base import HostSide, Server
from provisioner.machine.journal import RunnerRecord
from provisioner.model import Engine, HostSpec, ModuleSpec, RunnerSpec, Secret, Trust
from provisioner.nix.header import managed
from provisioner.nix.values import to_nix
from provisioner.steps.base import Wanted

# On the host they lie in one folder, so file names are unique.
CORE: Final = (
    "advisories.nix",
    "advisories.toml",
    "affected.nix",
    "archive.py",
    "cache.nix",
    "counters.nix",
    "counters.py",
    "daemon.nix",
    "daemon.py",
    "default.nix",
    "door.nix",
    "engine.nix",
    "filter.nix",
    "filter.py",
    "grammar.py",
    "hardening.nix",
    "image.nix",
    "internal.nix",
    "network.nix",
    "nix-settings.nix",
    "options.nix",
    "session.py",
    "tally.py",
    "wire.py",
)
SETTINGS: Final = "settings.nix"


def build(
    host: HostSpec, server: Server, runners: Mapping[str, RunnerRecord], tokens: Mapping[str, Secret] | None = None
) -> Wanted:
    """Render the module for `host`; `runners` has each runner's id at `server` and the version of its token.

    The revision is a digest of everything that reaches the system, so a built system identifies itself.
    """
    code = _code(server.host_side)
    settings: dict[str, Any] = {
        **_module(host.module),
        server.host_side.address: server.url,
        "runners": {spec.name: _runner(spec, runners[spec.name], host.name) for spec in host.runners},
    }
    revision = _revision(code, _file(settings))
    final = _file({"revision": revision, **settings})
    files = {name: managed(text).encode() for name, text in {**code, SETTINGS: final}.items()}
    versions = {spec.name: runners[spec.name].token_version for spec in host.runners}
    return Wanted(host, files, revision, version.OWN, versions, dict(tokens or {}))


def code_files(side: HostSide) -> tuple[str, ...]:
    """The module's code, below templates/."""
    return (*(f"core/{name}" for name in CORE), *(f"{side.templates}/{name}" for name in side.files))


@cache
def _code(side: HostSide) -> Mapping[str, str]:
    """Read once: it is the same for all hosts of a run, even if nixprov is upgraded meanwhile.

    Independent of locale and of the checkout's line ends: all operators push the same bytes.
    """
    files = [resources.templates().joinpath(path) for path in code_files(side)]
    return {file.name: file.read_text(encoding="utf-8") for file in files}


def _file(settings: Mapping[str, Any]) -> str:
    return f"# What is wanted on this host, as data; the code is in the files beside this one.\n{to_nix(settings)}\n"


def _module(spec: ModuleSpec) -> dict[str, Any]:
    said = {
        "trust": None if spec.trust is Trust.NONE else spec.trust.value,
        "engine": None if spec.engine is Engine.PODMAN else spec.engine.value,
        "acceptedAdvisories": list(spec.accepted_advisories),
        "shareSocket": spec.share_socket,
    }
    groups = {group: dict(options) for group, options in spec.settings.items()}
    return {**groups, **{name: value for name, value in said.items() if value}}


def _runner(spec: RunnerSpec, record: RunnerRecord, host: str) -> dict[str, Any]:
    """An unset option is not written, so that every default is in options.nix and nowhere else."""
    wishes = {
        "concurrent": spec.concurrent,
        "image": spec.image,
        "allowedImages": spec.allowed_images,
        "memory": spec.memory,
        "cpus": spec.cpus,
        "noNewPrivileges": spec.no_new_privileges,
        "capAdd": tuple(capability.value for capability in spec.cap_add),
        "stopTimeout": spec.stop_timeout_s,
        "environment": dict(spec.environment),
    }
    return {
        "id": record.id,
        "tokenVersion": record.token_version,
        "description": spec.description or f"{host} {spec.name}",
        **{name: value for name, value in wishes.items() if value not in (None, (), {})},
    }


def _revision(code: Mapping[str, str], settings: str) -> str:
    digest = hashlib.sha256()
    for name, text in sorted({**code, SETTINGS: settings}.items()):
        digest.update(f"{name}\0{len(text)}\0{text}".encode())
    return digest.hexdigest()[:32]
