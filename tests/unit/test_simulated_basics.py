"""What goes well, in the simulated world: `up`, again, and `down`."""

from __future__ import annotations

from provisioner.outcome import Outcome
from tests.simulator.stage import World


def test_up_again_and_down() -> None:
    world = World()
    host = world.add_host()
    before, system = host.disk.snapshot("/"), host.system
    said = world.operator().up()
    assert said.outcome is Outcome.CHANGED
    assert host.journal["phase"] == "up: confirmed"
    again = world.operator().up()
    assert (again.outcome, again.plan()) == (Outcome.UNCHANGED, ())
    gone = world.operator().down()
    assert gone.outcome is Outcome.CHANGED
    assert world.gitlab.runners == []
    assert host.system == system
    after = host.disk.snapshot("/")
    assert {path for path in after if path not in before} == set()
