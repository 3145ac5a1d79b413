"""The facts that one probe found on a host: read once per connection, then only asked.

The probe is one script made of all steps' texts. Its answer is lines `NAME BASE64`, which survive any content and any
locale. Here are the format, the shell functions that write it, and the facts that every step shares.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from provisioner.errors import HostRefused, RemoteFailed
from provisioner.machine import counters, lock
from provisioner.machine.counters import Counters
from provisioner.machine.transaction import ABSENT
from provisioner.model import Trust, machine_key

PROLOGUE: Final = """\
export LC_ALL=C PATH="/run/wrappers/bin:/run/current-system/sw/bin:$PATH"
say() { printf '%s ' "$1"; base64 | tr -d '\\n'; echo; }
# say_file NAME PATH: the real path, and the stat and bytes of the file there. A dangling link gives its own stat.
say_file() {
  [ -e "$2" ] || [ -L "$2" ] || return 0
  { stat -L -c '%a %u %g %Y %F' "$2" 2>/dev/null || stat -c '%a %u %g %Y %F' "$2" 2>/dev/null; } | say "$1.stat"
  readlink -f "$2" 2>/dev/null | say "$1.real"
  [ ! -f "$2" ] || say "$1.data" < "$2"
}
"""

COMMON: Final = r"""{ cat /etc/os-release 2>/dev/null; } | say os
{ cat /etc/machine-id 2>/dev/null; } | say machine-id
{ nixos-version 2>/dev/null; } | say nixos-version
{ readlink -f /run/current-system 2>/dev/null; } | say system
{ readlink /nix/var/nix/profiles/system 2>/dev/null; } | say generation
{ readlink -f /nix/var/nix/profiles/system 2>/dev/null; } | say profile
{ cat /run/current-system/etc/nixprov-revision 2>/dev/null; } | say revision
{ cat /nix/var/nix/profiles/system/etc/nixprov-revision 2>/dev/null; } | say revision-at-boot
{ cat /run/current-system/etc/nixprov-trust 2>/dev/null; } | say trust
{ nix --version 2>/dev/null; } | say nix-version
{ sed -n 's/^[[:space:]]*\(extra-\)\{0,1\}trusted-users[[:space:]]*=//p' /etc/nix/nix.conf 2>/dev/null; } |
  say trusted-users
{ sed -n 's/^[[:space:]]*require-sigs[[:space:]]*=//p' /etc/nix/nix.conf 2>/dev/null | tail -n 1; } | say require-sigs
# While systemd executes itself anew it does not answer. Its silence does not mean that no switch runs.
for try in 1 2 3 4 5 6 7 8 9 10; do
  switch=$(systemctl show -p ActiveState,SubState nixprov-switch.service 2>/dev/null) && break || sleep 0.2
done
echo "$switch" | say switch
{ cat /var/lib/nixprov/switch/result 2>/dev/null; } | say switch-result
{ systemctl list-units --failed --plain --no-legend --no-pager 2>/dev/null | cut -d' ' -f1; } | say failed-units
"""


# No part of a system: these units end with a run, or stay known after it.
_OF_A_SWITCH: Final = ("nixprov-switch.", "nixprov-back.")


@dataclass(frozen=True, slots=True)
class FileFact:
    """A path as found: `real` is the path behind all links, and the rest describes the file there.

    `content` is None when that is no regular file. `mtime` is in seconds since the epoch.
    """

    path: str
    mode: int
    owner: str
    mtime: int
    kind: str
    real: str
    content: bytes | None

    @property
    def sha256(self) -> str:
        return digest(self.content)


@dataclass(frozen=True, slots=True)
class UnitFact:
    name: str
    active: str
    sub: str
    restarts: int

    @property
    def is_active(self) -> bool:
        return self.active == "active"


@dataclass(frozen=True, slots=True)
class Facts:
    """One host's answers by record name. Methods give the meaning of a record."""

    host: str
    records: Mapping[str, bytes]

    @classmethod
    def parse(cls, host: str, answer: bytes) -> Facts:
        """Read the probe's output. Raises RemoteFailed when it is cut short or not ours (a chatty login shell)."""
        return cls(host, read_records(host, answer, "probe-end"))

    def text(self, name: str) -> str:
        return self.records.get(name, b"").decode("utf-8", "replace").strip()

    def file(self, name: str, path: str) -> FileFact | None:
        stat = self.text(f"{name}.stat")
        if not stat:
            return None
        mode, uid, gid, mtime, kind = stat.split(" ", 4)
        content = self.records.get(f"{name}.data")
        return FileFact(path, int(mode, 8), f"{uid}:{gid}", int(mtime), kind, self.text(f"{name}.real"), content)

    @property
    def machine(self) -> str:
        return machine_key(self.text("machine-id"))

    @property
    def generation(self) -> int | None:
        """The number of the system profile's generation, from its link `system-N-link`."""
        link = re.search(r"system-(\d+)-link$", self.text("generation"))
        return int(link[1]) if link else None

    @property
    def system(self) -> str:
        return self.text("system")

    @property
    def revision(self) -> str:
        """The revision of our module in the running system; empty without it."""
        return self.text("revision")

    @property
    def revision_at_boot(self) -> str:
        return self.text("revision-at-boot")

    @property
    def has_ours(self) -> bool:
        """Whether the running system, or the next to boot, contains our module. Our units at work are a sign of it."""
        at_work = [unit for unit in self.units if not (unit.name.startswith(_OF_A_SWITCH) or unit.active == "failed")]
        return bool(self.revision or self.revision_at_boot or at_work)

    @property
    def trusts_jobs(self) -> bool:
        """Whether the running system gives jobs the plain daemon's socket; the inventory may want another now."""
        return self.text("trust") == Trust.PLAIN.value

    @property
    def nix_version(self) -> str:
        """`2.26.3` of `nix (Nix) 2.26.3`, and the like of other makers of a Nix; empty when unknown."""
        version = re.search(r" (\d+\.\d+\S*)$", self.text("nix-version"))
        return version[1] if version else ""

    @property
    def nix_product(self) -> str:
        """The package of the host's Nix: `nix` of `nix (Nix) 2.26.3`, `lix` of `nix (Lix, like Nix) 2.91.1`."""
        maker = re.match(r"nix \(([^,)]*)", self.text("nix-version"))
        return maker[1].lower() if maker else ""

    @property
    def nix_name(self) -> str:
        """The name for people: `2.26.3`, `2.91.1 (lix)`; empty without a version."""
        product = f" ({self.nix_product})" if self.nix_product not in ("", "nix") else ""
        return f"{self.nix_version}{product}" if self.nix_version else ""

    @property
    def trusted_users(self) -> tuple[str, ...]:
        return tuple(self.text("trusted-users").split())

    @property
    def takes_unsigned(self) -> bool:
        """Whether Nix takes unsigned paths from anybody."""
        return self.text("require-sigs").strip() in ("false", "no", "0")

    @property
    def failed_units(self) -> tuple[str, ...]:
        return tuple(self.text("failed-units").split())

    @property
    def units(self) -> tuple[UnitFact, ...]:
        return tuple(_units(self.text("units")))

    def unit(self, name: str) -> UnitFact | None:
        return next((unit for unit in self.units if unit.name == name), None)

    @property
    def is_switching(self) -> bool:
        """Whether a switch is under way, or waits to be confirmed; the journal names its run."""
        return bool(re.search(r"SubState=(running|start|stop|final|auto-restart)", self.text("switch")))

    @property
    def held_by(self) -> str:
        """The id of the run that holds the host by an open connection; empty when the host is free."""
        return self.text("held")

    @property
    def has_dead_lock(self) -> bool:
        """Whether a run ended without giving the host back: its connection is gone, its lock is not."""
        return bool(self.text("lock-left"))

    @property
    def counters(self) -> Counters | None:
        """The counts of jobs here; None without a book."""
        return Counters.parse(self.text("counters"))

    def files(self) -> dict[str, FileFact]:
        """All files that were probed with their bytes, by their real paths."""
        names = [name.removesuffix(".stat") for name in self.records if name.endswith(".stat")]
        found = [file for name in names if (file := self.file(name, self.text(f"{name}.real")))]
        return {file.path: file for file in found if file.path and file.content is not None}

    def require_nixos(self) -> None:
        """Raise HostRefused unless this is a NixOS machine with a known id."""
        if "ID=nixos" not in self.text("os").replace('"', "").splitlines():
            raise HostRefused(self.host, "not a NixOS machine (/etc/os-release)", hint="take it out of the inventory")
        if not self.text("machine-id"):
            raise HostRefused(self.host, "/etc/machine-id is empty", hint="run systemd-machine-id-setup there")


def read_records(host: str, answer: bytes, last: str) -> dict[str, bytes]:
    """Read lines `NAME BASE64` as bytes by name, and skip others. Raises RemoteFailed when `last` is not among them."""
    records: dict[str, bytes] = {}
    for line in answer.splitlines():
        name, _, data = line.partition(b" ")
        try:
            records[name.decode("ascii")] = base64.b64decode(data, validate=True)
        except (UnicodeDecodeError, binascii.Error):
            continue
    if last not in records:
        raise RemoteFailed(host, "the probe's answer is incomplete", hint="run again with --debug to see it")
    return records


def _units(text: str) -> Iterable[UnitFact]:
    for block in text.split("\n\n"):
        fields = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if fields.get("Id") and fields.get("ActiveState") != "inactive":
            restarts = fields.get("NRestarts", "0")
            yield UnitFact(
                fields["Id"],
                fields["ActiveState"],
                fields.get("SubState", ""),
                int(restarts) if restarts.isdigit() else 0,
            )


def digest(content: bytes | None) -> str:
    return ABSENT if content is None else hashlib.sha256(content).hexdigest()


def probe_script(parts: Iterable[str]) -> bytes:
    """All probes as one script for `sh -s`. Facts.parse reads its answer."""
    shared = (PROLOGUE, COMMON, lock.PROBE, counters.PROBE)
    return "\n".join([*shared, *parts, "echo yes | say probe-end", ""]).encode()
