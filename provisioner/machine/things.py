"""Our things on a host as declared values: files, folders, units, their remnants, and other answers of a probe.

A step or a hook declares its things. The probe's text and the files of `plan --diff` are derived from them, here and in
steps/. So are the places of staged leftovers, the foundation units, and the remnants that `down` must find gone. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Final, TypeAlias, TypeVar


@dataclass(frozen=True, slots=True)
class Record:
    """An answer that is no file: the output of `shell` becomes the record `name`."""

    name: str
    shell: str

    @property
    def probe(self) -> str:
        return f"{{ {self.shell}\n}} | say {self.name}"


@dataclass(frozen=True, slots=True)
class Seen:
    """A path that the probe reads; its step does the rest, as for the owner's configuration.nix and the journal."""

    record: str
    path: str
    is_secret: ClassVar[bool] = False

    @property
    def probe(self) -> str:
        return f"say_file {self.record} {self.path}"

    def record_of(self, path: str) -> str | None:
        return self.record if path == self.path else None


@dataclass(frozen=True, slots=True)
class File(Seen):
    """A file of ours with its name, its mode and its owner (`uid:gid`); its folder is declared beside it."""

    mode: int = 0o644
    owner: str = "0:0"


@dataclass(frozen=True, slots=True)
class Files:
    """Files of one folder, by names that only the host knows: NAME is the record `RECORD/NAME`.

    `is_secret`: the probe asks for mode and owner, never for the content.
    """

    record: str
    folder: str
    pattern: str = "*"
    is_secret: bool = False

    @property
    def probe(self) -> str:
        ask = f'say_file "{self.record}/${{entry##*/}}" "$entry"'
        if self.is_secret:
            ask = f'stat -c "%a %u %g %Y %F" "$entry" | say "{self.record}/${{entry##*/}}.stat"'
        return f'for entry in {self.folder}/{self.pattern}; do [ ! -e "$entry" ] || {ask}; done'

    def record_of(self, path: str) -> str | None:
        folder, _, name = path.rpartition("/")
        return f"{self.record}/{name}" if folder == self.folder else None


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of ours. With a `record` the probe asks for it; if it `is_whole`, it goes with all its content."""

    path: str
    mode: int = 0o755
    record: str = ""
    is_whole: bool = False

    @property
    def probe(self) -> str:
        return f"say_file {self.record} {self.path}" if self.record else ""


@dataclass(frozen=True, slots=True)
class Remnant:
    """A path that running units make; `down` must find it gone after them.

    `is_tree`: a folder that nothing else removes, so `down` removes it with its content.
    """

    path: str
    is_tree: bool = True


@dataclass(frozen=True, slots=True)
class Unit:
    """A systemd unit by its name, or names with `*`.

    `is_foundation`: every job needs it and no runner waits for it, so `up` rolls back after its failure. `is_asked`:
    the probe asks for its state, except that of a slice, which tells nothing.
    """

    name: str
    is_foundation: bool = False
    is_asked: bool = True


Thing: TypeAlias = Record | Seen | Files | Folder | Remnant | Unit
T = TypeVar("T")


def of_kind(things: Iterable[Thing], kind: type[T]) -> tuple[T, ...]:
    return tuple(thing for thing in things if isinstance(thing, kind))


def probes(things: Iterable[Thing]) -> Iterator[str]:
    """Shell text in the functions of facts.PROLOGUE, one per record, each once. The states of units are one record."""
    things = tuple(dict.fromkeys(things))
    for thing in things:
        if not isinstance(thing, Unit | Remnant) and thing.probe:
            yield thing.probe
    patterns = dict.fromkeys(_asked_by(unit.name) for unit in of_kind(things, Unit) if unit.is_asked)
    if patterns:
        yield _UNITS.probe.replace("@PATTERNS@", " ".join(f"'{pattern}'" for pattern in patterns))


# A pattern finds only units that systemd knows. A plain name has an answer even without a unit.
_UNITS: Final = Record("units", "systemctl show -p Id,ActiveState,SubState,NRestarts @PATTERNS@ 2>/dev/null")


def _asked_by(name: str) -> str:
    """One pattern for a service and its socket, timer or path."""
    return f"{name.rpartition('.')[0]}.*"


def asking(path: str, things: Iterable[Thing]) -> Seen | Files | None:
    """The thing that asks for the file at `path`, or None."""
    return next((thing for thing in things if isinstance(thing, Seen | Files) and thing.record_of(path)), None)


def folders(things: Iterable[Thing]) -> tuple[str, ...]:
    """All folders in which a transaction writes files, each once."""
    found: dict[str, None] = {}
    for thing in things:
        match thing:
            case Seen(path=path):
                found[path.rpartition("/")[0]] = None
            case Files(folder=path) | Folder(path=path):
                found[path] = None
            case _:
                pass
    return tuple(found)
