"""The journal on the host: the state before us, the intent, the confirmation. Any operator reads it by `cat`.

One JSON document, /var/lib/nixprov/journal.json. The transaction that makes the announced changes replaces it
whole. Fields unknown to this version are kept, those of records as long as the record itself is. It holds no token.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final, Self, TypeAlias, TypeVar

from provisioner.errors import HostRefused
from provisioner.machine.facts import Facts, digest
from provisioner.machine.transaction import ABSENT, JOURNAL, SetMtime
from provisioner.model import FrozenDict, Identity

T = TypeVar("T")
Unknown: TypeAlias = Mapping[str, Any]
_NOTHING: Final[Unknown] = FrozenDict()

VERSION: Final = 1
# Stands in the place of a token's version.
NO_TOKEN: Final = "pending"  # noqa: S105 - a word, no secret


class Phase(Enum):
    """The progress of the last run."""

    NONE = "none"
    CLAIMED = "up: claimed"
    WRITTEN = "up: written"
    CONFIRMED = "up: confirmed"
    DRAINING = "down: draining"
    REMOVING = "down: removing"
    SWITCHED_BACK = "down: switched back"
    UNWINDING = "unwinding"
    WENT_BACK = "rolled back by the host"

    @property
    def has_installed(self) -> bool:
        """Whether anything but the journal may have been written by then."""
        return self not in (Phase.NONE, Phase.CLAIMED)


@dataclass(frozen=True, slots=True)
class Run:
    """The run that wrote the journal: `at` is ISO 8601 in UTC, `by` is user@computer of the operator."""

    id: str
    verb: str
    by: str
    at: str
    unknown: Unknown = field(default=_NOTHING, compare=False)

    def age(self, now: datetime | None = None) -> str:
        """The age for people, by our own clock: `3 min`; the time itself when the clocks disagree."""
        try:
            minutes = int(((now or datetime.now(UTC)) - datetime.fromisoformat(self.at)).total_seconds()) // 60
        except (ValueError, TypeError):
            return self.at
        if minutes < 0:
            return self.at
        return f"{minutes} min" if minutes < 2 * 60 else f"{minutes // 60} h"


@dataclass(frozen=True, slots=True)
class Baseline:
    """The system before our first change: the generation's number and its store path."""

    generation: int | None
    system: str
    unknown: Unknown = field(default=_NOTHING, compare=False)


@dataclass(frozen=True, slots=True)
class Checked:
    """The running system that the last run compared with the configuration before it changed anything.

    `adopted`: they differed, and the operator said to go on.
    """

    system: str
    adopted: bool
    unknown: Unknown = field(default=_NOTHING, compare=False)


@dataclass(frozen=True, slots=True)
class HookRecord:
    """The user's file before our edit. `backup` is the path of its bytes on the host; times are in epoch seconds.

    `kind` is that of the hook; journals from before the second kind lack it.
    """

    path: str
    mode: int
    owner: str
    mtime: int
    directory_mtime: int
    sha256_before: str
    backup: str
    kind: str = "classic"
    unknown: Unknown = field(default=_NOTHING, compare=False)

    @property
    def folder(self) -> str:
        return self.path.rpartition("/")[0]

    def time_back(self) -> SetMtime:
        """Give the user's folder its time from before us; last, after every change in it."""
        return SetMtime(self.folder, self.directory_mtime)


@dataclass(frozen=True, slots=True)
class RunnerRecord:
    """The runner, and its CI server, of the host's secret."""

    id: Identity
    url: str
    token_version: str
    unknown: Unknown = field(default=_NOTHING, compare=False)


@dataclass(frozen=True, slots=True)
class Journal:
    """`sha256` is that of the document as read (ABSENT without one). The next write must find the same.

    `nixprov` is the version that wrote the module's files; empty when unknown, or without files.
    """

    sha256: str = ABSENT
    host: str = ""
    machine: str = ""
    phase: Phase = Phase.NONE
    run: Run | None = None
    baseline: Baseline | None = None
    checked: Checked | None = None
    hook: HookRecord | None = None
    runners: Mapping[str, RunnerRecord] = FrozenDict()
    pending_deletions: tuple[RunnerRecord, ...] = ()
    nixprov: str = ""
    unknown: Unknown = field(default=_NOTHING, compare=False)

    def without_tokens(self, names: Collection[str]) -> Self:
        """The journal with a new token due for the runners of `names`: the old one has ended, or soon will."""
        runners = {
            name: replace(record, token_version=NO_TOKEN) if name in names else record
            for name, record in self.runners.items()
        }
        return replace(self, runners=runners)

    def of_machine(self, machine: str) -> Self:
        """The journal without runners of another machine: a copy of its disk brought them; they are in use there."""
        return self if self.machine in ("", machine) else replace(self, runners={}, pending_deletions=())

    @property
    def exists(self) -> bool:
        return self.sha256 != ABSENT

    @classmethod
    def read(cls, facts: Facts) -> Self:
        """Read from the probe. Raises HostRefused for a journal that is broken or newer than this program."""
        content = facts.records.get("journal.data")
        if content is None:
            return cls()
        try:
            return cls._parse(content)
        except _Newer as error:
            hint = "use a nixprov at least as new as the one that was used there last"
            raise HostRefused(facts.host, f"the journal is {error}", hint=hint) from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            # Without it `down` knows neither the old times nor the pending deletions. So a person decides.
            hint = f"mend {JOURNAL}, or move it away: `up` and `down` then go by what they find"
            raise HostRefused(facts.host, f"the journal cannot be read: {error}", hint=hint) from error

    @classmethod
    def _parse(cls, content: bytes) -> Self:
        data = json.loads(content)
        version = data.pop("version")
        if isinstance(version, int) and version > VERSION:
            raise _Newer(f"of version {version}, this nixprov knows {VERSION}")
        if version != VERSION:
            raise ValueError(f"it says version {version!r}, this nixprov knows {VERSION}")
        known: dict[str, Any] = {
            "host": data.pop("host"),
            "machine": data.pop("machine"),
            "nixprov": _version(data.pop("nixprov", "")),
            "phase": Phase(data.pop("phase")),
            "run": _maybe(Run, data.pop("run", None)),
            "baseline": _maybe(Baseline, data.pop("baseline", None)),
            "checked": _maybe(Checked, data.pop("checked", None)),
            "hook": _maybe(HookRecord, data.pop("hook", None)),
            "runners": {name: _record(RunnerRecord, record) for name, record in data.pop("runners", {}).items()},
            "pending_deletions": tuple(_record(RunnerRecord, one) for one in data.pop("pending_deletions", [])),
        }
        return cls(sha256=digest(content), unknown=data, **known)

    def ids_at(self, url: str) -> frozenset[Identity]:
        """The runners that the host has at the server of `url`."""
        return frozenset(record.id for record in self.runners.values() if record.url == url)

    def render(self) -> bytes:
        document = {
            "about": "nixprov's journal: `nixprov up` or `nixprov down` of any operator goes on from here",
            **self.unknown,
            "version": VERSION,
            "host": self.host,
            "machine": self.machine,
            "nixprov": self.nixprov,
            "phase": self.phase.value,
            "run": _fields(self.run),
            "baseline": _fields(self.baseline),
            "checked": _fields(self.checked),
            "hook": _fields(self.hook),
            "runners": {name: _fields(record) for name, record in sorted(self.runners.items())},
            "pending_deletions": [_fields(record) for record in self.pending_deletions],
        }
        return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()

    def written(self) -> Self:
        """The journal as the next transaction will find it, once this one is written."""
        return replace(self, sha256=digest(self.render()))


class _Newer(Exception):
    """The journal has a newer version than this nixprov knows."""


def _version(found: object) -> str:
    if not isinstance(found, str):
        raise TypeError("nixprov is no version")
    return found


def _maybe(kind: type[T], found: Mapping[str, Any] | None) -> T | None:
    return None if found is None else _record(kind, found)


def _record(kind: type[T], found: Mapping[str, Any]) -> T:
    known = {one.name: one for one in fields(kind) if one.name != "unknown"}  # type: ignore[arg-type]
    rest = {name: value for name, value in found.items() if name not in known}
    said = {name: found[name] for name, one in known.items() if name in found or one.default is MISSING}
    make: Callable[..., T] = kind
    return make(**said, unknown=rest)


def _fields(value: object) -> dict[str, Any] | None:
    if value is None:
        return None
    known = {name: getattr(value, name) for name in value.__slots__}  # type: ignore[attr-defined]
    return {**known.pop("unknown"), **known}
