"""Machines that are not well: each is told in one line of its own, and nothing is changed or lost."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import pytest
from nixprov_lab.running import Lab

from tests.faults.machine import Begun, edited, journal, runners, system, untouched
from tests.lab.operator import Operator, Said, leftovers, snapshot

HOST: Final = "host2"
# A disk of its own for /etc/nixos, with all that is in it.
ETC_NIXOS_DISK: Final = """\
cp -a /etc/nixos /root/nixos-copy
mount -t tmpfs -o size=2m,mode=755 tmpfs /etc/nixos
cp -a /root/nixos-copy/. /etc/nixos/"""
BACK: Final = "umount -l /etc/nixos; rm -rf /root/nixos-copy"
# All that is in the store stays readable, and what comes now goes to a small disk.
SMALL_STORE: Final = """\
mkdir -p /run/small
mount -t tmpfs -o size=100m tmpfs /run/small
mkdir /run/small/new /run/small/work
mount -t overlay -o lowerdir=/nix/store,upperdir=/run/small/new,workdir=/run/small/work overlay /nix/store"""
SMALL_BACK: Final = "umount -l /nix/store; umount -l /run/small; rmdir /run/small"
FILL: Final = "dd if=/dev/zero of=/etc/nixos/ballast bs=4k 2>/dev/null || :"


@dataclass(frozen=True)
class Sick:
    """`make` and `cure` are run on the machine; `words` are what nixprov says of it and of nothing else."""

    make: str
    cure: str
    words: str


def disk(path: str, size: str) -> Sick:
    return Sick(f"mkdir -p {path}; mount -t tmpfs -o size={size} tmpfs {path}", f"umount -l {path}", "")


def told(sick: Sick, words: str) -> Sick:
    return Sick(sick.make, sick.cure, words)


# Before the first change: `up` asks.
BEFORE: Final = {
    "/etc read-only": Sick(
        "mount --bind /etc /etc; mount -o remount,ro,bind /etc", "umount -l /etc", "/etc/nixos is read-only"
    ),
    "/var/lib read-only": Sick(
        "mount --bind /var/lib /var/lib; mount -o remount,ro,bind /var/lib",
        "umount -l /var/lib",
        "/var/lib is read-only",
    ),
    "/var/lib full": told(disk("/var/lib", "8m"), "/var/lib has 8 MiB left, 16 are needed"),
    "/var/lib in memory": told(disk("/var/lib", "64m"), "/var/lib is in memory"),
    "/nix/store full": Sick(SMALL_STORE, SMALL_BACK, "/nix/store has 100 MiB left, 200 are needed"),
    "/etc/nixos full": Sick(f"{ETC_NIXOS_DISK}\n{FILL}", BACK, "/etc/nixos has 0 MiB left, 1 are needed"),
    "/boot full": told(disk("/boot", "4m"), "/boot has 4 MiB left, 8 are needed"),
    # All machines of a lab have this computer's clock, so it is the command that tells the time which is wrong.
    "clock years off": Sick(
        r"""mkdir -p /run/wrappers/bin
printf '#!/bin/sh\n[ "$*" != +%%s ] || { echo 1000000000; exit; }\nexec /usr/bin/env -i date "$@"\n' > \
  /run/wrappers/bin/date
chmod +x /run/wrappers/bin/date""",
        "rm /run/wrappers/bin/date",
        "days off from ours",
    ),
}


@contextmanager
def being(lab: Lab, sick: Sick) -> Iterator[None]:
    lab.run(HOST, ["sh", "-euc", sick.make])
    try:
        yield
    finally:
        lab.run(HOST, ["sh", "-c", sick.cure])


def in_whole_seconds(shot: str) -> str:
    """What is written back has its old time as the journal and the probe know it."""
    return re.sub(r"\.\d{10}$", "", shot, flags=re.MULTILINE)


def one_line(said: Said, words: str, code: int) -> None:
    result = said.host(HOST)
    assert said.code == code, said.err
    assert words in result["error"], result
    assert "\n" not in result["error"]
    assert result["hint"]


@pytest.mark.parametrize("sick", BEFORE.values(), ids=BEFORE)
def test_up_says_so_before_anything(lab: Lab, operator: Operator, sick: Sick) -> None:
    before = snapshot(lab, HOST)
    with being(lab, sick):
        said = operator("up", HOST, "--yes", "--json")
    one_line(said, sick.words, 5)
    others = [one.words for one in BEFORE.values() if one.words != sick.words]
    assert not any(words in said.host(HOST)["error"] for words in others)
    assert said.summary["gitlab_writes"] == 0
    assert (snapshot(lab, HOST), leftovers(lab, HOST), runners(lab, HOST)) == (before, "", [])


def test_a_disk_that_fills_up_meanwhile_changes_nothing(lab: Lab, operator: Operator) -> None:
    """Between plan and write: the transaction ends before its first rename, and the runner that was made goes too."""
    before = (snapshot(lab, HOST), system(lab, HOST))
    with being(lab, Sick(ETC_NIXOS_DISK, BACK, "")):
        inside = snapshot(lab, HOST)
        lab.gitlab.set_fault("slow", method="POST", path_regex="/user/runners", seconds=4.0)
        run = Begun(operator, "up", HOST, "--yes")
        run.phase("create")
        run.process.send_signal(signal.SIGSTOP)
        lab.run(HOST, ["sh", "-c", FILL])
        run.process.send_signal(signal.SIGCONT)
        result = run.until(lambda event: event["event"] == "host")
        assert run.end()[0] == 7
        assert "(no space left on device): nothing was changed" in result["error"], result
        assert "room" in result["hint"]
        lab.run(HOST, ["rm", "/etc/nixos/ballast"])
        assert snapshot(lab, HOST) == inside
    assert ((snapshot(lab, HOST), system(lab, HOST)), leftovers(lab, HOST)) == (before, "")
    assert runners(lab, HOST) == []


DOWN: Final = {
    "/etc/nixos full": Sick(f"{ETC_NIXOS_DISK}\n{FILL}", BACK, "(no space left on device): nothing was changed"),
    "/etc read-only": Sick(
        "mount --bind /etc /etc; mount -o remount,ro,bind /etc",
        "umount -l /etc",
        "configuration.nix is write-protected (read-only disk, or chattr +i): nothing was changed",
    ),
    "/var/lib/nixprov full": Sick(
        "cp -a /var/lib/nixprov /root/state; mount -t tmpfs -o size=512k,mode=700 tmpfs /var/lib/nixprov\n"
        "cp -a /root/state/. /var/lib/nixprov/; dd if=/dev/zero of=/var/lib/nixprov/ballast bs=1k 2>/dev/null || :",
        "umount -l /var/lib/nixprov; rm -rf /root/state",
        "journal.json cannot be written (no space left on device): nothing was changed",
    ),
}


def test_a_disk_that_is_full_or_read_only_at_down(lab: Lab, operator: Operator) -> None:
    """The runner goes on and takes jobs, as after a build that fails; when all is well again `down` takes it back."""
    with untouched(lab, HOST, operator):
        assert operator("up", HOST, "--yes").code == 0
        before = snapshot(lab, HOST)
        for sick in DOWN.values():
            with being(lab, sick):
                said = operator("down", HOST, "--yes", "--json")
            assert said.code in (5, 7), said.err
            one_line(said, sick.words, said.code)
            assert [runner["paused"] for runner in lab.gitlab.runners() if runner["host"] == HOST] == [False]
            assert (snapshot(lab, HOST), journal(lab, HOST)["phase"]) == (before, "up: confirmed")
        with edited(lab, HOST, "services.nosuch.enable = true;"):
            broken = in_whole_seconds(snapshot(lab, HOST))
            one_line(operator("down", HOST, "--yes", "--json"), "does not evaluate", 7)
            assert in_whole_seconds(snapshot(lab, HOST)) == broken
        assert operator("plan", HOST, "--json").summary["unchanged"] == 1
