"""The lab's paths. Owns the names of directories and files; knows nothing of their contents."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

RUNTIME_VARIABLE: Final = "NIXPROV_LAB_RUNTIME_DIR"


def cache_dir() -> Path:
    """The directory of the trees, which survive the lab, and of the machines' disks while they run."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "nixprov" / "lab"


def runtime_dir() -> Path:
    """The registry of running labs, one for the whole computer.

    Not below XDG_RUNTIME_DIR: logind empties that when its user logs out, and the machines live on.
    """
    return Path(os.environ.get(RUNTIME_VARIABLE) or "/run/nixprov-lab")


@dataclass(frozen=True, slots=True)
class LabFiles:
    """The files of one lab, by name; `root` is its directory (0700)."""

    root: Path

    @property
    def id(self) -> str:
        return self.root.name

    @property
    def state(self) -> Path:
        return self.root / "state.json"

    @property
    def lease(self) -> Path:
        """Locked by the process that keeps the lab alive; the kernel lets go of it when that dies."""
        return self.root / "lease"

    @property
    def hosts(self) -> Path:
        """A link to the machines' disks, which are too big for a directory in memory."""
        return self.root / "hosts"

    @property
    def control(self) -> Path:
        return self.root / "supervisor.control"

    @property
    def supervisor_log(self) -> Path:
        return self.root / "supervisor.log"

    @property
    def inventory(self) -> Path:
        return self.root / "inventory"

    @property
    def ssh_key(self) -> Path:
        return self.root / "ssh_key"

    @property
    def known_hosts(self) -> Path:
        return self.root / "known_hosts"

    @property
    def gitlab_token(self) -> Path:
        return self.root / "gitlab.token"

    @property
    def gitlab_log(self) -> Path:
        return self.root / "gitlab.log"

    @property
    def gitlab_calls(self) -> Path:
        return self.root / "gitlab.calls.jsonl"

    @property
    def gitlab_control(self) -> Path:
        return self.root / "gitlab.control"
