"""Switches that fail, each in its own way: back to the recorded generation and files, or said and left alone."""

from __future__ import annotations

import pytest

from provisioner.lab.running import Lab
from tests.faults.machine import edited, runners, system, untouched
from tests.lab.operator import Operator, leftovers, snapshot

UNIT = "nixprov-runner-default.service"
ACTIVATION = 'system.activationScripts.broken = "false";'
STRANGER = (
    'systemd.services.stranger = { wantedBy = [ "multi-user.target" ]; serviceConfig.ExecStart = "/bin/false"; };'
)


def ours(line: str) -> str:
    return f"systemd.services.nixprov-runner-default.serviceConfig.{line}"


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        pytest.param((ACTIVATION,), ("activation script failed",), id="activation fails: 2"),
        pytest.param((f'{ours("ExecStartPre")} = lib.mkForce "/bin/false";',), (UNIT,), id="our unit fails: 4"),
        pytest.param(
            (f"{ours('ExecStart')} = lib.mkForce \"/bin/sh -c 'sleep 1; echo last words; exit 1'\";",),
            (UNIT, "last words"),
            id="our unit starts and dies",
        ),
    ],
)
def test_rolled_back_with_the_reason(
    lab: Lab, operator: Operator, lines: tuple[str, ...], words: tuple[str, ...]
) -> None:
    with edited(lab, "host2", *lines):
        before = (system(lab, "host2"), snapshot(lab, "host2"))
        said = operator("up", "host2", "--yes", "--json", "--confirm-limit", "40")
        assert said.code == 7, said.err
        error = said.host("host2")["error"]
        assert all(word in error for word in (*words, "rolled back")), error
        assert (system(lab, "host2"), snapshot(lab, "host2")) == before
        assert (leftovers(lab, "host2"), runners(lab, "host2")) == ("", [])


def test_somebody_elses_unit_is_reported_and_left_alone(lab: Lab, operator: Operator) -> None:
    lab.run("host2", ["systemctl", "reset-failed"])
    with edited(lab, "host2", STRANGER), untouched(lab, "host2", operator):
        said = operator("up", "host2", "--yes", "--json")
        assert said.code == 0, said.err
        told = [event["text"] for event in said.events if event["event"] == "warning"]
        assert any("stranger.service" in text and "fail since this switch" in text for text in told), told
        assert len(runners(lab, "host2")) == 1
    lab.run("host2", ["systemctl", "reset-failed", "stranger.service"], check=False)
