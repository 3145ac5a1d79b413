"""`plan --diff` and `plan --build` on a machine: what becomes of the system is told, and nothing is touched for it."""

from __future__ import annotations

import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from nixprov_lab.running import Lab

from tests.lab.operator import Operator, Said, leftovers, snapshot

HOST = "host1"
RUNNER_UNIT = "nixprov-runner-default.service"
CONFIGURATION = "/etc/nixos/configuration.nix"
# All that a plan could have left: the profile, roots of the collector, folders and units of ours.
REST = r"""
readlink /nix/var/nix/profiles/system /run/current-system
for root in /nix/var/nix/gcroots/auto/*; do readlink "$root"; done | sort
ls -d /run/nixprov* /tmp/nixprov* 2>/dev/null
systemctl list-units --all --plain --no-legend 'nixprov-plan*' 'nixprov-origin*'
exit 0
"""
# An evaluation that waits for a build that does not end.
SLOW = """\
  environment.etc."slow".text = builtins.readFile (derivation {
    name = "slow-@STAMP@";
    system = builtins.currentSystem;
    builder = "/bin/sh";
    args = [ "-c" "exec ${pkgs.coreutils}/bin/sleep 314" ];
  });
}
"""


@pytest.fixture
def operator(lab: Lab, tmp_path: Path) -> Operator:
    return Operator(lab, tmp_path)


@pytest.fixture
def play(tmp_path: Path) -> str:
    """Runners that were never built on the host."""
    file = tmp_path / "play.yml"
    file.write_text(f"- hosts: all\n  runners: [{{name: default, environment: {{STAMP: {secrets.token_hex(6)}}}}}]\n")
    return str(file)


@pytest.fixture
def untouched(lab: Lab) -> Iterator[None]:
    def look() -> tuple[str, ...]:
        return snapshot(lab, HOST), rest(lab), leftovers(lab, HOST)

    before, calls = look(), len(lab.gitlab.calls())
    yield
    assert look() == before
    assert {call["method"] for call in lab.gitlab.calls(calls) if "/api/v4" in call["path"]} <= {"GET"}


@pytest.fixture
def configured(lab: Lab) -> Iterator[Callable[[str], None]]:
    """Puts text at the end of the user's configuration, and gives it back."""
    lab.run(HOST, ["cp", "-a", CONFIGURATION, "/root/whole"])

    def end(text: str) -> None:
        lab.run(HOST, ["sh", "-c", 'sed -i "/^}/d" "$0" && cat >> "$0"', CONFIGURATION], stdin=text)

    yield end
    lab.run(HOST, ["mv", "/root/whole", CONFIGURATION])


def rest(lab: Lab) -> str:
    return lab.run(HOST, ["sh", "-c", REST]).stdout


def system(said: Said) -> Any:
    return next(event for event in said.events if event["event"] == "plan")["system"]


@pytest.mark.usefixtures("untouched")
def test_what_must_be_built_and_then_what_came_of_it(operator: Operator, play: str) -> None:
    plain = operator("plan", HOST, "--play", play, "--json")
    assert (plain.summary["remote_commands"], system(plain)) == (2, None)

    told = operator("plan", HOST, "--play", play, "--diff", "--json")
    assert (told.code, told.summary["remote_commands"], told.summary["connections"]) == (0, 3, 1), told.err
    assert "nixprov-runner-default.toml" in system(told)["build"]
    assert system(told)["closure"] is None

    built = operator("plan", HOST, "--play", play, "--build", "--json")
    assert (built.code, built.summary["remote_commands"]) == (0, 3), built.err
    closure = system(built)["closure"]
    assert closure["added"] > closure["removed"] > 0
    assert {"name": "podman", "before": []}.items() <= named(closure, "podman").items()
    assert named(closure, "podman")["after"][0].startswith("5.")
    assert RUNNER_UNIT in next(change["units"] for change in closure["units"] if change["verb"] == "add")

    # Now it is there, so nothing need be built to tell the same.
    again = operator("plan", HOST, "--play", play, "--diff", "--json")
    assert system(again)["closure"] == closure


def named(closure: dict[str, Any], name: str) -> dict[str, Any]:
    return next(package for package in closure["packages"] if package["name"] == name)


def test_a_configuration_that_up_could_not_build_fails_the_plan(
    untouched: None, operator: Operator, lab: Lab, configured: Callable[[str], None]
) -> None:
    configured("  services.nosuch.enable = true;\n}\n")
    broken = snapshot(lab, HOST)
    said = operator("plan", HOST, "--diff")
    assert said.code == 5
    assert "services.nosuch" in next(line for line in said.err.splitlines() if "a switch would fail" in line)
    assert "+++ /etc/nixos/nixprov/settings.nix" in said.out
    assert snapshot(lab, HOST) == broken
    assert operator("plan", HOST).code == 5


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_plan_that_is_cut_short_leaves_nothing(
    operator: Operator, lab: Lab, configured: Callable[[str], None], how: signal.Signals
) -> None:
    before = rest(lab)
    configured(SLOW.replace("@STAMP@", secrets.token_hex(6)))
    argv = [sys.executable, "-m", "provisioner", "plan", HOST, "--build"]
    with subprocess.Popen(argv, env=operator.environment(), stderr=subprocess.DEVNULL) as process:
        wait_for(lambda: "sleep 314" in processes(lab))
        process.send_signal(how)
        assert process.wait(20) == (130 if how is signal.SIGINT else -how)
    wait_for(lambda: rest(lab) == before and "sleep 314" not in processes(lab))


def processes(lab: Lab) -> str:
    return lab.run(HOST, ["sh", "-c", "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '; exit 0"]).stdout


def wait_for(done: Callable[[], bool], limit_s: float = 30) -> None:
    end = time.monotonic() + limit_s
    while not done():
        assert time.monotonic() < end
        time.sleep(0.3)
