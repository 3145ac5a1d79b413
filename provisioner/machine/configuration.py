"""Where a host's configuration is, and how a system is made of it: values that the hook of a host gives (hooks/)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Configuration:
    """The owner's folder, the file in it that describes the system, and what builds that with our module in it.

    `build` and `dry_build` are commands, run in an empty folder; the first leaves the system there as ./result, the
    second prints what it would take. `evaluated` is a Nix expression of the system, a set with the attribute `config`.
    """

    folder: str
    file: str
    build: tuple[str, ...]
    dry_build: tuple[str, ...]
    evaluated: str
