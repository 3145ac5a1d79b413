"""The simulated host is no kinder than the real shell: the same transactions leave the same files, modes and statuses.

Both start from the same folder. What a transaction does to units and generations is held against real machines by
tests/lab; here it is what every transaction does to files, and what each refusal and each death leaves of them.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from provisioner.machine import lock
from provisioner.machine.facts import PROLOGUE, Facts, digest
from provisioner.machine.journal import Journal
from provisioner.machine.things import probes
from provisioner.machine.transaction import (
    ABSENT,
    LOCKED_STATUS,
    STALE_STATUS,
    STATE_DIR,
    UNCHANGED_STATUS,
    KeepCopy,
    MakeDir,
    Part,
    RemoveEmptyDir,
    RemoveFile,
    RemoveTree,
    SetMtime,
    Shell,
    Transaction,
    WriteFile,
)
from provisioner.model import Secret
from provisioner.steps import STEPS, things
from provisioner.steps.secrets import make_private
from tests.contract.scratch import ScratchHost
from tests.simulator import probe
from tests.simulator.clock import Clock
from tests.simulator.host import Host
from tests.simulator.transacting import KILLED
from tests.unit.hosts import wanted

PLACES = ("/etc/nixos", STATE_DIR)
OLD = 1_000_000
LONG_AGO = 100_000_000
USERS = "/etc/nixos/configuration.nix"
DIR = "/etc/nixos/nixprov"


@dataclass
class Pair:
    """One host twice: below a folder with a real shell, and simulated."""

    real: ScratchHost
    simulated: Host

    def transact(self, transaction: Transaction) -> int:
        """Do it on both, and require that both end alike; the status."""
        script = transaction.script()
        real = self.real.shell(script)
        self.simulated.kill_at = None
        if transaction.crash_at:
            self.simulated.kill_at = 0 if transaction.crash_at == "staged" else int(transaction.crash_at)
            script = replace(transaction, crash_at="").script()
        simulated = self.simulated.shell(script)
        status = 128 - real.returncode if real.returncode < 0 else real.returncode
        said = real.stderr.decode().replace(str(self.real.folder), "")
        assert (simulated.status, last(simulated.stderr)) == (status, last(said))
        assert self.files(self.simulated.disk.snapshot) == self.files(self.real_snapshot)
        assert self.answer(self.simulated) == self.facts(self.real.probe())
        return status

    def real_snapshot(self, folder: str) -> dict[str, tuple[bytes | None, int, str, int]]:
        here = Path(f"{self.real.folder}{folder}")
        paths = [here, *here.rglob("*")] if here.exists() else []
        stats = [(str(path).removeprefix(str(self.real.folder)), path, path.stat()) for path in paths]
        return {
            name: (path.read_bytes() if path.is_file() else None, stat.st_mode & 0o7777, "0:0", int(stat.st_mtime))
            for name, path, stat in stats
        }

    def files(self, snapshot: Callable[[str], dict[str, tuple[bytes | None, int, str, int]]]) -> dict[str, object]:
        """By path: content, mode, and the time if somebody has set it. A lock names the process of a connection."""
        return {
            path: (
                content if path != lock.LOCK else (content or b"").split()[:1],
                mode,
                mtime if mtime < LONG_AGO else "now",
            )
            for folder in PLACES
            for path, (content, mode, _, mtime) in snapshot(folder).items()
        }

    def answer(self, host: Host) -> dict[str, bytes]:
        script = "\n".join([PROLOGUE, *probes(things()), "echo yes | say probe-end\n"])
        return self.facts(Facts.parse("host1", probe.answer(host, script)))

    def facts(self, facts: Facts) -> dict[str, bytes]:
        """Without the times that a clock made, and by lines without their ends."""
        return {
            name: b" ".join(word for word in data.split() if not (word.isdigit() and int(word) > LONG_AGO))
            for name, data in facts.records.items()
        }


def last(said: str) -> str:
    """A shell and a simulated one put the same last line, if it is one of the program's."""
    line = said.strip().rpartition("\n")[2]
    return line if " is not what " in line or "transaction" in line or "cannot be written" in line else ""


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    (tmp_path / "host").mkdir()
    real, simulated = ScratchHost(tmp_path / "host"), Host(Clock())
    for path in (*simulated.disk.below("/etc/nixos"), "/etc/nixos"):
        simulated.disk.set_mtime(path, OLD)
    (real.folder / "var/lib").mkdir(parents=True)
    return Pair(real, simulated)


def known(pair: Pair) -> tuple[Facts, Journal]:
    facts = pair.real.probe()
    return facts, pair.real.journal(facts)


def up(pair: Pair, crash_at: str = "") -> Transaction:
    """What `up` writes, of the module only three files."""
    facts, journal = known(pair)
    whole = wanted()
    names = ("default.nix", "options.nix", "settings.nix")
    few = replace(whole, files={name: whole.files[name] for name in names})
    parts = [part for step in STEPS for part in step.write(few, facts, journal)]
    return Transaction(
        parts, journal.sha256, replace(journal, host="host1").render(), first=lock.take("run-1"), crash_at=crash_at
    )


def files_down(pair: Pair, crash_at: str = "") -> Transaction:
    """What `down` does to files; its shell is that of real machines."""
    facts, journal = known(pair)
    parts = [part for step in reversed(STEPS) for part in step.remove(facts, journal)]
    return Transaction([part for part in parts if not isinstance(part, Shell)], journal.sha256, crash_at=crash_at)


def test_up_and_down(pair: Pair) -> None:
    before = pair.files(pair.simulated.disk.snapshot)
    assert pair.transact(up(pair)) == 0
    assert pair.transact(files_down(pair)) == 0
    assert pair.files(pair.simulated.disk.snapshot) == before


@pytest.mark.parametrize("point", ["staged", *map(str, range(1, 12))])
def test_a_death_within_up(pair: Pair, point: str) -> None:
    assert pair.transact(up(pair, crash_at=point)) in (KILLED, 0)
    assert pair.transact(files_down(pair)) == 0


@pytest.mark.parametrize("point", ["staged", *map(str, range(1, 20))])
def test_a_death_within_down(pair: Pair, point: str) -> None:
    assert pair.transact(up(pair)) == 0
    assert pair.transact(files_down(pair, crash_at=point)) in (KILLED, 0)


@pytest.mark.parametrize(
    ("parts", "journal_before", "status"),
    [
        ([MakeDir(DIR), WriteFile(f"{DIR}/a.nix", b"a", 0o640)], "0" * 64, STALE_STATUS),
        ([MakeDir(DIR), WriteFile(USERS, b"a", expect="0" * 64)], ABSENT, STALE_STATUS),
        ([RemoveFile(USERS, expect=ABSENT)], ABSENT, STALE_STATUS),
        ([MakeDir(DIR), WriteFile("/etc/nixos/no/folder", b"a")], ABSENT, UNCHANGED_STATUS),
        ([MakeDir(f"{DIR}/deeper", 0o700), KeepCopy("/etc/nixos/none", "/etc/nixos/copy")], ABSENT, UNCHANGED_STATUS),
    ],
    ids=["the journal is another", "a file is another", "a file is there", "no folder", "nothing to copy"],
)
def test_a_refusal_leaves_all_as_it_was(pair: Pair, parts: Sequence[Part], journal_before: str, status: int) -> None:
    before = sorted(pair.files(pair.simulated.disk.snapshot))
    assert pair.transact(Transaction(parts, journal_before, b"{}\n")) == status
    assert set(before) == set(pair.files(pair.simulated.disk.snapshot)) - {DIR}


def test_a_transaction_under_way_is_waited_for_and_no_longer(pair: Pair) -> None:
    assert pair.transact(Transaction([], ABSENT, b"{}\n")) == 0
    with other_transaction(pair):
        assert pair.transact(Transaction([SetMtime(USERS, 5)], ABSENT)) == LOCKED_STATUS


@contextmanager
def other_transaction(pair: Pair) -> Iterator[None]:
    folder = os.open(f"{pair.real.folder}{STATE_DIR}", os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    pair.simulated.flock = True
    try:
        yield
    finally:
        os.close(folder)


def test_all_that_a_part_can_be(pair: Pair) -> None:
    first: list[Part] = [
        MakeDir(DIR, 0o750),
        MakeDir(f"{DIR}/inner"),
        WriteFile(f"{DIR}/a b.nix", b"it's", 0o604, mtime=OLD),
        WriteFile(f"{DIR}/empty", b""),
        WriteFile(f"{STATE_DIR}/x.token", Secret("glrt-x"), 0o600),
        SetMtime("/etc/nixos/none", 5),
        RemoveEmptyDir(DIR),
    ]
    assert pair.transact(Transaction(first, ABSENT, b"{}\n")) == 0
    journal = pair.simulated.disk.read(f"{STATE_DIR}/journal.json")
    token = f"{STATE_DIR}/x.token"
    Path(f"{pair.real.folder}{token}").chmod(0o644)
    pair.simulated.disk.entries[token].mode = 0o644
    again: list[Part] = [
        MakeDir(DIR, 0o700),
        KeepCopy(f"{DIR}/a b.nix", f"{DIR}/kept"),
        RemoveFile(f"{DIR}/a b.nix"),
        RemoveFile(f"{DIR}/none"),
        RemoveTree(f"{DIR}/inner"),
        RemoveTree("/etc/nixos/none"),
        SetMtime("/etc/nixos", OLD),
        Shell(make_private(token)),
    ]
    assert pair.transact(Transaction(again, digest(journal), first=lock.RELEASE)) == 0
    assert pair.simulated.disk.entries[token].mode == 0o600
