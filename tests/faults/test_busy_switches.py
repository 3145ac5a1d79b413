"""Somebody else switches (an automatic upgrade, a colleague) while we begin, confirm, go back or give up.

The lock is that of switch-to-configuration, which refuses at once since NixOS 25.05. Held by a unit of the machine until
a test lets it go, so that nothing depends on who is faster.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import pytest
from nixprov_lab.running import Lab

from tests.faults.machine import Begun, journal, runners, system, until_phase, untouched
from tests.lab.operator import Operator, leftovers, poll, snapshot

HOST: Final = "host1"
LOCK: Final = "/run/nixos/switch-to-configuration.lock"
PROFILE: Final = "/nix/var/nix/profiles/system"
RESULT: Final = "/var/lib/nixprov/switch/result"
WHO: Final = "of nixos-upgrade.service"
UNIT: Final = "nixprov-switch.service"

Operators = Callable[[], Operator]


@pytest.fixture(autouse=True)
def nothing_failed(lab: Lab) -> Iterator[None]:
    """Whatever a run ended in: what a host went back from is no failed unit, which every later switch would report."""
    yield
    assert lab.run(HOST, ["systemctl", "is-failed", UNIT], check=False).stdout.strip() != "failed"


@pytest.fixture
def before(lab: Lab) -> tuple[tuple[str, str], str]:
    return state(lab)


def state(lab: Lab) -> tuple[tuple[str, str], str]:
    return system(lab, HOST), snapshot(lab, HOST)


class Somebody:
    """Another switch, as long as it lasts."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    def begins(self) -> None:
        holds = f"systemd-run --quiet --collect --unit=nixos-upgrade flock {LOCK} sleep 3600"
        self.lab.run(HOST, ["sh", "-c", f"mkdir -p /run/nixos; {holds}"])
        poll(self.lab, HOST, "the lock is held", f"! flock --nonblock {LOCK} true")

    def __enter__(self) -> None:
        return

    def __exit__(self, *_: object) -> None:
        self.ends()

    def ends(self) -> None:
        self.lab.run(HOST, ["systemctl", "stop", "nixos-upgrade.service"], check=False)


@pytest.fixture
def somebody(lab: Lab) -> Iterator[Somebody]:
    with (one := Somebody(lab)):
        yield one


@contextmanager
def setting(lab: Lab, words: str) -> Iterator[None]:
    """A variable that all units of the machine have."""
    lab.run(HOST, ["systemctl", "set-environment", words])
    try:
        yield
    finally:
        lab.run(HOST, ["systemctl", "unset-environment", words.partition("=")[0]])


def until_result(lab: Lab, words: str) -> None:
    poll(lab, HOST, words, f"grep -qs '^{words}' {RESULT}")


def comes_to_confirm(operator: Operator, somebody: Somebody, *options: str, verb: str = "up") -> Begun:
    """A run that has switched; it sleeps while somebody takes the lock, and goes on."""
    run = Begun(operator, verb, HOST, "--yes", *options)
    run.phase("confirm")
    run.process.send_signal(signal.SIGSTOP)
    somebody.begins()
    run.process.send_signal(signal.SIGCONT)
    return run


def dies_as_it_confirms(operators: Operators, somebody: Somebody) -> None:
    """A run that is killed with the lock in somebody's hands: the host is alone, and goes back soon."""
    run = comes_to_confirm(operators(), somebody, "--confirm-limit", "20")
    run.process.kill()
    run.end()


def kill(lab: Lab) -> None:
    """All that nixprov has on the machine at this moment."""
    lab.run(HOST, ["systemctl", "kill", "--signal=KILL", UNIT], check=False)


@pytest.mark.parametrize("verb", ["up", pytest.param("down", marks=pytest.mark.rare)])
@pytest.mark.parametrize("kind", ["new", pytest.param("old", marks=pytest.mark.rare)])
def test_while_we_begin(lab: Lab, operators: Operators, somebody: Somebody, verb: str, kind: str) -> None:
    with untouched(lab, HOST, operators()), somebody, setting(lab, f"NIXPROV_LAB_OLD_SWITCH={int(kind == 'old')}"):
        assert verb == "up" or operators()("up", HOST, "--yes").code == 0
        somebody.begins()
        run = Begun(operators(), verb, HOST, "--yes")
        assert WHO in run.log("holds the lock: waiting for its end")["text"]
        told = operators()("status", HOST).err
        assert "it activates the new system: somebody else's switch" in told, told
        somebody.ends()
        code, err = run.end()
        assert code == 0, err
        assert len(runners(lab, HOST)) == int(verb == "up")
        assert verb == "down" or operators()("plan", HOST, "--json").summary["unchanged"] == 1


@pytest.mark.parametrize("options", [(), ("--no-confirm",)], ids=["to be confirmed", "kept at once"])
def test_while_we_begin_and_for_longer_than_we_wait(
    lab: Lab, operator: Operator, somebody: Somebody, before: object, options: tuple[str, ...]
) -> None:
    """The files are given back, though the lock is held still: nothing was activated."""
    somebody.begins()
    with setting(lab, "NIXPROV_PATIENCE=4"):
        said = operator("up", HOST, "--yes", "--json", *options)
    assert said.code == 7, said.err
    result = said.host(HOST)
    assert "somebody else's switch holds the lock of switch-to-configuration" in result["error"]
    assert "boot loader" not in result["error"]
    assert "run again" in result["hint"]
    assert (state(lab), leftovers(lab, HOST), runners(lab, HOST)) == (before, "", [])


def test_while_we_confirm(lab: Lab, operators: Operators, somebody: Somebody) -> None:
    with untouched(lab, HOST, operators()), somebody:
        run = comes_to_confirm(operators(), somebody)
        until_result(lab, "commit waiting")
        somebody.ends()
        code, err = run.end()
        assert code == 0, err
        running, boots = system(lab, HOST)
        assert running == boots
        assert journal(lab, HOST)["phase"] == "up: confirmed"
        assert operators()("plan", HOST, "--json").summary["unchanged"] == 1


def test_while_we_confirm_and_for_longer_than_we_wait(
    lab: Lab, operator: Operator, somebody: Somebody, before: tuple[tuple[str, str], str]
) -> None:
    """Neither the profile nor the files are ours in the end: it goes back whole."""
    with setting(lab, "NIXPROV_PATIENCE=40"):
        run = comes_to_confirm(operator, somebody)
        until_result(lab, "back waiting")
        assert system(lab, HOST)[0] != before[0][0]
        somebody.ends()
        code, err = run.end()
    assert code == 7, err
    assert "so the new system is not kept" in err
    assert (state(lab), leftovers(lab, HOST), runners(lab, HOST)) == (before, "", [])


def test_while_the_host_goes_back(
    lab: Lab, operators: Operators, somebody: Somebody, before: tuple[tuple[str, str], str]
) -> None:
    """Nothing is given back and nothing is said to be before the old system runs, whoever is killed meanwhile."""
    with untouched(lab, HOST, operators()), somebody, setting(lab, "NIXPROV_PATIENCE=6"):
        dies_as_it_confirms(operators, somebody)
        until_result(lab, "back tries:24")
        for _ in range(2):
            kill(lab)
            until_result(lab, "back waiting")
        (running, boots), files = state(lab)
        assert (running != before[0][0], boots, files != before[1]) == (True, before[0][1], True)
        assert journal(lab, HOST)["phase"] == "up: written"
        told = operators()("status", HOST).err
        assert "rolled back" not in told
        assert "goes back to the old system: somebody else's switch" in told or "still going back" in told, told
        refused = operators()("up", HOST, "--yes", "--json")
        assert (refused.code, refused.host(HOST)["hint"] != "") == (5, True), refused.err
        assert "the host is still going back to the old system" in refused.host(HOST)["error"]
        assert WHO in refused.host(HOST)["error"]
        somebody.ends()
        until_phase(lab, HOST, "rolled back by the host", limit_s=120)
        assert state(lab) == before
        assert "rolled back by the host" in operators()("status", HOST).err
        poll(lab, HOST, "the unit has ended", f"systemctl show -p SubState {UNIT} | grep -qE 'exited|dead'")
        nothing = lab.run(HOST, ["ls", "/etc/systemd/system.control"], check=False).stdout
        assert nothing == ""
        assert operators()("up", HOST, "--yes", "--json").code == 0


@pytest.mark.rare
def test_a_host_that_cannot_go_back_does_at_its_next_boot(
    lab: Lab, operators: Operators, somebody: Somebody, before: tuple[tuple[str, str], str]
) -> None:
    with untouched(lab, HOST, operators()), somebody, setting(lab, "NIXPROV_PATIENCE=6"):
        dies_as_it_confirms(operators, somebody)
        until_result(lab, "back tries:24")
        lab.reboot(HOST)
        until_phase(lab, HOST, "rolled back by the host")
        assert system(lab, HOST) == before[0]
        assert operators()("up", HOST, "--yes", "--json").code == 0


@pytest.mark.rare
def test_who_takes_over_goes_on_from_what_is_there(lab: Lab, operators: Operators, somebody: Somebody) -> None:
    with untouched(lab, HOST, operators()), somebody, setting(lab, "NIXPROV_PATIENCE=30"):
        dies_as_it_confirms(operators, somebody)
        until_result(lab, "back waiting")
        taking = Begun(operators(), "up", HOST, "--yes", "--take-over")
        taking.until(lambda event: "this run goes on from there instead" in str(event.get("text")))
        somebody.ends()
        code, err = taking.end()
        assert code == 0, err
        assert len(runners(lab, HOST)) == 1
        assert operators()("plan", HOST, "--json").summary["unchanged"] == 1


def test_while_we_give_up_before_anything_was_activated(
    lab: Lab, operator: Operator, somebody: Somebody, before: object
) -> None:
    """The lock is not needed for that, and not waited for."""
    somebody.begins()
    run = Begun(operator, "up", HOST, "--yes")
    run.log("holds the lock: waiting for its end")
    run.process.send_signal(signal.SIGINT)
    run.until(lambda event: "leaving the switch to itself" in str(event.get("text")))
    run.process.send_signal(signal.SIGINT)
    code, err = run.end()
    assert code == 7, err
    assert "stopped by the operator; rolled back" in err
    assert (state(lab), leftovers(lab, HOST), runners(lab, HOST)) == (before, "", [])


@pytest.mark.parametrize("ends", [True, False], ids=["it ends", "it does not end"])
def test_while_we_give_up(
    lab: Lab, operators: Operators, somebody: Somebody, before: tuple[tuple[str, str], str], *, ends: bool
) -> None:
    # Nobody asks for jobs, so the run does not come to its end by itself.
    lab.gitlab.set_fault("html_502", method="POST", path_regex="/jobs/request$", times=None)
    with untouched(lab, HOST, operators()), somebody, setting(lab, f"NIXPROV_PATIENCE={60 if ends else 6}"):
        run = comes_to_confirm(operators(), somebody)
        run.process.send_signal(signal.SIGINT)
        assert WHO in run.log("holds the lock: waiting for its end")["text"]
        if ends:
            somebody.ends()
        code, err = run.end()
        lab.gitlab.clear_faults()
        if ends:
            assert (code, state(lab), leftovers(lab, HOST), runners(lab, HOST)) == (7, before, "", []), err
            return
        assert code == 8, err
        assert "the rollback failed: the host is still going back to the old system and tries again by itself" in err
        assert journal(lab, HOST)["phase"] == "up: written"
        somebody.ends()
        until_phase(lab, HOST, "rolled back by the host", limit_s=120)
        assert state(lab) == before
        poll(lab, HOST, "the unit has ended", f"systemctl show -p SubState {UNIT} | grep -qE 'exited|dead'")


def test_an_owners_own_switch_keeps_nothing_that_nobody_confirmed(
    lab: Lab, operators: Operators, before: tuple[tuple[str, str], str]
) -> None:
    """It takes the files that are only tried for the owner's: their profile goes back as well."""
    with untouched(lab, HOST, operators()):
        run = Begun(operators(), "up", HOST, "--yes", "--confirm-limit", "40")
        run.phase("confirm")
        run.process.kill()
        run.end()
        assert lab.run(HOST, ["nixos-rebuild", "switch"]).returncode == 0
        theirs = lab.run(HOST, ["readlink", PROFILE]).stdout.split("-")[1]
        assert state(lab)[0][1] != before[0][1]
        until_phase(lab, HOST, "rolled back by the host", limit_s=120)
        assert state(lab) == before
        # What the owner's own rebuild made is the owner's.
        lab.run(HOST, ["nix-env", "--profile", PROFILE, "--delete-generations", theirs])
