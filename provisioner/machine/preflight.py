"""Conditions for `up` to write anything: room, writable folders, a clock near ours, a disk that stays.

Pure but for its probe. The limits are the need of a switch of our size with some room to spare, no more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from provisioner.model import Engine

_ROOM_KIB: Final = {"/nix/store": 200 * 1024, "/var/lib": 16 * 1024, "/boot": 8 * 1024}
# The need of a configuration's folder beside its content.
_FILES_KIB: Final = 1024
_MAX_SKEW_S: Final = 24 * 3600
_MEMORY: Final = ("tmpfs", "ramfs")

# /boot counts only if it is a disk of its own. A full one can let a switch end with 0 (NixOS/nixpkgs#189966).
_PROBE: Final = """\
date +%s | say clock
for place in /nix/store /var/lib @FOLDERS@ /boot; do
  [ "$place" != /boot ] || grep -q ' /boot ' /proc/mounts || continue
  df -Pk "$place" 2>/dev/null | awk -v place="$place" 'NR == 2 { print place, $4 }'
done | say room
for place in @FOLDERS@ /var/lib; do [ -w "$place" ] || echo "$place"; done | say read-only
stat -f -c %T /var/lib 2>/dev/null | say var-lib-disk
! systemctl is-active --quiet docker.socket 2>/dev/null || echo yes | say docker
"""


def probe(folders: Iterable[str]) -> str:
    """Shell text in the functions of facts.PROLOGUE; `folders` are those of the configuration."""
    return _PROBE.replace("@FOLDERS@", " ".join(folders))


def problems(records: Mapping[str, bytes], now_s: float, engine: Engine = Engine.PODMAN) -> Iterator[tuple[str, str]]:
    """Obstacles, each with its remedy. `now_s` is the operator's clock (seconds since the epoch)."""
    text = {name: records.get(name, b"").decode("utf-8", "replace").strip() for name in _RECORDS}
    for place in text["read-only"].splitlines():
        yield f"{place} is read-only", "is the disk mounted read-only after an error? see dmesg and mount"
    for line in text["room"].splitlines():
        place, _, free = line.partition(" ")
        if free.isdigit() and int(free) < (needed := _ROOM_KIB.get(place, _FILES_KIB)):
            said = f"{place} has {int(free) // 1024} MiB left, {needed // 1024} are needed"
            yield said, "make room there, then run again"
    if engine is Engine.DOCKER and not text["docker"]:
        yield "nixprov_engine is docker, and it has none", "set virtualisation.docker.enable and switch, or take podman"
    if text["var-lib-disk"] in _MEMORY:
        yield "/var/lib is in memory, and would forget the runner at the next boot", "give /var/lib/nixprov* a disk"
    if text["clock"].isdigit() and abs(int(text["clock"]) - now_s) > _MAX_SKEW_S:
        days = round(abs(int(text["clock"]) - now_s) / 86400)
        yield f"its clock is {days} days off from ours", "set it (timedatectl), TLS with the CI server would fail"


def warnings(records: Mapping[str, bytes], engine: Engine) -> Iterator[str]:
    """Conditions that stop no run, but may keep jobs from working."""
    if engine is Engine.PODMAN and records.get("docker"):
        yield (
            "the host has Docker, whose packet filter drops what other engines forward: "
            "jobs will have no network, unless nixprov_engine is docker or DOCKER-USER lets nixprov0 through"
        )


_RECORDS: Final = ("clock", "room", "read-only", "var-lib-disk", "docker")
