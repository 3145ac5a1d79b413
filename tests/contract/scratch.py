"""A host made of a folder: probes and transactions run in a real sh, with the host's paths moved below it."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from provisioner.machine.facts import PROLOGUE, Facts
from provisioner.machine.journal import Journal, Phase
from provisioner.machine.things import probes
from provisioner.machine.transaction import Part, Transaction
from provisioner.model import machine_key
from provisioner.steps import Step, Wanted, things
from tests.unit.hosts import CONFIGURATION, HOOK, RECORD

MOVED = ("/etc/nixos", "/var/lib", "/run/nixprov", "/nix/var", "/sys/class/net")
MACHINE = machine_key("contract")
NOBODY = 0xFFFFFFFF
# user::rw- user:1:r-- group::r-- mask::r-- other::--- (linux/posix_acl_xattr.h), which goes with mode 0640.
ACCESS_LIST = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *entry)
    for entry in ((1, 6, NOBODY), (2, 4, 1), (4, 4, NOBODY), (16, 4, NOBODY), (32, 0, NOBODY))
)
# What a host has and this computer need not have; none of it does anything here.
STUBS = ("systemctl", "nix-env", "umount", "nixos-version", "sync", "ip")
UsersFiles = dict[str, tuple[int, float, bytes, dict[str, bytes]]]


class ScratchHost:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._bin = folder.parent / f"{folder.name}-bin"
        self._bin.mkdir()
        for name in STUBS:
            (self._bin / name).write_text("#!/bin/sh\n")
            (self._bin / name).chmod(0o755)
        nixos = folder / "etc/nixos"
        nixos.mkdir(parents=True)
        (nixos / "configuration.nix").write_bytes(CONFIGURATION)
        (nixos / "configuration.nix").chmod(0o640)
        for name, value in (("user.note", b"mine"), ("system.posix_acl_access", ACCESS_LIST)):
            with suppress(OSError):  # a disk that has none has none to lose
                os.setxattr(nixos / "configuration.nix", name, value)
        (nixos / "hardware-configuration.nix").write_bytes(b"{ }\n")
        for path in (*nixos.iterdir(), nixos):
            os.utime(path, (1_000_000, 1_000_000))

    def probe(self) -> Facts:
        """What the steps ask for; what every host is asked beside it is no step's, and slow a hundred times over."""
        script = "\n".join([PROLOGUE, *probes(things()), "echo yes | say probe-end\n"])
        facts = Facts.parse("host1", self._sh(script.encode()).stdout)
        here, owner = str(self.folder).encode(), f" {os.getuid()} {os.getgid()} ".encode()
        records = {name: data.replace(here, b"") for name, data in facts.records.items()}
        stats = {name: data.replace(owner, b" 0 0 ") for name, data in records.items() if name.endswith(".stat")}
        return Facts("host1", {**records, **stats})

    def journal(self, facts: Facts | None = None) -> Journal:
        """As found, else as a first run would write it."""
        facts = facts or self.probe()
        found = Journal.read(facts)
        if found.exists:
            return found
        return replace(found, host="host1", machine=MACHINE, hook=HOOK.record(facts), runners={"default": RECORD})

    def transact(self, parts: Sequence[Part], known: Journal, *, crash_at: str = "", journal: bool = True) -> int:
        """Run `parts` on the host as `known`; the status of the script, -9 when it was killed."""
        content = replace(known, phase=Phase.CONFIRMED).render() if journal else None
        return self._sh(Transaction(parts, known.sha256, content, crash_at=crash_at).script()).returncode

    def write(self, steps: Sequence[Step], wanted: Wanted, *, crash_at: str = "") -> int:
        """As `up` does it: the journal says what was there before anything is staged."""
        facts = self.probe()
        journal = self.journal(facts)
        if not journal.exists:
            claimed = replace(journal, phase=Phase.CONFIRMED)
            assert self.transact((), journal) == 0
            journal = claimed.written()
        parts = [part for step in steps for part in step.write(wanted, facts, journal)]
        return self.transact(parts, journal, crash_at=crash_at)

    def remove(self, steps: Sequence[Step], *, crash_at: str = "") -> int:
        """In the order of `down`: what feeds the system, then the rest, whose last part takes the journal away."""
        facts = self.probe()
        journal = self.journal(facts)
        backwards = steps[::-1]
        ordered = sorted(backwards, key=lambda step: not step.feeds_system)
        parts = [part for step in ordered for part in step.remove(facts, journal)]
        return self.transact(parts, journal, crash_at=crash_at, journal=False)

    def remains(self, steps: Sequence[Step]) -> list[str]:
        facts = self.probe()
        journal = Journal.read(facts)
        return [what for step in steps for what in step.remains(facts, journal)]

    def users_files(self) -> UsersFiles:
        """Mode, time, content and attributes of everything in /etc/nixos; of the folder itself the time."""
        nixos = self.folder / "etc/nixos"
        found = {path: path.stat() for path in (nixos, *nixos.rglob("*"))}
        return {
            str(path.relative_to(nixos)): (
                stat.st_mode,
                int(stat.st_mtime),
                path.read_bytes() if path.is_file() else b"",
                {name: os.getxattr(path, name) for name in os.listxattr(path)},
            )
            for path, stat in found.items()
        }

    def _sh(self, script: bytes) -> subprocess.CompletedProcess[bytes]:
        done = self.shell(script)
        assert done.returncode in (0, -9), done.stderr.decode()
        return done

    def shell(self, script: bytes) -> subprocess.CompletedProcess[bytes]:
        """Run `script` with the host's paths below the folder, however it ends."""
        for path in MOVED:
            script = script.replace(path.encode(), f"{self.folder}{path}".encode())
            # As patterns have it that must not find themselves: what they are to kill is on this host, not on this computer.
            script = script.replace(f"[/]{path[1:]}".encode(), f"[/]{str(self.folder)[1:]}{path}".encode())
        script = script.replace(b" 0:0", f" {os.getuid()}:{os.getgid()}".encode())
        script = script.replace(b"/run/wrappers/bin:/run/current-system/sw/bin", str(self._bin).encode())
        return subprocess.run(["sh", "-s"], input=script, capture_output=True, check=False, timeout=30)
