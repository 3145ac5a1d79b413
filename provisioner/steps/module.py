"""The module on the host: code from templates/, settings as data, the units, and the files that units make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from typing_extensions import override

from provisioner import hooks, version
from provisioner.hooks import Hook
from provisioner.machine.facts import Facts, FileFact, digest
from provisioner.machine.journal import Journal
from provisioner.machine.things import Files, Folder, Remnant, Thing, Unit
from provisioner.machine.transaction import (
    STAGED_SUFFIX,
    KeepCopy,
    MakeDir,
    Part,
    RemoveEmptyDir,
    RemoveFile,
    WriteFile,
)
from provisioner.nix.header import Header
from provisioner.steps.base import Comparison, State, Step, Wanted, time_back
from provisioner.steps.wanted import SETTINGS

MODE: Final = 0o644
KEPT: Final = ".edited-"

# Of templates/; each depends on an option.
UNITS: Final = (
    Unit("nixprov-runner-*.service"),
    Unit("nixprov-image.service", is_foundation=True),
    Unit("nixprov-podman.socket", is_foundation=True),
    Unit("nixprov-podman.service"),
    Unit("nixprov-network.service", is_foundation=True),
    Unit("nixprov-docker-network.service", is_foundation=True),
    Unit("nixprov-nix-daemon.socket", is_foundation=True),
    Unit("nixprov-nix-daemon.service"),
    Unit("nixprov-nix-jobs.socket", is_foundation=True),
    Unit("nixprov-nix-shared.socket", is_foundation=True),
    Unit("nixprov-nix-filter.service"),
    Unit("nixprov-counters.socket", is_foundation=True),
    Unit("nixprov-counters.service"),
    Unit("nixprov-collect.service"),
    Unit("nixprov-collect.timer"),
    Unit("nixprov.slice", is_asked=False),
)
# The system brings the units that make these, so they go after it.
REMNANTS: Final = (
    Remnant("/var/lib/nixprov-runner"),
    Remnant("/var/lib/nixprov-containers"),
    Remnant("/var/lib/nixprov-counters"),
    Remnant("/var/cache/nixprov-nix-daemon"),
    Remnant("/run/nixprov"),
    Remnant("/nix/var/nix/gcroots/nixprov"),
    Remnant("/nix/var/nix/nixprov-builds"),
)


class ModuleFiles(Step):
    """Only a folder that is somebody's is foreign. Files of ours that a person edited are drift, and reported so.

    Only bodies are compared, so a host keeps the headers of an older nixprov until another change.
    """

    name = "module"
    feeds_system = True

    @override
    def things(self, hook: Hook) -> tuple[Thing, ...]:
        return (Folder(hook.module, record="module-dir"), Files("module", hook.module), *UNITS, *REMNANTS)

    @override
    def compare(self, wanted: Wanted, facts: Facts, journal: Journal) -> Comparison:
        hook = hooks.choose(facts)
        found = _found(facts, hook)
        if not found:
            return Comparison(State.ABSENT, f"{hook.module} is not there")
        if not any(_header(file) for file in found.values()):
            return Comparison(State.FOREIGN, f"{hook.module} is there and is not ours")
        for name, content in wanted.files.items():
            why = _difference(name, content, found.get(name))
            if why:
                return Comparison(State.DRIFTED, why)
        surplus = sorted(name for name in _ours(found) if name not in wanted.files)
        return (
            Comparison(State.DRIFTED, f"{surplus[0]} is of another version") if surplus else Comparison(State.PRESENT)
        )

    @override
    def write(self, wanted: Wanted, facts: Facts, journal: Journal) -> tuple[Part, ...]:
        hook = hooks.choose(facts)
        found = _found(facts, hook)
        changed = [
            WriteFile(f"{hook.module}/{name}", content, MODE, expect=_digest(found.get(name)))
            for name, content in wanted.files.items()
            if _difference(name, content, found.get(name))
        ]
        surplus = [
            RemoveFile(file.path, expect=file.sha256) for name, file in _ours(found).items() if name not in wanted.files
        ]
        return (MakeDir(hook.module), *_copies_of(found, [*changed, *surplus]), *changed, *surplus)

    @override
    def remains(self, facts: Facts, journal: Journal) -> tuple[str, ...]:
        return tuple(file.path for file in _ours(_found(facts, hooks.installed(journal))).values())

    @override
    def remove(self, facts: Facts, journal: Journal) -> tuple[Part, ...]:
        """Our files go; a person's own files beside them stay, and then so does the folder."""
        hook = hooks.installed(journal)
        if facts.file("module-dir", hook.module) is None:
            return ()
        found = _found(facts, hook)
        files = [RemoveFile(file.path, expect=file.sha256) for file in _ours(found).values()]
        return (*_copies_of(found, files), *files, RemoveEmptyDir(hook.module), *time_back(journal))

    @override
    def restore(self, before: Facts, now: Facts, journal: Journal) -> tuple[Part, ...]:
        hook = hooks.installed(journal)
        old, new = _found(before, hook), _found(now, hook)
        if not old:
            return self.remove(now, journal)
        back = [
            WriteFile(file.path, file.content, file.mode, file.owner, expect=_digest(new.get(name)), mtime=file.mtime)
            for name, file in old.items()
            if file.content is not None
            and _digest(new.get(name)) != file.sha256
            and not _is_theirs(file, new.get(name))
        ]
        surplus = [RemoveFile(file.path, expect=file.sha256) for name, file in _ours(new).items() if name not in old]
        folder = [MakeDir(hook.module)] if back else []
        return (*folder, *_copies_of(new, [*back, *surplus]), *back, *surplus)


def has_bodies(wanted: Wanted, facts: Facts) -> bool:
    """Whether the host's files have been written with the bodies of `wanted`, edited since or not."""
    found = {
        name: header.digest for name, file in _found(facts, hooks.choose(facts)).items() if (header := _header(file))
    }
    meant = {name: header.digest for name, content in wanted.files.items() if (header := Header.read(content))}
    return found == meant


def written_by(facts: Facts, journal: Journal) -> str:
    """The version of the nixprov that wrote the host's files; empty when unknown, or without files."""
    found = _ours(_found(facts, hooks.installed(journal))).values()
    named = [header.version for file in found if (header := _header(file)) and header.version]
    return journal.nixprov or max(named, key=version.order, default="")


def newer_writer(wanted: Wanted, facts: Facts, journal: Journal) -> str:
    """The version of a newer nixprov that installed a module other than `wanted`; empty when there is none."""
    writer = written_by(facts, journal)
    if not version.is_newer(writer, wanted.version):
        return ""
    if _ours(_found(facts, hooks.installed(journal))):
        return "" if has_bodies(wanted, facts) else writer
    # The files were deleted by hand; a system built from them may still be there.
    return writer if {facts.revision, facts.revision_at_boot} - {"", wanted.revision} else ""


def is_as_built(facts: Facts) -> bool:
    """Whether the files of ours are those that the running system was built with."""
    found = _ours(_found(facts, hooks.choose(facts)))
    settings = found.get(SETTINGS)
    headers = [_header(file) for file in found.values()]
    # By the digest alone: an older nixprov wrote the settings in another form.
    is_its_own = bool(facts.revision) and settings is not None and facts.revision.encode() in (settings.content or b"")
    return is_its_own and all(header and header.is_intact for header in headers)


def _copies_of(found: dict[str, FileFact], parts: Sequence[WriteFile | RemoveFile]) -> list[KeepCopy]:
    """Copies of a person's edits in files of ours: they stay beside the file, and in the way of nothing."""
    touched = {part.path for part in parts}
    files = [file for file in found.values() if file.path in touched and file.content is not None]
    edited = [file for file in files if not ((header := _header(file)) and header.is_intact)]
    return [KeepCopy(file.path, f"{file.path}{KEPT}{file.sha256[:8]}") for file in edited]


def _is_theirs(old: FileFact, new: FileFact | None) -> bool:
    """Whether it is a person's own file beside ours, untouched by us."""
    return not _header(old) and not (new and _header(new))


def _found(facts: Facts, hook: Hook) -> dict[str, FileFact]:
    names = [record[len("module/") : -len(".stat")] for record in facts.records if record.startswith("module/")]
    ours = [name for name in names if name and KEPT not in name and not name.endswith(STAGED_SUFFIX)]
    files = {name: facts.file(f"module/{name}", f"{hook.module}/{name}") for name in ours}
    return {name: file for name, file in files.items() if file is not None}


def _ours(found: dict[str, FileFact]) -> dict[str, FileFact]:
    return {name: file for name, file in found.items() if _header(file)}


def _header(file: FileFact) -> Header | None:
    return Header.read(file.content or b"")


def _difference(name: str, content: bytes, found: FileFact | None) -> str:
    if found is None:
        return f"{name} is missing"
    ours = _header(found)
    if not ours or ours != Header.read(content):
        return f"{name} was edited by hand" if ours and not ours.is_intact else f"{name} is not as wanted"
    return "" if found.mode & 0o777 == MODE else f"{name} has mode {found.mode:04o}"


def _digest(found: FileFact | None) -> str:
    return digest(None if found is None else found.content)
