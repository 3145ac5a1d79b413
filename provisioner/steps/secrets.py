"""The runners' tokens: one file each, only for root, read by systemd alone for the unit."""

from __future__ import annotations

from typing import Final

from typing_extensions import override

from provisioner.hooks import Hook
from provisioner.machine.facts import Facts, FileFact
from provisioner.machine.journal import Journal
from provisioner.machine.things import Files, Folder, Thing
from provisioner.machine.transaction import STATE_DIR, MakeDir, Part, RemoveFile, Shell, WriteFile
from provisioner.steps.base import Comparison, State, Step, Wanted

DIR: Final = f"{STATE_DIR}/secrets"


class Secrets(Step):
    """Contents are never probed: the journal, written with each file, has the version of its token."""

    # Rollbacks keep it too: the token before this one may have died when this one was made.
    name = "secrets"

    @override
    def things(self, hook: Hook) -> tuple[Thing, ...]:
        return (Folder(DIR, 0o700, is_whole=True), Files("secrets", DIR, "*.token", is_secret=True))

    @override
    def compare(self, wanted: Wanted, facts: Facts, journal: Journal) -> Comparison:
        for name, version in wanted.token_versions.items():
            file = _file(facts, name)
            if file is None:
                return Comparison(State.ABSENT, f"the token of runner {name} is not on the host")
            if not _is_private(file):
                return Comparison(State.DRIFTED, f"the token file of runner {name} is {file.mode:04o} {file.owner}")
            record = journal.runners.get(name)
            if record is None or record.token_version != version:
                return Comparison(State.DRIFTED, f"runner {name} has another token now")
        surplus = sorted(_names(facts) - wanted.token_versions.keys())
        return (
            Comparison(State.DRIFTED, f"token of former runner {surplus[0]}") if surplus else Comparison(State.PRESENT)
        )

    @override
    def write(self, wanted: Wanted, facts: Facts, journal: Journal) -> tuple[Part, ...]:
        new = [WriteFile(f"{DIR}/{name}.token", token, 0o600) for name, token in wanted.tokens.items()]
        surplus = [RemoveFile(f"{DIR}/{name}.token") for name in sorted(_names(facts) - wanted.token_versions.keys())]
        known = wanted.token_versions.keys() - wanted.tokens.keys()
        open_ = [name for name in sorted(known) if (file := _file(facts, name)) and not _is_private(file)]
        parts: tuple[Part, ...] = (*new, *surplus, *(Shell(make_private(f"{DIR}/{name}.token")) for name in open_))
        return (MakeDir(DIR, 0o700), *parts) if parts else ()

    @override
    def remains(self, facts: Facts, journal: Journal) -> tuple[str, ...]:
        return tuple(f"{DIR}/{name}.token" for name in sorted(_names(facts)))


def make_private(path: str) -> str:
    """Shell for a token that stays: its content is never read, so the file is not written anew."""
    return f"chown 0:0 {path} && chmod 0600 {path}"


def has_token(facts: Facts, runner: str) -> bool:
    return _file(facts, runner) is not None


def _is_private(file: FileFact) -> bool:
    return (file.mode & 0o777, file.owner) == (0o600, "0:0")


def _names(facts: Facts) -> set[str]:
    return {
        record.removeprefix("secrets/").removesuffix(".token.stat")
        for record in facts.records
        if record.startswith("secrets/")
    }


def _file(facts: Facts, runner: str) -> FileFact | None:
    return facts.file(f"secrets/{runner}.token", f"{DIR}/{runner}.token")
