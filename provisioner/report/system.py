"""The system in a plan, worded for people. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from provisioner.machine.origin import Origin
from provisioner.machine.preview import Closure, PackageChange, Preview, UnitChange
from provisioner.report.wording import count, names, size

# As in `nix store diff-closures`: a package with neither a new version nor a change of this size is not shown.
_WORTH_BYTES: Final = 8 * 1024
_LINES: Final = 30
_NAMES: Final = 6


def system_lines(seen: Preview | None) -> Iterator[str]:
    """The head first, then the lines below it. No line for None or a host without an answer."""
    if seen is None or seen.failed:
        return
    if seen.unknown:
        yield f"system: not known: {seen.unknown}"
    elif seen.closure is None:
        yield from _to_do(seen)
    else:
        yield from _closure(seen.closure)


def _to_do(seen: Preview) -> Iterator[str]:
    said = [f"build {count(len(seen.build), 'derivation')}"] if seen.build else []
    size = f" ({seen.sizes})" if seen.sizes else ""
    said += [f"fetch {count(len(seen.fetch), 'path')}{size}"] if seen.fetch else []
    yield f"system: would {' and '.join(said) or 'not build'}; --build shows what comes of it"
    for verb, paths in (("build", seen.build), ("fetch", seen.fetch)):
        if paths:
            yield f"  {verb} {names(paths, _NAMES)}"


def _closure(closure: Closure) -> Iterator[str]:
    if not (closure.added or closure.removed):
        yield "system: as it is"
        return
    yield f"system: {count(closure.added, 'path')} more, {closure.removed} less, {_size(closure.size)}"
    told = [package for package in closure.packages if _is_worth_a_line(package)]
    yield from (f"  {_package(package)}" for package in told[:_LINES])
    if len(told) > _LINES:
        yield f"  and {len(told) - _LINES} more"
    yield from _unit_lines(closure.units)


def origin_lines(found: Origin) -> Iterator[str]:
    """The difference between a system and its configuration, and below it the changes beside our module."""
    yield f"origin: {found.why}"
    yield from (f"  {line}" for line in found.changes)
    yield from _unit_lines(found.units)
    if found.configured and not found.is_built:
        yield "  it is not built: more than this may change, and --build tells"


def _unit_lines(changes: Sequence[UnitChange]) -> Iterator[str]:
    yield from (f"  {_UNITS.get(change.verb, change.verb)} {names(change.units)}" for change in changes)


_UNITS: Final = {"add": "new units:", "start": "starts", "stop": "stops", "restart": "restarts", "reload": "reloads"}


def _is_worth_a_line(package: PackageChange) -> bool:
    is_another = package.before != package.after and any((*package.before, *package.after))
    return is_another or abs(package.size) >= _WORTH_BYTES


def _package(package: PackageChange) -> str:
    name, change = package.name, _size(package.size)
    if not package.before:
        return " ".join(filter(None, ("new", name, _versions(package.after), f"({change})")))
    if not package.after:
        return " ".join(filter(None, ("gone", name, _versions(package.before), f"({change})")))
    if package.before == package.after:
        return f"{name} ({change})"
    return f"{name} {_versions(package.before)} → {_versions(package.after)} ({change})"


def _versions(versions: Sequence[str]) -> str:
    return ", ".join(filter(None, versions))


def _size(number: int) -> str:
    return f"{'-' if number < 0 else '+'}{size(abs(number))}"
