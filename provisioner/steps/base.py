"""A step: one kind of thing that we own on a host, reversible alone.

A step declares its things (machine/things.py); most of its methods are derived from them. Steps are pure but for the
shell in their declarations, and never talk to a host. `compare` looks at a probe's answer; `write` and `remove` return
parts of a transaction.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from provisioner import hooks
from provisioner.hooks import Hook
from provisioner.machine.facts import Facts, digest
from provisioner.machine.journal import Journal
from provisioner.machine.things import File, Folder, Thing, of_kind
from provisioner.machine.transaction import (
    MakeDir,
    Part,
    RemoveEmptyDir,
    RemoveFile,
    RemoveTree,
    SetMtime,
    WriteFile,
)
from provisioner.model import FrozenDict, HostSpec, Secret


class State(Enum):
    ABSENT = "absent"
    PRESENT = "present"
    DRIFTED = "drifted"
    FOREIGN = "foreign"


@dataclass(frozen=True, slots=True)
class Comparison:
    """The difference between a host and its wanted state; `why` is one line for people, and never holds a secret."""

    state: State
    why: str = ""

    @property
    def is_present(self) -> bool:
        return self.state is State.PRESENT


@dataclass(frozen=True, slots=True)
class Wanted:
    """All that a host should have: the module's files by name, their revision, and the secrets that are at hand.

    `version` is of the nixprov that runs. It is in no file, so that a new one alone changes no host. `token_versions`
    has the version of each runner's wanted token; `tokens` holds only those made in this run.
    """

    host: HostSpec
    files: Mapping[str, bytes]
    revision: str
    version: str
    token_versions: Mapping[str, str]
    tokens: Mapping[str, Secret] = FrozenDict()


class Step(ABC):
    """One kind of thing. Steps return data (ADR 0001), derived from declared things where that is enough (ADR 0028).

    A step of plain files needs `things` and `contents` only; others override methods. `feeds_system`: its changes need
    a switch, so `down` takes it back before its switch. Things that the running system itself uses go after it.
    """

    name: ClassVar[str]
    feeds_system: ClassVar[bool] = False

    @abstractmethod
    def things(self, hook: Hook) -> tuple[Thing, ...]:
        """All things that it owns or asks for on a host with this hook."""

    def contents(self, wanted: Wanted) -> Mapping[str, bytes]:
        """The wanted content of declared files, by their paths."""
        return {}

    def compare(self, wanted: Wanted, facts: Facts, journal: Journal) -> Comparison:
        """Raises HostError only for a host that we cannot use."""
        found = (_compared(file, content, facts) for file, content in self._meant(wanted, facts))
        return next((one for one in found if not one.is_present), Comparison(State.PRESENT))

    def write(self, wanted: Wanted, facts: Facts, journal: Journal) -> tuple[Part, ...]:
        """Raises HookRefused."""
        files = [
            WriteFile(file.path, content, file.mode, file.owner, expect=_digest(file, facts))
            for file, content in self._meant(wanted, facts)
            if not _compared(file, content, facts).is_present
        ]
        folders = of_kind(self.things(hooks.choose(facts)), Folder) if files else ()
        return (*(MakeDir(folder.path, folder.mode) for folder in folders), *files)

    def remains(self, facts: Facts, journal: Journal) -> tuple[str, ...]:
        """The things of ours on the host, in words; empty when `remove` has nothing to do."""
        things = self.things(hooks.installed(journal))
        files = [file.path for file in of_kind(things, File) if facts.file(file.record, file.path)]
        folders = of_kind(things, Folder)
        return (*files, *(one.path for one in folders if one.record and facts.file(one.record, one.path)))

    def remove(self, facts: Facts, journal: Journal) -> tuple[Part, ...]:
        """Raises HookRefused when it cannot be done safely."""
        hook = hooks.installed(journal)
        things = self.things(hook)
        files = [
            RemoveFile(file.path, expect=_digest(file, facts))
            for file in of_kind(things, File)
            if facts.file(file.record, file.path)
        ]
        folders = [
            RemoveTree(folder.path) if folder.is_whole else RemoveEmptyDir(folder.path)
            for folder in reversed(of_kind(things, Folder))
        ]
        is_users = any(part.path.startswith(f"{hook.folder}/") for part in (*files, *folders))
        return (*files, *folders, *(time_back(journal) if is_users else ()))

    def restore(self, before: Facts, now: Facts, journal: Journal) -> tuple[Part, ...]:
        """Back from `now` to `before`, for a run that failed."""
        things = self.things(hooks.installed(journal))
        files = of_kind(things, File)
        if files and not self.remains(before, journal):
            return self.remove(now, journal)
        parts = [part for file in files for part in _restored(file, before, now)]
        return (*(MakeDir(folder.path, folder.mode) for folder in of_kind(things, Folder) if parts), *parts)

    def _meant(self, wanted: Wanted, facts: Facts) -> list[tuple[File, bytes]]:
        contents = self.contents(wanted)
        files = of_kind(self.things(hooks.choose(facts)), File)
        return [(file, contents[file.path]) for file in files if file.path in contents]


def time_back(journal: Journal) -> tuple[SetMtime, ...]:
    """Restore the time of the user's folder from before us; it comes after parts that change files in it."""
    return (journal.hook.time_back(),) if journal.hook else ()


def _compared(file: File, content: bytes, facts: Facts) -> Comparison:
    found = facts.file(file.record, file.path)
    if found is None:
        return Comparison(State.ABSENT, f"{file.path} is not there")
    if found.content != content:
        return Comparison(State.DRIFTED, f"{file.path} is not as wanted")
    if (found.mode & 0o777, found.owner) != (file.mode, file.owner):
        return Comparison(State.DRIFTED, f"{file.path} is {found.mode:04o} {found.owner}")
    return Comparison(State.PRESENT)


def _digest(file: File, facts: Facts) -> str:
    found = facts.file(file.record, file.path)
    return digest(None if found is None else found.content)


def _restored(file: File, before: Facts, now: Facts) -> Iterator[Part]:
    old, then, since = before.file(file.record, file.path), _digest(file, before), _digest(file, now)
    if then == since:
        return
    if old is None or old.content is None:
        yield RemoveFile(file.path, expect=since)
    else:
        yield WriteFile(file.path, old.content, old.mode, old.owner, expect=since, mtime=old.mtime)
