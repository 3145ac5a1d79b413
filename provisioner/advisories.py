"""The known flaws of releases of Nix by which a job gets power: the table is templates/core/advisories.toml.

templates/core/affected.nix says the same of the configuration that is built. tests/contract/test_advisories_nix.py
compares the two. Knows no host: machine/flaws.py applies the table to one.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Final, NamedTuple

from provisioner import resources

# As builtins.splitVersion cuts: at each dot and dash, and between digits and other characters.
_PARTS: Final = re.compile(r"[0-9]+|[^0-9.-]+")
_EARLY: Final = "pre"


class Severity(Enum):
    """ROOT: a job becomes root of the host by it. LESS: it does not, as far as is known."""

    ROOT = "root"
    LESS = "less"


class Release(NamedTuple):
    """A version that can be compared. `final` is 0, and negative for a version before the release of that number."""

    major: int
    minor: int
    patch: int
    final: int = 0

    @classmethod
    def parse(cls, text: str) -> Release | None:
        """`2.26`, `2.26.3+dfsg-1`, `2.31.4pre2026_abc`; None for text that does not begin with two numbers."""
        parts = _PARTS.findall(text)
        numbers = 3 if parts[2:3] and parts[2].isdigit() else 2
        if len(parts) < numbers or not all(part.isdigit() for part in parts[:2]):
            return None
        patch = int(parts[2]) if numbers > 2 else 0  # noqa: PLR2004 - the third of them
        return cls(int(parts[0]), int(parts[1]), patch, -1 if parts[numbers : numbers + 1] == [_EARLY] else 0)

    @property
    def branch(self) -> tuple[int, int]:
        return self.major, self.minor

    @property
    def next_branch(self) -> Release:
        return Release(self.major, self.minor + 1, 0)

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


@dataclass(frozen=True, slots=True)
class Range:
    """The releases that get a flaw, and those that mend it: the first of each branch, in order.

    Without `since` every release older than those of `fixed` has it.
    """

    since: tuple[Release, ...]
    fixed: tuple[Release, ...]

    def holds(self, release: Release) -> bool:
        # A version before a release may have the flaws of that release, and not yet its fixes.
        is_begun = not self.since or _has_reached(self.since, release._replace(final=0))
        return is_begun and not _has_reached(self.fixed, release)


def _has_reached(releases: Sequence[Release], found: Release) -> bool:
    """Compare within the branch. A branch newer than all of them counts as the last one."""
    same = next((release for release in releases if release.branch == found.branch), None)
    return found >= (same or releases[-1].next_branch)


@dataclass(frozen=True, slots=True)
class Advisory:
    """`affected` is by the maker of a Nix, as its package is named."""

    id: str
    severity: Severity
    gives: str
    advice: str
    sources: tuple[str, ...]
    affected: Mapping[str, Range]

    @property
    def is_root(self) -> bool:
        return self.severity is Severity.ROOT

    def hits(self, product: str, release: Release) -> bool:
        return product in self.affected and self.affected[product].holds(release)


@dataclass(frozen=True, slots=True)
class Found:
    """The known flaws of one release; `mended` is the lowest newer one without a way to root, or empty."""

    root: tuple[Advisory, ...] = ()
    less: tuple[Advisory, ...] = ()
    mended: str = ""


@cache
def known() -> tuple[Advisory, ...]:
    """The advisories of the table, in order of their ids."""
    text = (resources.templates() / "core" / "advisories.toml").read_text(encoding="utf-8")
    return tuple(map(_advisory, tomllib.loads(text)["advisory"]))


def of(product: str, version: str, table: Sequence[Advisory] | None = None) -> Found | None:
    """The known flaws of this Nix; None for an unknown product or an unreadable version."""
    table = known() if table is None else table
    release = Release.parse(version)
    fixes = sorted(fix for one in table if product in one.affected for fix in one.affected[product].fixed)
    if release is None or not fixes:
        return None
    found = [one for one in table if one.hits(product, release)]
    mended = next((fix for fix in fixes if fix >= release and not any(_ways_to_root(table, product, fix))), "")
    return Found(
        tuple(one for one in found if one.is_root), tuple(one for one in found if not one.is_root), str(mended)
    )


def _ways_to_root(table: Sequence[Advisory], product: str, release: Release) -> Iterator[Advisory]:
    return (one for one in table if one.is_root and one.hits(product, release))


def _advisory(entry: Mapping[str, object]) -> Advisory:
    """Raises KeyError, TypeError, ValueError for a bad entry. A test reads all entries."""
    affected = entry["affected"]
    assert isinstance(affected, dict)  # noqa: S101 - narrows for mypy
    return Advisory(
        id=str(entry["id"]),
        severity=Severity(entry["severity"]),
        gives=str(entry["gives"]),
        advice=str(entry["advice"]),
        sources=tuple(map(str, entry["sources"])),  # type: ignore[call-overload]
        affected={product: _range(said) for product, said in affected.items()},
    )


def _range(said: Mapping[str, Sequence[str]]) -> Range:
    return Range(_releases(said.get("from", ())), _releases(said["fixed"]))


def _releases(texts: Sequence[str]) -> tuple[Release, ...]:
    releases = tuple(map(Release.parse, texts))
    if None in releases:
        raise ValueError(f"no version: {', '.join(texts)}")
    return tuple(release for release in releases if release)
