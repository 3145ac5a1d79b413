"""Machines whose running system is not what /etc/nixos/configuration.nix describes: named, refused, nothing touched."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from nixprov_lab.running import Lab

from provisioner.engine.crash import VARIABLE
from tests.lab.operator import Operator, Said, leftovers, snapshot

HOST: Final = "host1"
OTHER: Final = "/root/other"
PRODUCTION: Final = """\
  users.users.mallory.isNormalUser = true;
  systemd.services.production = {
    wantedBy = [ "multi-user.target" ];
    serviceConfig.ExecStart = "${pkgs.coreutils}/bin/sleep infinity";
  };
"""
ELSEWHERE: Final = f"""\
  nix.nixPath = [ "nixpkgs=/nix/var/nix/profiles/per-user/root/channels/nixos" "nixos-config={OTHER}/configuration.nix" ];
"""
# A channel of the next day: the same tree, but for the version that it gives.
NEXT_CHANNEL: Final = r"""
channels=/nix/var/nix/profiles/per-user/root/channels
mkdir /root/environment
cp -rL "$channels/nixos/" /root/next
chmod -R u+w /root/next
sed -i 's/\.20251130\./.20251201./' /root/next/nixos/modules/toplevel.nix
ln -s "$(nix-store --add /root/next)" /root/environment/nixos
nix-env -p "$channels" --set "$(nix-store --add /root/environment)"
rm -r /root/next /root/environment
"""


@dataclass(frozen=True)
class Machine:
    lab: Lab
    name: str

    def sh(self, script: str) -> str:
        return self.lab.run(self.name, ["sh", "-euc", script]).stdout.strip()

    def append(self, folder: str, lines: str) -> None:
        """Put lines at the end of the configuration in that folder."""
        path = f"{folder}/configuration.nix"
        self.lab.run(self.name, ["sh", "-c", 'sed -i "/^}/d" "$0" && cat >> "$0"', path], stdin=f"{lines}}}\n")

    def other(self, lines: str) -> None:
        """A configuration in another folder: that of /etc/nixos, and these lines."""
        self.sh(f"rm -rf {OTHER}; mkdir {OTHER}; cp /etc/nixos/*.nix {OTHER}/")
        self.append(OTHER, lines)

    def rebuild(self, action: str, *words: str) -> None:
        self.lab.run(self.name, ["nixos-rebuild", action, *words])

    def switch_to_other(self, action: str = "switch") -> None:
        self.rebuild(action, "-I", f"nixos-config={OTHER}/configuration.nix")

    @property
    def systems(self) -> tuple[str, str]:
        running, boot = self.sh("readlink -f /run/current-system /nix/var/nix/profiles/system").split()
        return running, boot

    @property
    def is_productive(self) -> bool:
        return self.sh("systemctl is-active production.service || :") == "active"

    def state(self) -> tuple[Any, ...]:
        """All that a run could have touched on the host, times included, and what GitLab has of it."""
        rest = self.sh("ls -d /var/lib/nixprov* /run/nixprov* || :; ls /nix/var/nix/gcroots/auto | sort; ls /root")
        times = self.sh("stat -c '%n %Y %a %u' /etc/nixos /etc/nixos/* /var/lib")
        runners = [runner["id"] for runner in self.lab.gitlab.runners() if runner["host"] == self.name]
        return snapshot(self.lab, self.name), leftovers(self.lab, self.name), self.systems, rest, times, runners


@pytest.fixture
def operator(lab: Lab, tmp_path: Path) -> Operator:
    return Operator(lab, tmp_path)


@pytest.fixture
def machine(lab: Lab) -> Iterator[Machine]:
    """Given back with the configuration and the system that it had."""
    machine = Machine(lab, HOST)
    machine.sh("cp -a /etc/nixos /root/kept-nixos")
    before = snapshot(lab, HOST), machine.systems
    yield machine
    machine.sh(f"rm -rf /etc/nixos {OTHER}; mv /root/kept-nixos /etc/nixos")
    machine.rebuild("switch", "-I", "nixos-config=/etc/nixos/configuration.nix")
    # Those that the owner's own rebuilds made are the owner's.
    machine.sh("nix-env -p /nix/var/nix/profiles/system --delete-generations old")
    assert (snapshot(lab, HOST), machine.systems, leftovers(lab, HOST)) == (*before, "")


def origin(said: Said) -> dict[str, Any]:
    return next(event for event in said.events if event["event"] == "origin")


def warnings(said: Said) -> str:
    return "\n".join(event["text"] for event in said.events if event["event"] == "warning")


def refused(machine: Machine, operator: Operator, kind: str) -> Said:
    """`plan` and `up` say the same, and leave everything as it is."""
    before, calls = machine.state(), len(machine.lab.gitlab.calls())
    both = [operator(*verb, HOST, "--json") for verb in (("plan",), ("up", "--yes"))]
    for said in both:
        assert (said.code, said.host(HOST)["outcome"]) == (10, "not described"), said.err
        assert (said.host(HOST)["remote_commands"], said.summary["gitlab_writes"]) == (2, 0)
        assert origin(said)["kind"] == kind, said.out
    assert machine.state() == before
    assert {call["method"] for call in machine.lab.gitlab.calls(calls) if "/api/v4" in call["path"]} <= {"GET"}
    return both[-1]


def goes(said: Said) -> Said:
    assert said.code == 0, said.err
    return said


def test_an_installers_leftover_beside_another_system(machine: Machine, operator: Operator) -> None:
    machine.other(PRODUCTION)
    machine.switch_to_other()
    theirs, _ = machine.systems
    said = refused(machine, operator, "other file")
    told = origin(said)
    assert (told["running"], told["configured"] != theirs) == (theirs, True)
    assert told["changes"] == ["units that go: production.service", "users that go: mallory"]
    assert machine.is_productive

    # Another host of the same run goes on, and the advised commands are what a person types next.
    both = operator("up", "host1,host2", "--yes")
    assert both.code == 10
    assert "2 hosts: 1 changed, 1 not described" in both.err
    assert "next: nixprov plan --build host1\nthen: nixprov up --adopt-configuration host1\n" in both.err
    goes(operator("down", "host2", "--yes"))
    shown = operator("plan", "--build", HOST)
    assert (shown.code, "users that go: mallory" in shown.out) == (10, True)
    assert "stops production.service" in shown.out

    adopted = goes(operator("up", "--adopt-configuration", HOST, "--yes", "--json"))
    assert "replaced all the same" in warnings(adopted)
    assert not machine.is_productive
    assert adopted.host(HOST)["remote_commands"] <= 6
    assert goes(operator("up", HOST, "--yes", "--json")).summary["remote_commands"] == 1
    back = goes(operator("down", HOST, "--yes", "--json"))
    assert f"not the one from before nixprov ({theirs})" in warnings(back)


def test_edits_that_are_not_switched_to(machine: Machine, operator: Operator) -> None:
    machine.append("/etc/nixos", PRODUCTION)
    said = refused(machine, operator, "edits not switched")
    assert "/etc/nixos/configuration.nix" in origin(said)["why"]
    assert origin(said)["changes"] == ["units that come: production.service"]
    assert "`nixos-rebuild switch` on the host" in said.host(HOST)["hint"]
    machine.rebuild("switch")
    theirs = machine.systems
    goes(operator("up", HOST, "--yes"))
    # The owner's own rebuild, with our module in it, is theirs to make; one that waits is not ours to bring along.
    machine.append("/etc/nixos", '  environment.etc.mine.text = "1";\n')
    waiting = operator("up", HOST, "--yes", "--new-tokens", "--json")
    assert (waiting.code, origin(waiting)["kind"], waiting.summary["gitlab_writes"]) == (10, "edits not switched", 0)
    machine.rebuild("switch")
    assert goes(operator("up", HOST, "--yes", "--new-tokens", "--json")).host(HOST)["outcome"] == "changed"
    machine.sh("sed -i /environment.etc.mine/d /etc/nixos/configuration.nix; nixos-rebuild switch")
    back = goes(operator("down", HOST, "--yes", "--json"))
    assert (machine.systems, warnings(back)) == (theirs, "")


def test_a_channel_that_is_not_switched_to(machine: Machine, operator: Operator) -> None:
    machine.sh(NEXT_CHANNEL)
    try:
        said = refused(machine, operator, "channel not switched")
        version = machine.sh("cat /run/current-system/nixos-version")
        assert f"NixOS: {version} -> {version.replace('1130', '1201')}" in origin(said)["changes"]
    finally:
        machine.sh("nix-env -p /nix/var/nix/profiles/per-user/root/channels --rollback")


def test_a_system_from_another_machine(machine: Machine, operator: Operator, lab: Lab) -> None:
    builder = Machine(lab, "host2")
    builder.other(f'{PRODUCTION}  environment.etc.stamp.text = "{secrets.token_hex(6)}"; # built nowhere else\n')
    path = builder.sh(f"nix-build '<nixpkgs/nixos>' -A system -I nixos-config={OTHER}/configuration.nix --no-out-link")
    pack = f"nix-store --export $(nix-store --query --requisites {path})"
    with subprocess.Popen([*lab.ssh_argv("host2"), pack], stdout=subprocess.PIPE) as export:
        subprocess.run(
            [*lab.ssh_argv(HOST), "nix-store --import"], stdin=export.stdout, check=True, capture_output=True
        )
    builder.sh(f"rm -r {OTHER}")
    machine.sh(f"nix-env -p /nix/var/nix/profiles/system --set {path}; {path}/bin/switch-to-configuration switch")
    assert machine.systems == (path, path)
    said = refused(machine, operator, "another machine")
    assert "its derivation is not here" in said.host(HOST)["error"]
    assert "nixos-rebuild switch" not in said.host(HOST)["hint"]
    assert machine.is_productive


def test_a_configuration_elsewhere_is_named_and_its_own_line_leads_on(machine: Machine, operator: Operator) -> None:
    machine.other(PRODUCTION + ELSEWHERE)
    machine.switch_to_other()
    before = machine.state()
    for said in (operator("up", HOST, "--yes", "--json", *more) for more in ((), ("--adopt-configuration",))):
        assert (said.code, said.summary["gitlab_writes"]) == (5, 0), said.err
        assert f"{OTHER}/configuration.nix" in said.host(HOST)["error"]
    assert machine.state() == before
    said = operator("plan", HOST, "--json")
    assert said.code == 5
    line = said.host(HOST)["hint"].partition("imports: ")[2]
    text = machine.sh(f"cat {OTHER}/configuration.nix").replace("./hardware", f"{line} ./hardware")
    machine.lab.run(HOST, ["tee", f"{OTHER}/configuration.nix"], stdin=f"{text}\n")
    goes(operator("up", HOST, "--yes"))
    assert machine.is_productive
    goes(operator("down", HOST, "--yes"))
    assert (snapshot(machine.lab, HOST), leftovers(machine.lab, HOST), machine.systems) == (before[0], "", before[2])


def test_down_leaves_a_system_that_is_its_owners_again(machine: Machine, operator: Operator) -> None:
    before = snapshot(machine.lab, HOST)
    machine.other(PRODUCTION)
    goes(operator("up", HOST, "--yes"))
    machine.switch_to_other()
    theirs = machine.systems
    said = goes(operator("down", HOST, "--yes", "--json"))
    assert "nothing is switched" in warnings(said)
    assert (machine.systems, machine.is_productive) == (theirs, True)
    assert (snapshot(machine.lab, HOST), leftovers(machine.lab, HOST)) == (before, "")
    assert [runner for runner in machine.lab.gitlab.runners() if runner["host"] == HOST] == []


def test_down_replaces_no_system_that_its_owner_only_tries(machine: Machine, operator: Operator) -> None:
    machine.other(PRODUCTION)
    goes(operator("up", HOST, "--yes"))
    machine.switch_to_other("test")
    before = machine.systems, snapshot(machine.lab, HOST)
    said = operator("down", HOST, "--yes", "--json")
    assert (said.code, said.host(HOST)["outcome"], said.summary["gitlab_writes"]) == (10, "not described", 0), said.err
    assert (machine.systems, snapshot(machine.lab, HOST), machine.is_productive) == (*before, True)
    assert "nixprov down --adopt-configuration host1" in said.host(HOST)["hint"]
    goes(operator("down", "--adopt-configuration", HOST, "--yes"))
    assert leftovers(machine.lab, HOST) == ""


def test_another_operator_goes_on_where_one_who_adopted_died(machine: Machine, operator: Operator) -> None:
    machine.other(PRODUCTION)
    machine.switch_to_other()
    operator("up", HOST, "--yes", "--adopt-configuration", **{VARIABLE: "host:write:3"})
    goes(operator("up", HOST, "--yes", "--take-over"))
    goes(operator("down", HOST, "--yes"))
