"""A connection that goes while a switch runs: nixprov comes back to it, or the next one does, and no line is lost."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from nixprov_lab.running import Lab

from tests.faults.machine import Begun, edited_for_us, runners, system, until_phase, untouched
from tests.lab.operator import Operator, Pause, leftovers, snapshot

STEPS = 28
CUTS_ITSELF_OFF = """system.activationScripts.cut = ''
  if [ -e $systemConfig/etc/nixprov-revision ]; then
    i=0
    while [ $i -lt 10 ]; do
      i=$((i + 1)); echo "moving $i."; sleep 0.3
      [ $i != 5 ] || pkill -9 sshd || :
    done
  fi
'';"""


def slow_build(steps: int, last: str = ":") -> str:
    """Its lines are numbered, so that each can be counted; the owner's own rebuilds are not slowed."""
    return f"""system.extraSystemBuilderCmds = ''
  if [ -e $out/etc/nixprov-revision ]; then
    i=0
    while [ $i -lt {steps} ]; do i=$((i + 1)); echo "step $i."; sleep 0.5; done
    {last}
  fi
'';"""


def impatient(lab: Lab, operator: Operator) -> dict[str, str]:
    """An operator whose ssh notices in seconds that nobody answers, where it else takes most of a minute."""
    path = operator.home / "impatient"
    text = lab.files.inventory.read_text()
    options = "-o ServerAliveInterval=2 -o ServerAliveCountMax=2 -o ConnectTimeout=3"
    path.write_text(text.replace("ansible_ssh_common_args='", f"ansible_ssh_common_args='{options} "))
    return {"NIXPROV_INVENTORY": str(path)}


def test_cut_in_the_build_and_by_the_switch_itself(lab: Lab, operators: Callable[[], Operator]) -> None:
    operator, pause = operators(), Pause(lab, "host2", 521)
    build = slow_build(STEPS, pause.shell)
    with edited_for_us(lab, "host2", build, CUTS_ITSELF_OFF), untouched(lab, "host2", operator):
        run = Begun(operator, "up", "host2", "--yes", **impatient(lab, operator))
        said = run.collect(lambda event: "step 3." in str(event.get("text")))
        lab.cut_network("host2")
        time.sleep(10)
        lab.restore_network("host2")
        said += run.collect(lambda event: "step" in str(event.get("text")))
        # It holds the host over the new connection too, however long the build takes.
        refused = operators()("up", "host2", "--yes", "--json")
        assert (refused.code, "holds it, and its connection is open" in refused.err) == (5, True), refused.err
        pause.begun()
        pause.end()
        said += run.collect(lambda event: event["event"] == "summary")
        code, err = run.end()
        assert code == 0, err
        lines = [str(event["text"]) for event in said if event["event"] == "log"]
        for name, last in (("step", STEPS), ("moving", 10)):
            found = [line for line in lines if line.startswith(f"{name} ") and line.endswith(".")]
            assert found == [f"{name} {number}." for number in range(1, last + 1)]
        lost = [event for event in said if event["event"] == "warning" and "connection lost" in str(event["text"])]
        assert len(lost) >= 2, said
        assert len(runners(lab, "host2")) == 1


@pytest.mark.rare
def test_cut_for_longer_than_the_host_waits(lab: Lab, operator: Operator) -> None:
    before = (system(lab, "host2"), snapshot(lab, "host2"))
    run = Begun(operator, "up", "host2", "--yes", "--confirm-limit", "8", **impatient(lab, operator))
    run.log("nixprov: activate")
    lab.cut_network("host2")
    time.sleep(30)
    lab.restore_network("host2")
    code, err = run.end()
    assert code == 7, err
    assert "nobody confirmed the new system in time, so the host went back to the old one; rolled back" in err
    assert (system(lab, "host2"), snapshot(lab, "host2")) == before
    assert (leftovers(lab, "host2"), runners(lab, "host2")) == ("", [])


def test_killed_while_it_builds_the_next_one_follows_to_the_end(lab: Lab, operators: Callable[[], Operator]) -> None:
    pause = Pause(lab, "host2", 522)
    with edited_for_us(lab, "host2", slow_build(4, pause.shell)), untouched(lab, "host2", operators()):
        run = Begun(operators(), "up", "host2", "--yes")
        run.log("step 2.")
        run.process.kill()
        run.end()
        told = operators()("status", "host2")
        assert told.code == 0, told.err
        assert "goes on: it builds" in told.err
        following = Begun(operators(), "up", "host2", "--yes")
        following.log("step 4.")
        pause.begun()
        pause.end()
        code, err = following.end()
        assert code == 0, err
        assert len(runners(lab, "host2")) == 1


@pytest.mark.rare
def test_killed_while_it_builds_what_cannot_be_built(lab: Lab, operators: Callable[[], Operator]) -> None:
    """Nobody is there to take the files back, and a configuration that does not build stops every rebuild of its owner."""
    fails = "echo no such luck >&2; exit 3"
    with edited_for_us(lab, "host2", slow_build(6, fails)), untouched(lab, "host2", operators()):
        before = (system(lab, "host2"), snapshot(lab, "host2"))
        run = Begun(operators(), "up", "host2", "--yes")
        run.log("step 2.")
        run.process.kill()
        run.end()
        until_phase(lab, "host2", "rolled back by the host")
        assert (system(lab, "host2"), snapshot(lab, "host2")) == before
