"""Two hundred hosts on loopback: the run stays calm, small and flat."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.fleet200.loopback import TOOLS, Fleet, Measured, fleet

HOSTS = 200
MEMORY_MB = 150


@pytest.fixture(scope="module")
def loopback() -> Iterator[Fleet]:
    if None in TOOLS:
        why = "needs sshd and ssh (Debian: openssh-server, openssh-client)"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(why)
    with fleet(HOSTS) as made:
        yield made


@pytest.fixture(scope="module")
def up(loopback: Fleet) -> Measured:
    return loopback.run("up", "--yes", "--forks", "20")


def test_every_host_is_found_converged(up: Measured) -> None:
    others = [event for event in up.events if event.get("changes") or event.get("error")]
    assert (up.code, up.summary["unchanged"]) == (0, HOSTS), others[:3]


def test_a_host_costs_one_connection_and_one_command(up: Measured) -> None:
    hosts = [event for event in up.events if event["event"] == "host"]
    assert Counter((host["connections"], host["remote_commands"]) for host in hosts) == {(1, 1): HOSTS}
    assert up.summary["gitlab_writes"] == 0


def test_memory_stays_small(up: Measured) -> None:
    assert up.peak_mb < MEMORY_MB


def test_nothing_is_said_that_nobody_needs(up: Measured) -> None:
    assert {event["event"] for event in up.events} == {"start", "phase", "plan", "host", "summary"}
    assert "warning" not in up.text
    assert "Traceback" not in up.text


def test_one_that_is_gone_holds_nobody(loopback: Fleet) -> None:
    inventory = loopback.folder / "inventory"
    before = inventory.read_text()
    try:
        # The later word wins: a port where nobody answers.
        inventory.write_text(before + "h100 ansible_port=1\n")
        run = loopback.run("status", "h09?:h100", "--forks", "20", "--connect-retries", "0")
    finally:
        inventory.write_text(before)
    assert (run.code, run.summary["unreachable"], run.summary["unchanged"]) == (6, 1, 10)
    assert [event["host"] for event in run.events if event["event"] == "host" and event["error"]] == ["h100"]
