"""A simulated nixos-rebuild of /etc/nixos: a system by the files that it comes from."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from provisioner.hooks.classic import Classic
from provisioner.nix import imports

FOLDER: Final = Classic().folder
CONFIGURATION: Final = "/etc/nixos/configuration.nix"
MODULE: Final = "/etc/nixos/nixprov"
# The templates' units for podman, beside the runners (templates/core: engine.nix, image.nix, daemon.nix, door.nix,
# network.nix, counters.nix).
FOUNDATION: Final = (
    "nixprov-image.service",
    "nixprov-podman.socket",
    "nixprov-network.service",
    "nixprov-nix-daemon.socket",
    "nixprov-nix-jobs.socket",
    "nixprov-counters.socket",
)


class BuildFailed(Exception):
    """With Nix's standard error."""


@dataclass(frozen=True)
class System:
    """A store path, and of our module in it the revision and the runners; empty without it."""

    path: str
    revision: str = ""
    runners: tuple[str, ...] = ()

    @property
    def units(self) -> tuple[str, ...]:
        """Of ours, in the order in which they start."""
        if not self.revision:
            return ()
        return (*FOUNDATION, *(f"nixprov-runner-{name}.service" for name in self.runners))


def evaluate(files: Mapping[str, bytes]) -> System:
    """The system of these files, by their paths. Raises BuildFailed.

    Files that are the same to Nix give the same path: our line alone, without the module, is nothing.
    """
    configuration = files.get(CONFIGURATION)
    if configuration is None:
        raise BuildFailed(f"error: file '{CONFIGURATION}' was not found")
    if b"throw" in configuration:
        raise BuildFailed("error: the configuration throws")
    found, without = _hook(configuration)
    if found is imports.Presence.UNREADABLE:
        raise BuildFailed(f"error: syntax error, unexpected end of file, at {CONFIGURATION}:1")
    is_imported = found in (imports.Presence.PRESENT, imports.Presence.ELSEWHERE)
    module = {path: text for path, text in files.items() if path.startswith(f"{MODULE}/")}
    if not (is_imported and f"{MODULE}/default.nix" in module):
        module = {}
    theirs = {path: text for path, text in files.items() if not path.startswith(f"{MODULE}/")}
    theirs[CONFIGURATION] = without
    digest = hashlib.sha256(repr(sorted({**theirs, **module}.items())).encode()).hexdigest()[:32]
    settings = _settings(module.get(f"{MODULE}/settings.nix", b"").decode())
    path = f"/nix/store/{digest}-nixos-system-host-25.11"
    return System(path, settings.get("revision", ""), tuple(settings.get("runners", ())))


@cache
def _hook(configuration: bytes) -> tuple[imports.Presence, bytes]:
    """Whether our line is in it, and the file without it: parsed once for all the worlds of a test."""
    found = imports.find(configuration, FOLDER)
    if found is imports.Presence.UNREADABLE:
        return found, configuration
    return found, imports.remove(configuration, FOLDER) or configuration


def _settings(text: str) -> dict[str, Any]:
    """The settings of the module; empty without it."""
    document = re.search(r"^builtins.fromJSON ''\n(.*)^''$", text, re.DOTALL | re.MULTILINE)
    found: dict[str, Any] = json.loads(document[1]) if document else {}
    return found
