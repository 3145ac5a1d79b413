"""Somebody worked on /etc/nixos after `up`: every row of docs/failures.md's table, on a machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import pytest
from nixprov_lab.running import Lab

from provisioner.machine.transaction import JOURNAL
from provisioner.nix.imports import HOOK
from tests.faults.machine import CONFIGURATION, journal, runners, untouched
from tests.lab.operator import Operator, Said, leftovers, snapshot

HOST: Final = "host1"
FOLDER: Final = "/etc/nixos"
KEEP: Final = f"cp -a {CONFIGURATION} /root/as-it-was"
GIVE_BACK: Final = f"mv -T /root/as-it-was {CONFIGURATION}"
FLAKE: Final = (
    "{ outputs = { nixpkgs, ... }: { nixosConfigurations.host1 ="
    " nixpkgs.lib.nixosSystem { modules = [ ./configuration.nix ]; }; }; }"
)
JOURNALS: Final = (("{", "journal cannot be read"), ('{"version": 2}', "of version 2, this nixprov knows 1"))
OURS: Final = "sed -i '/nixprov/{ %s }' configuration.nix"


def sh(lab: Lab, script: str) -> str:
    return lab.run(HOST, ["sh", "-euc", f"cd {FOLDER}\n{script}"]).stdout


@dataclass(frozen=True)
class Refused:
    """An edit that `up` must not work on; `words` are what it says, `down` what `down` says if it refuses too."""

    edit: str
    words: str
    down: str = ""
    undo: str = ":"


REFUSED: Final = {
    "commented out": Refused(OURS % "s/^/# /", "commented out"),
    "in other words": Refused(OURS % "s/(.*/.\\/nixprov/", "words that are not ours", "words that are not ours"),
    "twice": Refused(OURS % "p", "more than once"),
    "unreadable": Refused("echo '{ mine' >> configuration.nix", "does not parse"),
    "a flake came": Refused(f"echo '{FLAKE}' > flake.nix", "never edits a flake", undo="rm flake.*"),
    "a link into the store": Refused(
        "ln -sf $(nix-store --add configuration.nix) configuration.nix", "link to /nix/store/", "link into the store"
    ),
    "a link elsewhere": Refused(
        "mkdir /root/mine; cp -p hardware-configuration.nix /root/mine/; mv configuration.nix /root/mine/\n"
        "ln -s /root/mine/configuration.nix .",
        "link to /root/mine/configuration.nix",
        undo="rm -r /root/mine",
    ),
    # As chattr +i, which not every disk of a lab knows: not even root may write it.
    "removed and protected": Refused(
        f"{OURS % 'd'}; mount --bind configuration.nix configuration.nix; mount -o remount,ro,bind {CONFIGURATION}",
        "write-protected",
        undo="umount configuration.nix",
    ),
    "protected": Refused(
        f"mount --bind configuration.nix configuration.nix; mount -o remount,ro,bind {CONFIGURATION}",
        "",
        "write-protected",
        undo="umount configuration.nix",
    ),
}


@contextmanager
def edited_by_hand(lab: Lab, edit: str, undo: str) -> Iterator[None]:
    sh(lab, f"{KEEP}\n{edit}")
    try:
        yield
    finally:
        sh(lab, f"{undo}\n{GIVE_BACK}")


def test_refused_with_what_to_do_and_nothing_touched(lab: Lab, operator: Operator) -> None:
    """All on one machine that is a runner, each edit taken back by its author."""
    with untouched(lab, HOST, operator):
        said = operator("up", HOST, "--yes")
        assert said.code == 0, said.err
        for case in REFUSED.values():
            with edited_by_hand(lab, case.edit, case.undo):
                before = state(lab)
                if case.words:
                    drift = operator("status", HOST, "--json").reports()[HOST]["drift"]
                    assert case.words in " ".join(drift)
                    refused(operator("up", HOST, "--yes", "--json"), case.words)
                if case.down:
                    refused(operator("down", HOST, "--yes", "--json"), case.down)
                assert state(lab) == before
        for content, words in JOURNALS:
            before = state(lab)
            sh(lab, f"mv {JOURNAL} /root/journal; echo '{content}' > {JOURNAL}")
            for verb in ("up", "down"):
                refused(operator(verb, HOST, "--yes", "--json"), words)
            assert sh(lab, f"cat {JOURNAL}").strip() == content
            sh(lab, f"mv /root/journal {JOURNAL}")
            assert state(lab) == before
        # Moved away, as the hint of a broken one says: the `down` that follows goes by what it finds.
        sh(lab, f"mv {JOURNAL} {JOURNAL}.broken")


def state(lab: Lab) -> tuple[str, str, list[int]]:
    return snapshot(lab, HOST), sh(lab, f"sha256sum {JOURNAL}"), runners(lab, HOST)


def refused(said: Said, words: str) -> None:
    result = said.host(HOST)
    assert (said.code, result["outcome"]) == (5, "failed"), said.err
    assert words in result["error"]
    assert "\n" not in result["error"]
    assert result["hint"]
    assert said.summary["gitlab_writes"] == 0


def elsewhere(text: str) -> str:
    return text.replace('time.timeZone = "UTC";', 'time.timeZone = "Europe/Berlin"; # at home')


def as_nixfmt(text: str) -> str:
    """One entry a line, the hook over several lines."""
    text = text.replace("  imports =\n    [ # Include", "  imports = [\n    # Include")
    text = text.replace("      ./hardware", "    ./hardware").replace(
        "\n    ];\n\n  # The name", "\n  ];\n\n  # The name"
    )
    over_lines = HOOK.replace("(if", "(\n      if").replace(" then ", "\n      then\n        ")
    return text.replace(HOOK, over_lines.replace(" else { })", "\n      else\n        { }\n    )"))


def moved_up(text: str) -> str:
    lines = text.splitlines(keepends=True)
    ours = next((line for line in lines if HOOK in line), "")
    rest = [line for line in lines if HOOK not in line]
    at = next(number for number, line in enumerate(rest) if "./hardware" in line)
    return "".join([*rest[:at], ours, *rest[at:]])


def test_what_they_changed_beside_our_line_stays_to_the_byte(lab: Lab, operator: Operator) -> None:
    """Edited elsewhere, formatted, our line moved, another owner, and read-only: nothing of it is drift."""

    def changed(text: str) -> str:
        return elsewhere(moved_up(as_nixfmt(text)))

    original = sh(lab, "cat configuration.nix; cp -a configuration.nix /root/original")
    assert operator("up", HOST, "--yes").code == 0
    write(lab, changed(sh(lab, "cat configuration.nix")))
    sh(lab, "chmod 440 configuration.nix; chown 1000:100 configuration.nix")
    assert operator("status", HOST, "--json").reports()[HOST]["drift"] == []
    said = operator("up", HOST, "--yes", "--json")
    assert (said.code, said.summary["unchanged"]) == (0, 1), said.err
    taken_back(lab, operator)
    assert sh(lab, "cat configuration.nix") == changed(original)
    assert sh(lab, "stat -c '%a %u %g' configuration.nix").strip() == "440 1000 100"
    sh(lab, "mv -T /root/original configuration.nix")


def test_our_own_files_edited_removed_and_the_line_with_them(lab: Lab, operator: Operator) -> None:
    """`up` mends all of it and keeps a copy of what was written there; `down` keeps one too."""
    before = snapshot(lab, HOST)
    assert operator("up", HOST, "--yes").code == 0
    spoil = f"{OURS % 'd'}; echo '# mine' >> nixprov/runner.nix; rm nixprov/toml.nix; chmod 600 nixprov/cache.nix"
    sh(lab, spoil)
    drift = " ".join(operator("status", HOST, "--json").reports()[HOST]["drift"])
    assert all(words in drift for words in ("module:", "does not import ./nixprov")), drift
    with_future(lab)
    said = operator("up", HOST, "--yes", "--json")
    assert said.code == 0, said.err
    assert sh(lab, "tail -n 1 nixprov/runner.nix.edited-*").strip() == "# mine"
    assert operator("plan", HOST, "--json").summary["unchanged"] == 1
    assert (journal(lab, HOST)["future"], journal(lab, HOST)["hook"]["future"]) == (1, 2)
    token = sh(lab, "cat /var/lib/nixprov/secrets/default.token").strip()
    assert token
    assert token not in sh(lab, "cat /var/lib/nixprov/journal.json")
    sh(lab, "echo '# mine too' >> nixprov/options.nix")
    said = operator("down", HOST, "--yes", "--json")
    assert said.code == 0, said.err
    told = [event["text"] for event in said.events if event["event"] == "warning"]
    assert any("/etc/nixos/nixprov/options.nix.edited-" in text for text in told), told
    assert sh(lab, "cat nixprov/*.edited-* | grep mine").splitlines() == ["# mine too", "# mine"]
    sh(lab, "rm -r nixprov")
    assert (snapshot(lab, HOST), leftovers(lab, HOST), runners(lab, HOST)) == (before, "", [])


@pytest.mark.parametrize("names", [("commented out", "a flake came"), ("a link elsewhere",)], ids=" and ".join)
def test_down_works_where_up_refuses(lab: Lab, operator: Operator, names: tuple[str, ...]) -> None:
    original = sh(lab, "cat configuration.nix; cp -a configuration.nix /root/original")
    assert operator("up", HOST, "--yes").code == 0
    for name in names:
        sh(lab, REFUSED[name].edit)
    link = sh(lab, "readlink configuration.nix || :")
    taken_back(lab, operator)
    assert (sh(lab, "cat configuration.nix"), sh(lab, "readlink configuration.nix || :")) == (original, link)
    assert sh(lab, "stat -L -c '%a %u %g' configuration.nix") == sh(lab, "stat -c '%a %u %g' /root/original")
    # What `down` had to build was the flake.
    back = [*(REFUSED[name].undo for name in names), "mv -T /root/original configuration.nix", "nixos-rebuild switch"]
    sh(lab, "\n".join(back))


def test_a_folder_that_is_a_link_is_given_back_by_the_host_alone(lab: Lab, operator: Operator) -> None:
    before = snapshot(lab, HOST)
    lab.run(HOST, ["sh", "-euc", f"mv {FOLDER} /root/nixos; ln -s /root/nixos {FOLDER}; touch -d @86400 /root/nixos"])
    try:
        said = operator("up", HOST, "--yes", "--json", NIXPROV_CRASH="unit:activated")
        assert said.code == 7, said.err
        assert (snapshot(lab, HOST), leftovers(lab, HOST), runners(lab, HOST)) == (before, "", [])
        assert lab.run(HOST, ["stat", "-L", "-c", "%Y", FOLDER]).stdout.strip() == "86400"
    finally:
        lab.run(HOST, ["sh", "-euc", f"rm {FOLDER}; mv /root/nixos {FOLDER}"])


def taken_back(lab: Lab, operator: Operator) -> None:
    said = operator("down", HOST, "--yes")
    assert said.code == 0, said.err
    assert (leftovers(lab, HOST), runners(lab, HOST)) == ("", [])


def write(lab: Lab, text: str) -> None:
    lab.run(HOST, ["tee", CONFIGURATION], stdin=text)


def with_future(lab: Lab) -> None:
    """The journal as a later nixprov of the same version might have left it."""
    read = journal(lab, HOST)
    read["hook"]["future"] = 2
    lab.run(HOST, ["tee", "/var/lib/nixprov/journal.json"], stdin=json.dumps({**read, "future": 1}))
