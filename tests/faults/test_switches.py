"""Switches that fail, each in its own way: back to the recorded generation and files, or said and left alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from nixprov_lab.running import Lab

from tests.faults.machine import Begun, edited, edited_for_us, runners, system, until_phase, untouched
from tests.lab.operator import Operator, leftovers, snapshot

UNIT = "nixprov-runner-default.service"
ACTIVATION = 'system.activationScripts.broken = "false";'
STRANGER = (
    'systemd.services.stranger = { wantedBy = [ "multi-user.target" ]; serviceConfig.ExecStart = "/bin/false"; };'
)


def ours(line: str) -> str:
    return f"systemd.services.nixprov-runner-default.serviceConfig.{line}"


# Nothing of these gets as far as an activation.
REFUSED = {
    "the configuration does not evaluate": (
        ("environment.nope = 1;",),
        "does not evaluate or build",
        "The option `environment.nope' does not exist",
    ),
    "the system does not build": (
        ("system.extraSystemBuilderCmds = \"echo 'no such luck' >&2; exit 3\";",),
        "does not evaluate or build",
        "no such luck",
    ),
    "a pre-switch check says no, with an errno": (
        ("system.preSwitchChecks.monday = \"echo 'not on a Monday' >&2; false\";",),
        "refused before its activation",
        "not on a Monday",
    ),
    "only a reboot helps: 100": (
        ("system.extraSystemBuilderCmds = \"printf 'systemd 3' > $out/init-interface-version\";",),
        "without a reboot",
        "until you reboot the system",
    ),
}
RARE = ("the system does not build", "a pre-switch check says no, with an errno")


@pytest.mark.parametrize(
    ("lines", "words", "own_words"),
    [pytest.param(*case, id=name, marks=[pytest.mark.rare] * (name in RARE)) for name, case in REFUSED.items()],
)
def test_refused_before_anything_moved(
    lab: Lab, operator: Operator, lines: tuple[str, ...], words: str, own_words: str
) -> None:
    with edited_for_us(lab, "host2", *lines):
        before = (system(lab, "host2"), snapshot(lab, "host2"))
        said = operator("up", "host2", "--yes", "--json")
        assert said.code == 7, said.err
        error = said.host("host2")["error"]
        assert words in error, error
        assert "rolled back" in error
        log = [event["text"] for event in said.events if event["event"] == "log"]
        assert any(own_words in line for line in log), log
        assert "activating the configuration..." not in log
        # What a person reads has the reason too, and not only who asked for everything.
        assert own_words in said.err
        assert (system(lab, "host2"), snapshot(lab, "host2")) == before
        assert (leftovers(lab, "host2"), runners(lab, "host2")) == ("", [])


REEXECUTES = """system.activationScripts.reexecute = ''
  if [ -e $systemConfig/etc/nixprov-revision ]; then
    for i in 1 2 3 4 5 6 7 8; do systemctl daemon-reexec; sleep 0.1; done
  fi
'';"""


# As programs.ssh.startAgent has it in /etc/set-environment, which the switch of `down` reads.
OF_A_SESSION = 'environment.variables.SSH_AUTH_SOCK = "$XDG_RUNTIME_DIR/ssh-agent";'


def test_a_switch_in_which_systemd_executes_itself_anew(lab: Lab, operator: Operator) -> None:
    """As when systemd itself was upgraded: it answers nobody meanwhile, and the switch goes on."""
    with edited_for_us(lab, "host2", REEXECUTES, OF_A_SESSION), untouched(lab, "host2", operator):
        said = operator("up", "host2", "--yes", "--json")
        assert said.code == 0, said.err
        assert len(runners(lab, "host2")) == 1


# Only a system with the runner in it meets this boot loader's end; the old one must be written again.
LOADER = """boot.loader.external = {
  enable = true;
  installHook = pkgs.writeScript "hook" ''
    #!/bin/sh
    [ ! -e $1/etc/nixprov-revision ] || { echo no room in /boot >&2; exit 1; }
  '';
};"""


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        pytest.param((ACTIVATION,), ("activation script failed",), id="activation fails: 2"),
        pytest.param(
            ('system.activationScripts.hasty = "exit 0";',),
            ("activation script failed",),
            id="activation stops early: 0",
            marks=pytest.mark.rare,
        ),
        pytest.param((f'{ours("ExecStartPre")} = lib.mkForce "/bin/false";',), (UNIT,), id="our unit fails: 4"),
        pytest.param(
            (f"{ours('ExecStart')} = lib.mkForce \"/bin/sh -c 'sleep 1; echo last words; exit 1'\";",),
            (UNIT, "last words"),
            id="our unit starts and dies",
        ),
        pytest.param((LOADER,), ("boot loader", "no room in /boot"), id="boot loader fails"),
    ],
)
def test_rolled_back_with_the_reason(
    lab: Lab, operator: Operator, lines: tuple[str, ...], words: tuple[str, ...]
) -> None:
    with edited_for_us(lab, "host2", *lines):
        before = (system(lab, "host2"), snapshot(lab, "host2"))
        said = operator("up", "host2", "--yes", "--json", "--confirm-limit", "40")
        assert said.code == 7, said.err
        error = said.host("host2")["error"]
        assert all(word in error for word in (*words, "rolled back")), error
        assert (system(lab, "host2"), snapshot(lab, "host2")) == before
        assert (leftovers(lab, "host2"), runners(lab, "host2")) == ("", [])


# The disk of the boot menu fills up while the system is tried.
FULL = """boot.loader.external = {
  enable = true;
  installHook = pkgs.writeScript "hook" ''
    #!/bin/sh
    [ ! -e /run/full ] || { echo no room in /boot >&2; exit 1; }
  '';
};"""


@pytest.mark.rare
def test_a_boot_loader_that_takes_no_system_leaves_the_old_one_running(
    lab: Lab, operators: Callable[[], Operator]
) -> None:
    with edited(lab, "host2", FULL):
        lab.run("host2", ["nixos-rebuild", "switch"])
        with untouched(lab, "host2", operators()):
            before = system(lab, "host2")
            lab.run("host2", ["touch", "/run/full"])
            said = operators()("up", "host2", "--yes", "--json")
            assert said.code == 8, said.err
            assert "the boot loader could not be set" in said.host("host2")["error"]
            assert "/var/lib/nixprov" in said.host("host2")["remains"]
            assert system(lab, "host2") == before
            lab.run("host2", ["rm", "/run/full"])
            assert operators()("up", "host2", "--yes", "--json").code == 0
    assert lab.run("host2", ["nixos-rebuild", "switch"]).returncode == 0


# What systemd gave every unit to write to is gone: the new journal knows none of the old streams.
DEAF = """system.activationScripts.deaf = ''
  journal="systemd-journald.socket systemd-journald-dev-log.socket systemd-journald.service"
  if [ -e $systemConfig/etc/nixprov-revision ]; then
    systemctl stop $journal
    systemctl clean --what=fdstore systemd-journald.service
    systemctl start $journal
  fi
'';"""


def test_a_crash_half_way_is_taken_back(lab: Lab, operator: Operator) -> None:
    """101: a log that broke makes switch-to-configuration panic."""
    with edited_for_us(lab, "host2", DEAF), rebooted(lab):
        before = (system(lab, "host2"), snapshot(lab, "host2"))
        said = operator("up", "host2", "--yes", "--json")
        assert said.code == 7, said.err
        assert "crashed half-way (status 101)" in said.host("host2")["error"]
        assert (system(lab, "host2"), snapshot(lab, "host2")) == before
        assert (leftovers(lab, "host2"), runners(lab, "host2")) == ("", [])


@pytest.mark.rare
def test_a_crash_half_way_with_nobody_there_is_taken_back_by_the_host(
    lab: Lab, operators: Callable[[], Operator]
) -> None:
    """The log is as broken on the way back, in the same unit."""
    with edited_for_us(lab, "host2", DEAF), untouched(lab, "host2", operators()), rebooted(lab):
        before = (system(lab, "host2"), snapshot(lab, "host2"))
        run = Begun(operators(), "up", "host2", "--yes", "--confirm-limit", "5")
        run.log("nixprov: activate")
        run.process.kill()
        run.end()
        until_phase(lab, "host2", "rolled back by the host")
        assert (system(lab, "host2"), snapshot(lab, "host2")) == before
        assert lab.run("host2", ["sh", "-c", "cat /run/nixos/*-list"], check=False).stdout == ""


@contextmanager
def rebooted(lab: Lab) -> Iterator[None]:
    """Every other unit of the machine has lost its log as well."""
    try:
        yield
    finally:
        lab.reboot("host2")


def test_somebody_elses_unit_is_reported_and_left_alone(lab: Lab, operator: Operator) -> None:
    lab.run("host2", ["systemctl", "reset-failed"])
    with edited_for_us(lab, "host2", STRANGER), untouched(lab, "host2", operator):
        assert "fail since this switch" in warnings_of(lab, operator)
    lab.run("host2", ["systemctl", "reset-failed", "stranger.service"], check=False)


@pytest.mark.rare
def test_somebody_elses_unit_that_failed_before_is_said_to_have(lab: Lab, operator: Operator) -> None:
    with edited(lab, "host2", STRANGER):
        # It is the owner's, from a switch of their own, and fails at each of ours.
        assert lab.run("host2", ["nixos-rebuild", "switch"], check=False).returncode == 4
        with untouched(lab, "host2", operator):
            assert "were failed before this run too" in warnings_of(lab, operator)
    assert lab.run("host2", ["nixos-rebuild", "switch"]).returncode == 0
    lab.run("host2", ["systemctl", "reset-failed"])


def warnings_of(lab: Lab, operator: Operator) -> str:
    """What an `up` that goes well says of the stranger."""
    said = operator("up", "host2", "--yes", "--json")
    assert said.code == 0, said.err
    assert len(runners(lab, "host2")) == 1
    told = [str(event["text"]) for event in said.events if event["event"] == "warning"]
    return next(text for text in told if "stranger.service" in text)
