"""What the program sends is read back into values, and what is not known is refused."""

from __future__ import annotations

import pytest

from provisioner import steps
from provisioner.hooks.classic import Classic
from provisioner.machine import lock, origin, switch
from provisioner.machine.journal import Journal
from provisioner.machine.transaction import (
    ABSENT,
    JOURNAL,
    KeepCopy,
    MakeDir,
    RemoveEmptyDir,
    RemoveFile,
    RemoveTree,
    SetMtime,
    Shell,
    Transaction,
    WriteFile,
)
from provisioner.model import Secret
from provisioner.steps import STEPS
from provisioner.verbs.up import _RESET_FAILED
from tests.simulator import reader
from tests.simulator.reader import Abort, Active, Follow, Origin, Probe, Transact, UnknownScript
from tests.unit.hosts import converged, wanted

DIGEST = "0" * 64
PARTS = (
    MakeDir("/etc/nixos/nixprov"),
    KeepCopy("/etc/nixos/nixprov/a b.nix", "/etc/nixos/nixprov/a b.nix.edited"),
    WriteFile("/etc/nixos/nixprov/a b.nix", b"it's\n", expect=DIGEST, mtime=12),
    WriteFile("/var/lib/nixprov/secrets/default.token", Secret("glrt-x"), 0o600),
    RemoveFile("/etc/nixos/nixprov/old.nix", expect=DIGEST),
    WriteFile("/etc/nixos/nixprov/new.nix", b"", owner="1:2", expect=ABSENT),
    RemoveFile("/etc/nixos/nixprov/any"),
    SetMtime("/etc/nixos", 5),
    RemoveEmptyDir("/etc/nixos/nixprov"),
    SetMtime("/etc/nixos", 5),
    RemoveTree("/var/lib/nixprov/secrets"),
    Shell(_RESET_FAILED),
    switch.start("switch", "abc", confirm_s=180),
)


@pytest.mark.parametrize("journal", [None, b"{}\n"])
@pytest.mark.parametrize("guard", ["", switch.confirm((), 0), switch.confirm(("nixprov-runner-a.service", "b c"), 30)])
@pytest.mark.parametrize("first", ["", lock.RELEASE, lock.take("run-1")])
def test_a_transaction_is_read_back(journal: bytes | None, guard: str, first: str) -> None:
    sent = Transaction(PARTS, DIGEST, journal, guard, first, 15)
    read = reader.read(sent.script())
    assert isinstance(read, Transact)
    assert read.transaction.script() == sent.script()
    assert [part for part in read.transaction.parts if not isinstance(part, MakeDir)] == list(PARTS[1:])
    assert [said.name for said in read.shells.values()] == ["reset failed", "start"]
    assert (read.guard is not None, read.first is not None) == (bool(guard), bool(first))


def test_what_steps_write_and_remove_is_read_back() -> None:
    facts, journal = converged()
    removed = [part for step in reversed(STEPS) for part in step.remove(facts, journal)]
    written = [part for step in STEPS for part in step.write(wanted(), facts, Journal())]
    for parts in (written, removed, [*switch.push(b"back"), *written], [RemoveFile(JOURNAL)]):
        content = None if RemoveFile(JOURNAL) in parts else b"{}"
        sent = Transaction(parts, ABSENT, content, first=lock.take("r")).script()
        assert isinstance(reader.read(sent), Transact)


def test_questions_are_read_back() -> None:
    probe = steps.probe()
    assert reader.read(probe) == Probe(probe.decode(), waits=False)
    assert isinstance(reader.read(lock.WAIT.encode() + probe), Probe)
    for cursor in ("", "s=1;i=2"):
        assert reader.read(lock.keep("r-1").encode() + switch.follow(cursor)) == Follow("r-1", cursor)
    edits = {"/etc/nixos/nixprov/a.nix": None, "/etc/nixos/configuration.nix": b"{ }\n", "/etc/nixos/empty": b""}
    assert reader.read(origin.script("r-1", Classic().configuration, edits)) == Origin("r-1", edits)
    prologue = transaction_prologue()
    assert reader.read(prologue + switch.abort()) == Abort()
    assert reader.read(prologue + switch.active(("a.service",), 1).encode()) == Active(("a.service",), 1)


def transaction_prologue() -> bytes:
    return b'export LC_ALL=C PATH="/run/wrappers/bin:/run/current-system/sw/bin:$PATH"\nfail() { x; }\n'


def _without_sync(script: bytes) -> bytes:
    lines = script.splitlines(keepends=True)
    return b"".join(line for line in lines if not line.startswith(b"sync "))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda script: script + b"echo more\n",
        lambda script: script.replace(b"chmod", b"chgrp", 1),
        lambda script: script.replace(b" 0600 0:0", b" 0600 0:0 --force", 1),
        _without_sync,
        lambda script: b"set -eu\n" + script,
    ],
    ids=["a line more", "another prologue", "another argument", "a flush less", "another beginning"],
)
def test_what_is_not_known_is_refused(spoil: object) -> None:
    assert callable(spoil)
    with pytest.raises(UnknownScript):
        reader.read(spoil(Transaction(PARTS, DIGEST, b"{}").script()))


def test_a_shell_that_nobody_has_taught_is_refused() -> None:
    with pytest.raises(UnknownScript, match="rm -rf /"):
        reader.read(Transaction([Shell("rm -rf /")], ABSENT).script())
