"""A switch that cuts its own line: the host goes back by itself, and no other run is needed for that."""

from __future__ import annotations

import time
from collections.abc import Callable

from provisioner.lab.running import Lab
from tests.faults.machine import Begun, journal, runners, system, untouched
from tests.lab.operator import Operator, snapshot

LIMIT_S = 12


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


def test_a_host_that_loses_power_comes_back_as_it_was(lab: Lab, operators: Callable[[], Operator]) -> None:
    with untouched(lab, "host2", operators()):
        before = system(lab, "host2")
        run = Begun(operators(), "up", "host2", "--yes")
        run.log("nixprov: activate")
        lab.stop_host("host2", hard=True)
        run.process.kill()
        run.end()
        lab.start_host("host2")
        assert system(lab, "host2") == before
        said = operators()("up", "host2", "--yes", "--json")
        assert said.code == 0, said.err
        assert len(runners(lab, "host2")) == 1
