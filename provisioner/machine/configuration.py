"""A host's configuration as a value: its place, and the commands that build it. Hooks give it (hooks/)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Configuration:
    """The owner's folder, the file in it that describes the system, and the commands that build it with our module.

    `build` runs in an empty folder and leaves the system there as ./result. `dry_build` prints the paths to build and
    to fetch. `evaluated` is a Nix expression of the system, a set with the attribute `config`.
    """

    folder: str
    file: str
    build: tuple[str, ...]
    dry_build: tuple[str, ...]
    evaluated: str
