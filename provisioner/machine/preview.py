"""A preview of a new system, evaluated or built on the host from a copy of its configuration.

`preview.sh` beside this file does the work. It changes nothing but the store: no file of the owner, no profile, no
unit. Here are the script that starts it and the reading of its answer (ADR 0015).

Formats: nix-build --dry-run (Nix, src/libmain/shared.cc, printMissing). Names of store paths (Nix, src/libstore/
names.cc, DrvName). switch-to-configuration dry-activate (nixpkgs, "would restart the following units: a, b").
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from provisioner.machine import aside
from provisioner.machine.configuration import Configuration
from provisioner.machine.facts import read_records


@dataclass(frozen=True, slots=True)
class PackageChange:
    """A name in the closure: its versions before and after, and the growth of its size in bytes."""

    name: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    size: int


@dataclass(frozen=True, slots=True)
class UnitChange:
    """A change of units by the activation: `verb` is start, stop, restart, reload, or "add" for new ones."""

    verb: str
    units: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Closure:
    """The running system's closure against the new one's; paths by number, sizes in bytes."""

    added: int
    removed: int
    size: int
    packages: tuple[PackageChange, ...]
    units: tuple[UnitChange, ...] = ()
    revision: str = ""


@dataclass(frozen=True, slots=True)
class Preview:
    """The host's answer: a closure when the new system is there, else the names to build and to fetch.

    `failed` is the error with which nixos-rebuild would fail. `unknown` is the reason for no preview.
    """

    closure: Closure | None = None
    build: tuple[str, ...] = ()
    fetch: tuple[str, ...] = ()
    sizes: str = ""
    failed: str = ""
    unknown: str = ""


def script(run: str, of: Configuration, edits: Mapping[str, bytes | None], *, build: bool) -> bytes:
    """The script for `sh -s`, as root. `edits` are other contents of files; with `build` a missing system is built."""
    commands = (shlex.join(of.build), shlex.join(of.dry_build))
    return aside.script("plan", run, "preview.sh", of.folder, edits, "yes" if build else "no", *commands)


def read(host: str, answer: bytes) -> Preview:
    """Read the answer. Raises RemoteFailed when it is cut short."""
    records = read_records(host, answer, aside.LAST)
    text = {name: content.decode("utf-8", "replace").strip() for name, content in records.items()}
    if "cannot" in text:
        return Preview(unknown=text["cannot"])
    if "failed" in text:
        return Preview(failed=complaint(text["failed"]))
    if "dry-run" in text:
        return _to_do(text["dry-run"])
    added, removed = _paths(text.get("added", "")), _paths(text.get("removed", ""))
    units = [UnitChange("add", tuple(text.get("new-units", "").split())), *unit_changes(text.get("dry-activate", ""))]
    return Preview(
        Closure(
            len(added),
            len(removed),
            sum(size for _, size in added) - sum(size for _, size in removed),
            tuple(_packages(added, removed)),
            tuple(change for change in units if change.units),
            text.get("revision", ""),
        )
    )


_Path = tuple[str, int]


def _paths(text: str) -> list[_Path]:
    found = (line.partition(" ") for line in text.splitlines())
    return [(_name(path), int(size)) for size, _, path in found if size.isascii() and size.isdigit()]


def _name(path: str) -> str:
    """`foo-1.2` of /nix/store/HASH-foo-1.2, and of its derivation."""
    return path.rpartition("/")[2].partition("-")[2].removesuffix(".drv")


def _packages(added: Iterable[_Path], removed: Iterable[_Path]) -> Iterator[PackageChange]:
    """Changes by name. A rebuild under the same version has (version,) before and after."""
    before, after = _by_name(removed), _by_name(added)
    for name in sorted({*before, *after}):
        old, new = before.get(name, {}), after.get(name, {})
        yield PackageChange(name, tuple(sorted(old)), tuple(sorted(new)), sum(new.values()) - sum(old.values()))


def _by_name(paths: Iterable[_Path]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for full, size in paths:
        name, *rest = _VERSION_STARTS.split(full, maxsplit=1)
        version = "".join(rest)
        versions = found.setdefault(name, {})
        versions[version] = versions.get(version, 0) + size
    return found


_VERSION_STARTS: Final = re.compile(r"-(?=[^a-zA-Z])")
_SECTION: Final = re.compile(r"will be (built|fetched)(?: \(([^()]*)\))?:$")
_UNITS: Final = re.compile(r"would (NOT )?(start|stop|restart|reload) the following units?: (.*)")
_ERROR: Final = re.compile(r"^[ \t]*error: (?=\S)(.*)", re.MULTILINE)


def _to_do(said: str) -> Preview:
    lists: dict[str, list[str]] = {"built": [], "fetched": []}
    current, sizes = "", ""
    for line in said.splitlines():
        if section := _SECTION.search(line):
            current, sizes = section[1], section[2] or sizes
        elif current and line.startswith("  /nix/store/"):
            lists[current].append(_name(line.strip()))
        else:
            current = ""
    return Preview(build=tuple(lists["built"]), fetch=tuple(lists["fetched"]), sizes=sizes)


def unit_changes(said: str) -> list[UnitChange]:
    return [UnitChange(verb, tuple(units.split(", "))) for no, verb, units in _UNITS.findall(said) if not no]


def complaint(said: str) -> str:
    """The innermost of Nix's errors, which it prints last."""
    errors = _ERROR.findall(said)
    return errors[-1] if errors else (said.splitlines() or ["nixos-rebuild failed"])[-1].strip()
