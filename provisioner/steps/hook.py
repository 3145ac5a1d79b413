"""The hook: one guarded line in the imports of the user's configuration.nix, put in and taken out byte for byte."""

from __future__ import annotations

from typing import Final

from provisioner.errors import HookRefused
from provisioner.machine.facts import Facts, FileFact, digest
from provisioner.machine.journal import HookRecord, Journal
from provisioner.machine.transaction import STATE_DIR, MakeDir, Part, SetMtime, WriteFile
from provisioner.nix import imports
from provisioner.steps.base import Comparison, State, Step, Wanted

PATH: Final = "/etc/nixos/configuration.nix"

_ABSOLUTE: Final = b"/etc/nixos/nixprov"
ABSOLUTE_LINE: Final = imports.HOOK.replace("./nixprov", _ABSOLUTE.decode())
_TAKE_OUT: Final = "take it out by hand and run again"
_HINTS: Final = {imports.Presence.UNREADABLE: "nix-instantiate --parse on the host says where"}


class Hook(Step):
    """Owns one line. Everything else in the file is the user's, and a shape not understood is refused, not guessed."""

    name = "hook"
    feeds_system = True

    def probe(self) -> str:
        # Root may write what is 0444; what even root may not is on a read-only disk, or immutable (chattr +i).
        return (
            f"say_file configuration {PATH}\nreadlink -f /etc/nixos 2>/dev/null | say etc-nixos\n"
            f"[ ! -e {PATH} ] || [ -w {PATH} ] || echo yes | say configuration-protected\n"
        )

    def compare(self, wanted: Wanted, facts: Facts, journal: Journal) -> Comparison:
        file = _classic(facts)
        match imports.find(file.content or b""):
            case imports.Presence.PRESENT | imports.Presence.ELSEWHERE:
                if _ABSOLUTE not in (file.content or b""):
                    _require_beside_module(facts, file)
                # Where it stands is the user's business; that the built system has it is checked before activation.
                return Comparison(State.PRESENT)
            case imports.Presence.ABSENT:
                _edit(facts.host, _editable(facts).content or b"")
                _require_writable(facts)
                return Comparison(State.ABSENT, f"{PATH} does not import ./nixprov")
            case other:
                raise HookRefused(facts.host, f"{PATH}: {other.value}", hint=_HINTS.get(other, _TAKE_OUT))

    def write(self, wanted: Wanted, facts: Facts, journal: Journal) -> tuple[Part, ...]:
        if self.remains(facts, journal):
            return ()
        file = _editable(facts)
        content = file.content or b""
        text = _edit(facts.host, content)
        backup = self.record(facts).backup
        return (
            MakeDir(f"{STATE_DIR}/backup", 0o700),
            WriteFile(backup, content, 0o600),
            WriteFile(PATH, text, file.mode, file.owner, expect=file.sha256),
        )

    def record(self, facts: Facts) -> HookRecord:
        """What the journal must remember before the first edit."""
        file = _classic(facts)
        time = facts.text("etc-nixos-mtime")
        return HookRecord(
            path=PATH,
            mode=file.mode,
            owner=file.owner,
            mtime=file.mtime,
            directory_mtime=int(time) if time.isdigit() else file.mtime,
            sha256_before=file.sha256,
            backup=f"{STATE_DIR}/backup/configuration.nix.{file.sha256[:12]}",
        )

    def remains(self, facts: Facts, journal: Journal) -> tuple[str, ...]:
        file = facts.file("configuration", PATH)
        there = file is not None and imports.find(file.content or b"") is not imports.Presence.ABSENT
        return (f"our line in {PATH}",) if there else ()

    def remove(self, facts: Facts, journal: Journal) -> tuple[Part, ...]:
        file = facts.file("configuration", PATH)
        text = _without(facts.host, file.content or b"") if file else None
        if file is None or text is None:
            return ()
        if file.real.startswith("/nix/store/"):
            raise HookRefused(
                facts.host, f"{PATH} is a link into the store", hint=f"take out where it is made: {imports.HOOK}"
            )
        _require_writable(facts)
        before = journal.hook
        as_it_was = before is not None and digest(text) == before.sha256_before
        mtime = before.mtime if before and as_it_was else None
        time = [SetMtime(PATH.rpartition("/")[0], before.directory_mtime)] if before and as_it_was else []
        return (WriteFile(file.real, text, file.mode, file.owner, expect=file.sha256, mtime=mtime), *time)

    def restore(self, before: Facts, now: Facts, journal: Journal) -> tuple[Part, ...]:
        if not self.remains(before, journal):
            return self.remove(now, journal)
        old, new = before.file("configuration", PATH), now.file("configuration", PATH)
        if old is None or new is None or _without(before.host, old.content or b"") != new.content:
            # There still, or a person was at the file since: then `up` puts the line in again.
            return ()
        return (WriteFile(old.real, old.content or b"", old.mode, old.owner, expect=new.sha256, mtime=old.mtime),)


def _classic(facts: Facts) -> FileFact:
    """The user's file as nixos-rebuild reads it. Raises HookRefused for a flake, and when there is none."""
    if facts.text("flake"):
        raise HookRefused(
            facts.host,
            "/etc/nixos/flake.nix is there, and nixprov never edits a flake",
            hint="nixprov needs a classic configuration.nix so far: take the host out of the inventory",
        )
    file = facts.file("configuration", PATH)
    if file is None or file.content is None:
        raise HookRefused(facts.host, f"{PATH} is not there", hint="nixprov hooks into a classic configuration.nix")
    return file


def _editable(facts: Facts) -> FileFact:
    """As `_classic`, for a file in which ./nixprov means /etc/nixos/nixprov. Raises HookRefused."""
    file = _classic(facts)
    _require_beside_module(facts, file)
    return file


def _require_beside_module(facts: Facts, file: FileFact) -> None:
    """Nix looks up ./nixprov beside the file behind all links. Raises HookRefused where that is another folder."""
    if file.real != f"{facts.text('etc-nixos')}/configuration.nix":
        raise HookRefused(
            facts.host,
            f"{PATH} is a link to {file.real}, where imports of ./nixprov would be looked up",
            hint=f"have in its imports: {ABSOLUTE_LINE}",
        )


def _require_writable(facts: Facts) -> None:
    """Raises HookRefused. A read-only disk is said by other words (machine/preflight.py)."""
    if facts.text("configuration-protected") and "/etc/nixos" not in facts.text("read-only").splitlines():
        raise HookRefused(
            facts.host,
            f"{PATH} is write-protected, even for root",
            hint=f"chattr -i {PATH} (lsattr shows it), then run again",
        )


def _edit(host: str, content: bytes) -> bytes:
    try:
        return imports.add(content).text
    except imports.Refused as refusal:
        raise HookRefused(host, f"{PATH}: {refusal.reason}", hint=f"add by hand: {refusal.line}") from refusal


def _without(host: str, content: bytes) -> bytes | None:
    """Taking the module away while the file still imports it would stop all rebuilding, so this says no first."""
    try:
        return imports.remove(content)
    except imports.Refused as refusal:
        raise HookRefused(host, f"{PATH}: {refusal.reason}", hint=f"take out by hand: {refusal.line}") from refusal
