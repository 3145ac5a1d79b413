"""A switch that cuts its own line: the host goes back by itself, and no other run is needed for that."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable

import pytest
from nixprov_lab.running import Lab

from tests.faults.machine import Begun, journal, runners, system, until_phase, untouched
from tests.lab.operator import Operator, leftovers, snapshot

LIMIT_S = 12
PROFILE = "/nix/var/nix/profiles/system"


def test_a_host_that_loses_its_network_goes_back_alone(lab: Lab, operators: Callable[[], Operator]) -> None:
    with untouched(lab, "host2", operators()):
        before = (system(lab, "host2"), snapshot(lab, "host2"))
        run = Begun(operators(), "up", "host2", "--yes", "--confirm-limit", str(LIMIT_S))
        run.log("nixprov: activate")
        lab.cut_network("host2")
        run.process.kill()
        run.end()
        time.sleep(LIMIT_S + 15)  # nobody can ask a machine without a network
        lab.restore_network("host2")
        deadline = time.monotonic() + 60
        while (now := (system(lab, "host2"), snapshot(lab, "host2"))) != before and time.monotonic() < deadline:
            time.sleep(0.5)
        assert now == before
        assert journal(lab, "host2")["phase"] == "rolled back by the host"
        said = operators()("up", "host2", "--yes", "--json")
        assert said.code == 0, said.err
        assert len(runners(lab, "host2")) == 1


@pytest.mark.parametrize(
    ("method", "path", "seconds"),
    [
        pytest.param("GET", "/managers$", 3, id="the runner has been seen"),
        pytest.param("POST", "/jobs/request$", 10, id="the runner has not been seen"),
    ],
)
def test_an_operator_that_sleeps_for_longer_than_the_host_waits(
    lab: Lab, operator: Operator, method: str, path: str, seconds: float
) -> None:
    """A lid that is closed when all is ready to be confirmed: the host's own journal is no other operator's."""
    before = (system(lab, "host2"), snapshot(lab, "host2"))
    lab.gitlab.set_fault("slow", method=method, path_regex=path, seconds=seconds, times=None)
    run = Begun(operator, "up", "host2", "--yes", "--confirm-limit", "6")
    run.phase("confirm")
    run.process.send_signal(signal.SIGSTOP)
    try:
        until_phase(lab, "host2", "rolled back by the host")
    finally:
        lab.gitlab.clear_faults()
        run.process.send_signal(signal.SIGCONT)
    code, err = run.end()
    assert code == 7, err
    assert "nobody confirmed the new system in time, so the host went back to the old one; rolled back" in err
    assert (system(lab, "host2"), snapshot(lab, "host2")) == before
    assert (leftovers(lab, "host2"), runners(lab, "host2")) == ("", [])


def state(lab: Lab) -> tuple[tuple[str, str], str]:
    """What runs, what boots, and the files; times to the second, as they are given back."""
    return system(lab, "host2"), re.sub(r"\.\d{10}$", "", snapshot(lab, "host2"), flags=re.MULTILINE)


def lose_power(lab: Lab, run: Begun, text: str) -> None:
    """The machine and the operator's computer at once, when the switch's log says `text`."""
    run.log(text)
    lab.stop_host("host2", hard=True)
    run.process.kill()
    run.end()
    lab.start_host("host2")


@pytest.mark.parametrize("verb", ["up", pytest.param("down", marks=pytest.mark.rare)])
def test_a_host_that_loses_power_comes_back_as_it_was(lab: Lab, operators: Callable[[], Operator], verb: str) -> None:
    with untouched(lab, "host2", operators()):
        assert verb == "up" or operators()("up", "host2", "--yes").code == 0
        before = state(lab)
        lose_power(lab, Begun(operators(), verb, "host2", "--yes"), "nixprov: activate")
        # No other run is needed for this: a plain nixos-rebuild of the owner builds what was built yesterday.
        assert state(lab) == before
        assert journal(lab, "host2")["phase"] == "rolled back by the host"
        built = lab.run("host2", ["sh", "-c", "cd /tmp && nixos-rebuild build >&2 && readlink result"]).stdout
        assert built.strip() == before[0][1]
        said = operators()("up", "host2", "--yes", "--json")
        assert said.code == 0, said.err
        assert len(runners(lab, "host2")) == 1


@pytest.mark.rare
def test_without_confirmation_a_plain_rebuild_goes_on_where_power_ended_it(
    lab: Lab, operators: Callable[[], Operator]
) -> None:
    with untouched(lab, "host2", operators()):
        before = state(lab)
        lose_power(lab, Begun(operators(), "up", "host2", "--yes", "--no-confirm"), "nixprov: build")
        now = state(lab)
        assert (now[0] == before[0], now[1] == before[1]) == (True, False)
        assert "ended half-way: up: written" in operators()("status", "host2").err
        assert lab.run("host2", ["nixos-rebuild", "switch"]).returncode == 0
        generation = lab.run("host2", ["readlink", PROFILE]).stdout.split("-")[1]
        assert lab.run("host2", ["systemctl", "is-active", "nixprov-runner-default"]).stdout.strip() == "active"
        said = operators()("up", "host2", "--yes", "--json")
        assert said.code == 0, said.err
        assert len(runners(lab, "host2")) == 1
        assert operators()("down", "host2", "--yes").code == 0
        # What the owner's own rebuild made is the owner's.
        assert leftovers(lab, "host2").split() == [f"{PROFILE}-{generation}-link"]
        lab.run("host2", ["nix-env", "--profile", PROFILE, "--delete-generations", generation])
