"""What goes well in the simulated world, and how hosts of one run are kept apart."""

from __future__ import annotations

from provisioner.events import StatusRead
from provisioner.machine.switch import DIR
from provisioner.model import RunnerSpec
from provisioner.outcome import Outcome
from tests.simulator.reader import Probe
from tests.simulator.stage import World


def test_up_again_and_down() -> None:
    world = World()
    host = world.add_host()
    before, system = host.disk.snapshot("/etc/nixos"), host.system
    paths = set(host.disk.entries)
    said = world.operator().up()
    assert said.outcome is Outcome.CHANGED
    assert host.journal["phase"] == "up: confirmed"
    assert (host.system.revision, host.profile) != ("", system)
    gone = world.operator().down()
    assert gone.outcome is Outcome.CHANGED
    assert world.gitlab.runners == []
    assert (host.system, host.profile, host.units) == (system, system, {})
    assert host.disk.snapshot("/etc/nixos") == before
    assert set(host.disk.entries) == paths


def test_a_converged_host_costs_one_command() -> None:
    world = World()
    world.add_host()
    assert world.operator().up().is_good
    again = world.operator().up()
    assert (again.outcome, again.plan()) == (Outcome.UNCHANGED, ())
    assert [type(command) for command in again.commands] == [Probe]
    assert again.result.connections == 1


def test_one_hosts_failure_is_no_other_hosts() -> None:
    world = World()
    broken, whole = world.add_host("host1"), world.add_host("host2", RunnerSpec("first"), RunnerSpec("second"))
    broken.fails_to_build = lambda _: "error: builder failed"
    said = world.operator().up()
    assert [result.outcome for result in said.results] == [Outcome.ROLLED_BACK, Outcome.CHANGED]
    assert broken.journal == {}
    assert {runner.mark.runner for runner in world.gitlab.runners if runner.mark} == {"first", "second"}
    assert {name for name, unit in whole.units.items() if unit.token} == {
        "nixprov-runner-first.service",
        "nixprov-runner-second.service",
    }


def test_a_switch_that_cannot_build_says_so_and_leaves_the_reason_on_the_host() -> None:
    world = World()
    host = world.add_host()
    host.fails_to_build = lambda _: "error: no such luck"
    said = world.operator().up()
    assert "does not evaluate or build" in said.result.error
    assert not host.disk.exists(DIR), "a host that was new is new again"


def test_status_names_what_somebody_changed() -> None:
    world = World()
    host = world.add_host()
    assert world.operator().up().is_good
    world.pass_time(10)
    host.disk.remove("/etc/nixos/nixprov/options.nix")
    said = world.operator().status()
    (report,) = [event for event in said.events if isinstance(event, StatusRead)]
    assert any("options.nix is missing" in line for line in report.drift)
