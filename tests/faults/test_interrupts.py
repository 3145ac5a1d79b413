"""Ctrl-C: once leaves the switch to the host and to whoever comes next, twice takes everything back."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable

import pytest
from nixprov_lab.running import Lab

from tests.faults.machine import Begun, journal, runners, system, until_running, untouched
from tests.lab.operator import Operator, Pause, leftovers, poll, snapshot

HOST = "host1"


def interrupt(run: Begun) -> None:
    run.process.send_signal(signal.SIGINT)


def is_leaving(event: dict[str, object]) -> bool:
    return event["event"] == "warning" and "leaving the switch to itself" in str(event["text"])


def test_once_leaves_the_switch_and_the_next_operator_confirms_it(lab: Lab, operators: Callable[[], Operator]) -> None:
    with untouched(lab, HOST, operators()):
        run = Begun(operators(), "up", HOST, "--yes")
        run.log("nixprov: activate")
        interrupt(run)
        code, err = run.end()
        assert code == 130, err
        assert "`nixprov up` takes it up again and confirms it within 180 s, or it goes back" in err
        told = operators()("status", HOST)
        assert "a switch of " in told.err + told.out
        said = operators()("up", HOST, "--yes", "--json")
        assert said.code == 0, said.err
        assert any("following it to its end" in str(event.get("text")) for event in said.events)
        assert len(runners(lab, HOST)) == 1


@pytest.mark.rare
def test_once_and_nobody_comes(lab: Lab, operators: Callable[[], Operator]) -> None:
    with untouched(lab, HOST, operators()):
        before = (system(lab, HOST), snapshot(lab, HOST))
        run = Begun(operators(), "up", HOST, "--yes", "--confirm-limit", "5")
        run.log("nixprov: activate")
        interrupt(run)
        assert run.end()[0] == 130
        deadline = time.monotonic() + 120
        while journal(lab, HOST)["phase"] != "rolled back by the host":
            assert time.monotonic() < deadline
            time.sleep(0.5)
        assert (system(lab, HOST), snapshot(lab, HOST)) == before
        assert "rolled back by the host" in operators()("status", HOST).err


@pytest.mark.parametrize("point", ["nixprov: build", "nixprov: activate"])
def test_twice_takes_everything_back(lab: Lab, operators: Callable[[], Operator], point: str) -> None:
    before = (system(lab, HOST), snapshot(lab, HOST))
    run = Begun(operators(), "up", HOST, "--yes")
    run.log(point)
    interrupt(run)
    assert [event["event"] for event in run.collect(is_leaving)].count("interrupt") == 1
    interrupt(run)
    code, err = run.end()
    assert code == 7, err
    assert "stopped by the operator; rolled back" in err
    assert (system(lab, HOST), snapshot(lab, HOST)) == before
    assert (leftovers(lab, HOST), runners(lab, HOST)) == ("", [])


@pytest.mark.parametrize(("phase", "code"), [("probe", 130), ("create", 7)])
def test_before_the_switch_one_is_enough(lab: Lab, operators: Callable[[], Operator], phase: str, code: int) -> None:
    before = (system(lab, HOST), snapshot(lab, HOST))
    lab.gitlab.set_fault("slow", method="GET", path_regex="/runners/all", seconds=3 if phase == "probe" else 0)
    lab.gitlab.set_fault("reply_late", method="POST", path_regex="/user/runners", seconds=3)
    try:
        run = Begun(operators(), "up", HOST, "--yes")
        run.phase(phase)
        while phase == "create" and not runners(lab, HOST):  # it is made, and the answer comes seconds later
            time.sleep(0.1)
        interrupt(run)
        ended, err = run.end()
    finally:
        lab.gitlab.clear_faults()
    assert ended == code, err
    assert (system(lab, HOST), snapshot(lab, HOST)) == before
    assert (leftovers(lab, HOST), runners(lab, HOST)) == ("", [])


@pytest.mark.rare
def test_in_the_middle_of_a_transaction_it_waits_for_its_end(lab: Lab, operators: Callable[[], Operator]) -> None:
    """It had begun, so its switch begins too: cut off, it would begin one while we take everything back."""
    with untouched(lab, HOST, operators()):
        lab.gitlab.set_fault("slow", method="POST", path_regex="/user/runners", seconds=3)
        run = Begun(operators(), "up", HOST, "--yes")
        run.phase("create")
        run.process.send_signal(signal.SIGSTOP)
        # Transactions of a host wait for each other.
        other = Pause(lab, HOST, 533)
        busy = subprocess.Popen([*lab.ssh_argv(HOST), f"flock /var/lib/nixprov sh -c '{other.shell}'"])
        other.begun()
        run.process.send_signal(signal.SIGCONT)
        poll(lab, HOST, "the transaction waits", "pgrep -xf 'flock -w 15 9'")
        interrupt(run)
        other.end()
        code, err = run.end()
        assert busy.wait() == 0
        assert code == 130, err
        assert "takes it up again and confirms it" in err
        said = operators()("up", HOST, "--yes", "--json")
        assert said.code == 0, said.err


def test_while_jobs_are_waited_for_the_runner_goes_on(lab: Lab, operators: Callable[[], Operator]) -> None:
    with untouched(lab, HOST, operators()):
        assert operators()("up", HOST, "--yes").code == 0
        job = lab.gitlab.queue_job("sleep 600", host=HOST)
        until_running(lab, job)
        run = Begun(operators(), "down", HOST, "--yes")
        run.until(lambda event: event["event"] == "drain")
        interrupt(run)
        code, err = run.end()
        assert code == 130, err
        assert [runner["paused"] for runner in lab.gitlab.runners() if runner["host"] == HOST] == [False]
        assert lab.gitlab.job(job).status == "running"
        assert operators()("plan", HOST, "--json").summary["unchanged"] == 1
