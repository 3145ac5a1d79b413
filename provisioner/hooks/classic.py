"""The classic way: one guarded line in the imports of the owner's configuration.nix, put in and taken out exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from typing_extensions import override

from provisioner.errors import HookRefused
from provisioner.hooks.base import Hook
from provisioner.machine.configuration import Configuration
from provisioner.machine.facts import Facts, FileFact, digest
from provisioner.machine.journal import HookRecord
from provisioner.machine.things import Folder, Record, Seen, Thing
from provisioner.machine.transaction import STATE_DIR, MakeDir, Part, WriteFile
from provisioner.nix import imports

_BACKUP: Final = Folder(f"{STATE_DIR}/backup", 0o700)
_TAKE_OUT: Final = "take it out by hand and run again"
_HINTS: Final = {imports.Presence.UNREADABLE: "nix-instantiate --parse on the host says where"}


@dataclass(frozen=True, slots=True)
class Classic(Hook):
    """Owns one line. The rest of the file is its owner's, and an unknown shape is refused, not guessed."""

    directory: str = "/etc/nixos"
    kind: ClassVar[str] = "classic"

    @property
    @override
    def configuration(self) -> Configuration:
        return Configuration(
            folder=self.directory,
            file=f"{self.directory}/configuration.nix",
            build=("nixos-rebuild", "build"),
            dry_build=("nixos-rebuild", "dry-build"),
            evaluated="import <nixpkgs/nixos> { }",
        )

    @property
    def path(self) -> str:
        return self.configuration.file

    @property
    @override
    def module(self) -> str:
        return f"{self.folder}/nixprov"

    @property
    @override
    def by_hand(self) -> str:
        return f"have in its imports: {imports.HOOK.replace('./nixprov', self.module)}"

    @override
    def things(self) -> tuple[Thing, ...]:
        # Root may write a file of mode 0444. A file that even root may not write is on a read-only disk, or immutable
        # (chattr +i).
        protected = f"[ ! -e {self.path} ] || [ -w {self.path} ] || echo yes"
        return (
            Seen("configuration", self.path),
            Record("configuration-protected", protected),
            Record("etc-nixos", f"readlink -f {self.folder} 2>/dev/null"),
            Record("etc-nixos-mtime", f"stat -L -c %Y {self.folder} 2>/dev/null"),
            Record("flake", f"[ ! -e {self.folder}/flake.nix ] || echo yes"),
            _BACKUP,
        )

    @override
    def real_folder(self, facts: Facts) -> str:
        return facts.text("etc-nixos") or self.folder

    @override
    def folder_time(self, facts: Facts) -> int | None:
        time = facts.text("etc-nixos-mtime")
        return int(time) if time.isdigit() else None

    @override
    def detect(self, facts: Facts) -> bool:
        return not facts.text("flake") and self._file(facts) is not None

    @override
    def refusal(self, facts: Facts) -> HookRefused:
        if not facts.text("flake"):
            return self._refused(facts, f"{self.path} is not there", "nixprov hooks into a classic configuration.nix")
        return self._refused(
            facts,
            f"{self.folder}/flake.nix is there, and nixprov never edits a flake",
            "nixprov needs a classic configuration.nix so far: take the host out of the inventory",
        )

    @override
    def missing(self, facts: Facts) -> str:
        file = self._require(facts)
        match imports.find(file.content or b"", self.folder):
            case imports.Presence.PRESENT | imports.Presence.ELSEWHERE:
                if self.module.encode() not in (file.content or b""):
                    self._require_beside_module(facts, file)
                # Its place is the user's choice; the built system is checked for the module before activation.
                return ""
            case imports.Presence.ABSENT:
                self._edited(facts, self._editable(facts))
                self._require_writable(facts)
                return f"{self.path} does not import ./nixprov"
            case other:
                raise self._refused(facts, f"{self.path}: {other.value}", _HINTS.get(other, _TAKE_OUT))

    @override
    def is_in(self, facts: Facts) -> bool:
        present = (imports.Presence.PRESENT, imports.Presence.ELSEWHERE)
        return self._presence(self._file(facts)) in present

    @override
    def record(self, facts: Facts) -> HookRecord:
        file = self._require(facts)
        time = self.folder_time(facts)
        return HookRecord(
            path=self.path,
            mode=file.mode,
            owner=file.owner,
            mtime=file.mtime,
            directory_mtime=file.mtime if time is None else time,
            sha256_before=file.sha256,
            backup=f"{_BACKUP.path}/configuration.nix.{file.sha256[:12]}",
            kind=self.kind,
        )

    @override
    def put_in(self, facts: Facts) -> tuple[Part, ...]:
        if self.remains(facts):
            return ()
        file = self._editable(facts)
        return (
            MakeDir(_BACKUP.path, _BACKUP.mode),
            WriteFile(self.record(facts).backup, file.content or b"", 0o600),
            WriteFile(self.path, self._edited(facts, file), file.mode, file.owner, expect=file.sha256),
        )

    @override
    def remains(self, facts: Facts) -> tuple[str, ...]:
        is_there = self._presence(self._file(facts)) is not imports.Presence.ABSENT
        return (f"our line in {self.path}",) if is_there else ()

    @override
    def take_out(self, facts: Facts, before: HookRecord | None) -> tuple[Part, ...]:
        file = self._file(facts)
        text = self._without(facts, file)
        if file is None or text is None:
            return ()
        if file.real.startswith("/nix/store/"):
            hint = f"take out where it is made: {imports.HOOK}"
            raise self._refused(facts, f"{self.path} is a link into the store", hint)
        self._require_writable(facts)
        is_as_it_was = before is not None and digest(text) == before.sha256_before
        mtime = before.mtime if before and is_as_it_was else None
        time = (before.time_back(),) if before and is_as_it_was else ()
        return (WriteFile(file.real, text, file.mode, file.owner, expect=file.sha256, mtime=mtime), *time)

    @override
    def give_back(self, before: Facts, now: Facts, record: HookRecord | None) -> tuple[Part, ...]:
        if not self.remains(before):
            return self.take_out(now, record)
        old, new = self._file(before), self._file(now)
        if old is None or new is None or self._without(before, old) != new.content:
            # The line is still there, or a person has edited the file since: then `up` puts the line in again.
            return ()
        return (WriteFile(old.real, old.content or b"", old.mode, old.owner, expect=new.sha256, mtime=old.mtime),)

    @override
    def is_edited_since(self, facts: Facts, before: HookRecord) -> bool:
        file = self._file(facts)
        return digest(file.content if file else None) != before.sha256_before

    @override
    def is_our_edit(self, facts: Facts, before: HookRecord | None) -> bool:
        file = self._file(facts)
        is_folders_own = file is not None and file.real == self._real_path(facts)
        return is_folders_own and before is not None and self.is_edited_since(facts, before)

    def _file(self, facts: Facts) -> FileFact | None:
        file = facts.file("configuration", self.path)
        return file if file and file.content is not None else None

    def _presence(self, file: FileFact | None) -> imports.Presence:
        return imports.find(file.content or b"", self.folder) if file else imports.Presence.ABSENT

    def _require(self, facts: Facts) -> FileFact:
        """The owner's file as nixos-rebuild reads it. Raises HookRefused for a flake, and when there is none."""
        file = self._file(facts)
        if file is None or not self.detect(facts):
            raise self.refusal(facts)
        return file

    def _editable(self, facts: Facts) -> FileFact:
        """As `_require`, for a file in which ./nixprov means our module. Raises HookRefused."""
        file = self._require(facts)
        self._require_beside_module(facts, file)
        return file

    def _real_path(self, facts: Facts) -> str:
        return f"{self.real_folder(facts)}/configuration.nix"

    def _require_beside_module(self, facts: Facts, file: FileFact) -> None:
        """Nix looks up ./nixprov beside the file behind all links. Raises HookRefused where that is another folder."""
        if file.real != self._real_path(facts):
            why = f"{self.path} is a link to {file.real}, where imports of ./nixprov would be looked up"
            raise self._refused(facts, why, self.by_hand)

    def _require_writable(self, facts: Facts) -> None:
        """Raises HookRefused. machine/preflight.py reports a read-only disk in other words."""
        if facts.text("configuration-protected") and self.folder not in facts.text("read-only").splitlines():
            hint = f"chattr -i {self.path} (lsattr shows it), then run again"
            raise self._refused(facts, f"{self.path} is write-protected, even for root", hint)

    def _edited(self, facts: Facts, file: FileFact) -> bytes:
        try:
            return imports.add(file.content or b"", self.folder).text
        except imports.Refused as refusal:
            why = f"{self.path}: {refusal.reason}"
            raise self._refused(facts, why, f"add by hand: {refusal.line}") from refusal

    def _without(self, facts: Facts, file: FileFact | None) -> bytes | None:
        """The file without our line. Raises HookRefused: an import of a missing module would stop all rebuilding."""
        try:
            return imports.remove(file.content or b"", self.folder) if file else None
        except imports.Refused as refusal:
            why = f"{self.path}: {refusal.reason}"
            raise self._refused(facts, why, f"take out by hand: {refusal.line}") from refusal

    def _refused(self, facts: Facts, why: str, hint: str) -> HookRefused:
        return HookRefused(facts.host, why, hint=hint)
